"""Rules for worker pools, devices and wrappers that retry."""

from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Verdict, rule


@rule(
    "celery.WorkerLostError", "billiard.WorkerLostError", "ray.WorkerCrashedError", "ray.ActorDiedError",
    "joblib.externals.loky.process_executor.TerminatedWorkerError", "concurrent.futures.process.BrokenProcessPool",
)  # fmt: skip
def lost_worker(error: BaseException) -> str:
    """A worker killed by the kernel ran out of memory; whatever else killed it is not known."""
    text = text_of(error)
    return "out_of_memory" if "SIGKILL" in text or "OOM" in text else "internal_error"


@rule("tensorflow.ResourceExhaustedError")
def tensorflow_memory(error: BaseException) -> str:
    """The device whose memory is used up stands in the text."""
    return "out_of_memory" if "CPU:0" in text_of(error) else "gpu_out_of_memory"


@rule("ray.RayTaskError", "ray.UserCodeException")
def ray_task(error: BaseException) -> BaseException | Verdict:
    """A wrapper of what the task raised; often of a class that inherits from both."""
    cause = read(error, "cause")
    return cause if isinstance(cause, Exception) else Verdict("internal_error", defer="cause")


@rule("pebble.ProcessExpired")
def expired(error: BaseException) -> str:
    """The exit code tells a worker that the kernel killed, mostly for its memory."""
    return "out_of_memory" if read(error, "exitcode") in (-9, 137) else "internal_error"


@rule("tenacity.RetryError", "backoff.RetryError")
def gave_up(error: BaseException) -> BaseException | Verdict:
    """A wrapper of the last attempt's error."""
    last = read(read(error, "last_attempt"), "_exception")
    if isinstance(last, Exception):
        return last
    return Verdict("service_unavailable", retryable=False, defer="cause")
