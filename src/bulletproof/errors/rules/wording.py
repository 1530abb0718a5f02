"""Errors that libraries raise as a bare ``RuntimeError`` or ``ValueError``: only the words tell them apart."""

import re
from functools import lru_cache

from bulletproof.errors.registry import Verdict

_WORDS = {
    # PyTorch, TensorFlow, ONNX Runtime
    r"""
    oom when allocating.{0,400}device:cpu
    """: Verdict("out_of_memory"),
    r"""
    (?:cuda|hip|mps|xpu|npu)\b.{0,40}out of memory
    out of memory.{0,80}\b(?:gpu|cuda|device)
    cuda_error_out_of_memory|cublas_status_alloc_failed|cudnn_status_alloc_failed
    oom when allocating|failed to allocate memory for requested|resource_exhausted: .{0,40}(?:memory|oom|allocat)
    dst tensor is not initialized
    """: Verdict("gpu_out_of_memory"),
    r"""
    defaultcpuallocator: .{0,40}(?:can't|not enough) (?:allocate )?memory
    cannot allocate memory|std::bad_alloc|unable to allocate .{0,40}for an array|paging file is too small
    dataloader worker .{0,40}killed by signal: killed
    """: Verdict("out_of_memory"),
    r"""
    no space left on device|disk quota exceeded
    """: Verdict("disk_full"),
    r"""
    loading state_dict|deserialize object on a cuda device|pytorchstreamreader failed|weights only load failed
    load model from .{0,400} failed|could not deserialize|requested the deserialization of
    accessible `\.keras` zip file|no file or directory found at
    can't load (?:tokenizer|the model|the configuration|config)
    does not appear to have a file named|not a valid model identifier|variant of untagged enum modelwrapper
    """: Verdict("model_load_failed"),
    r"""
    found no nvidia driver|cuda driver version is insufficient|no kernel image is available|not compiled with cuda
    """: Verdict("misconfigured"),
    r"""
    shapes cannot be multiplied|incompatible shapes|got invalid dimensions|inhomogeneous shape
    could not be broadcast together
    features, but \w+ is expecting|inconsistent numbers of samples|expected \dd array|is incompatible with the layer
    matmul: input operand|all input arrays must have the same shape|all arrays must be of the same length
    size of tensor a .{0,40} must match|columns passed, passed data had
    """: Verdict("shape_mismatch"),
    r"""
    \bcuda error|cudnn_status|cublas_status|cudnn error|nccl error|tensors to be on the same device|nan in summary
    """: Verdict("prediction_failed"),
    # NumPy, scikit-learn, Python
    r"""
    could not convert string to float|invalid literal for (?:int|float)
    unable to parse string|could not convert string to (?:int|complex)
    """: Verdict("not_numeric", details="a value is not a number"),
    r"""
    time data .{0,400}match|unknown datetime string format|unconverted data remains|invalid isoformat string
    """: Verdict("invalid_input", details="a value is not a date or time of the expected form"),
    r"""
    input (?:\w+ )?contains (?:nan|infinity)
    """: Verdict("not_numeric"),
    r"""
    while decoding a json
    """: Verdict("invalid_json"),
    # The words of OpenAI's error bodies, wherever somebody put them
    r"""
    context_length_exceeded|maximum context length
    """: Verdict("context_length_exceeded", counts=False),
    r"""
    content_filter\b|content_policy_violation|content management policy
    """: Verdict("content_filtered", counts=False),
    r"""
    insufficient_quota|exceeded your current quota
    """: Verdict("quota_exhausted"),
    r"""
    rate_limit_exceeded|rate limit reached
    """: Verdict("rate_limited"),
    # Pillow, gzip, SQLite
    r"""
    image file is truncated|broken data stream when reading image|unrecognized data stream contents
    cannot identify image
    broken png|truncated png|not a png file|truncated jpeg|truncated file read|cannot load this image
    when reading image file|not enough image data|eof while reading header|token too long in file header
    """: Verdict("corrupted_image"),
    r"""
    compressed file ended before
    """: Verdict("invalid_archive"),
    r"""
    database (?:table )?is locked
    """: Verdict("database_unavailable"),
}
_PATTERNS = tuple(
    (re.compile("|".join(line.strip() for line in words.strip().splitlines()), re.IGNORECASE), verdict)
    for words, verdict in _WORDS.items()
)


@lru_cache(maxsize=2048)
def worded(text: str) -> Verdict | None:
    """Return what the words alone say, or None; give it no more than some thousand characters.

    Example:
        >>> worded("CUDA out of memory. Tried to allocate 2.00 GiB").code
        'gpu_out_of_memory'
    """
    return next((verdict for pattern, verdict in _PATTERNS if pattern.search(text)), None)
