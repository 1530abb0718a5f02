"""Errors that libraries raise as a bare ``RuntimeError`` or ``ValueError``: only the words tell them apart."""

from functools import lru_cache

from bulletproof.errors.registry import Verdict, phrases

_WORDS = r"""
# PyTorch, TensorFlow, ONNX Runtime
out_of_memory:
    oom when allocating.{0,400}device:cpu
gpu_out_of_memory:
    (?:cuda|hip|mps|xpu|npu)\b.{0,40}out of memory
    out of memory.{0,80}\b(?:gpu|cuda|device)
    cuda_error_out_of_memory|cublas_status_alloc_failed|cudnn_status_alloc_failed
    oom when allocating|failed to allocate memory for requested|resource_exhausted: .{0,40}(?:memory|oom|allocat)
    dst tensor is not initialized
out_of_memory:
    defaultcpuallocator: .{0,40}(?:can't|not enough) (?:allocate )?memory
    cannot allocate memory|std::bad_alloc|unable to allocate .{0,40}for an array|paging file is too small
    dataloader worker .{0,40}killed by signal: killed
disk_full:
    no space left on device|disk quota exceeded
model_load_failed:
    loading state_dict|deserialize object on a cuda device|pytorchstreamreader failed|weights only load failed
    load model from .{0,400} failed|could not deserialize|requested the deserialization of
    accessible `\.keras` zip file|no file or directory found at
    can't load (?:tokenizer|the model|the configuration|config)
    does not appear to have a file named|not a valid model identifier|variant of untagged enum modelwrapper
misconfigured:
    found no nvidia driver|cuda driver version is insufficient|no kernel image is available|not compiled with cuda
shape_mismatch:
    shapes cannot be multiplied|incompatible shapes|got invalid dimensions|inhomogeneous shape
    could not be broadcast together
    features, but \w+ is expecting|inconsistent numbers of samples|expected \dd array|is incompatible with the layer
    matmul: input operand|all input arrays must have the same shape|all arrays must be of the same length
    size of tensor a .{0,40} must match|columns passed, passed data had
prediction_failed:
    \bcuda error|cudnn_status|cublas_status|cudnn error|nccl error|tensors to be on the same device|nan in summary
# NumPy, scikit-learn, Python
not_numeric = a value is not a number:
    could not convert string to float|invalid literal for (?:int|float)
    unable to parse string|could not convert string to (?:int|complex)
invalid_input = a value is not a date or time of the expected form:
    time data .{0,400}match|unknown datetime string format|unconverted data remains|invalid isoformat string
not_numeric:
    input (?:\w+ )?contains (?:nan|infinity)
invalid_json:
    while decoding a json
# The words of OpenAI's error bodies, wherever somebody put them
context_length_exceeded, neutral:
    context_length_exceeded|maximum context length
content_filtered, neutral:
    content_filter\b|content_policy_violation|content management policy
quota_exhausted:
    insufficient_quota|exceeded your current quota
rate_limited:
    rate_limit_exceeded|rate limit reached
# Pillow, gzip, SQLite
corrupted_image:
    image file is truncated|broken data stream when reading image|unrecognized data stream contents
    cannot identify image
    broken png|truncated png|not a png file|truncated jpeg|truncated file read|cannot load this image
    when reading image file|not enough image data|eof while reading header|token too long in file header
invalid_archive:
    compressed file ended before
database_unavailable:
    database (?:table )?is locked
"""
_PATTERNS = phrases(_WORDS)


@lru_cache(maxsize=2048)
def worded(text: str) -> Verdict | None:
    """Return what the words alone say, or None; give it no more than some thousand characters.

    Example:
        >>> worded("CUDA out of memory. Tried to allocate 2.00 GiB").code
        'gpu_out_of_memory'
    """
    return next((verdict for pattern, verdict in _PATTERNS if pattern.search(text)), None)
