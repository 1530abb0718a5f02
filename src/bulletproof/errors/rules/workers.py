"""Rules for task queues, worker pools and wrappers that retry."""

from bulletproof.errors.reading import read, text_of
from bulletproof.errors.registry import Verdict, family, final, register, rule

_STOPPED = Verdict("cancelled", counts=False)

# Celery: https://docs.celeryq.dev/en/stable/reference/celery.exceptions.html
family(
    "celery",
    {
        "internal_error": """CeleryError TaskError NotRegistered AlreadyRegistered ChordError QueueNotFound
            IncompleteStream""",
        "deadline_exceeded": "TimeoutError TimeLimitExceeded SoftTimeLimitExceeded",
        _STOPPED: "TaskPredicate TaskRevokedError Terminated WorkerShutdown WorkerTerminate",
        "misconfigured": "ImproperlyConfigured SecurityError",
        "database_unavailable": "BackendError",
        "overloaded": "BacklogLimitExceeded",
        "io_error": "LockFailed",
        Verdict("internal_error", defer="cause"): "MaxRetriesExceededError",
        "missing_dependency": "UnpickleableExceptionWrapper",
    },
)
family(
    "billiard",
    {"deadline_exceeded": "TimeoutError TimeLimitExceeded SoftTimeLimitExceeded", "internal_error": "ProcessError"},
)
register(_STOPPED, "billiard.Terminated")
family(
    "kombu",
    {
        "service_unavailable": "KombuError OperationalError ConnectionError ChannelError HttpError",
        final("service_unavailable"): "AuthenticationFailure",
        "internal_error": "SerializationError EncodeError NotBoundError ContentDisallowed InconsistencyError",
        "bad_response": "DecodeError",
        "overloaded": "LimitExceeded ConnectionLimitExceeded ChannelLimitExceeded",
        "misconfigured": "VersionMismatch",
    },
)
family(
    "amqp",
    {"service_unavailable": "AMQPError MessageNacked", "auth_failed": "AccessRefused", "request_rejected": "NotFound"},
)


@rule("celery.WorkerLostError", "billiard.WorkerLostError", "ray.WorkerCrashedError", "ray.ActorDiedError")
def lost_worker(error: BaseException) -> str:
    """A worker killed by the kernel ran out of memory; whatever else killed it is not known."""
    text = text_of(error)
    return "out_of_memory" if "SIGKILL" in text or "OOM" in text else "internal_error"


# Ray: https://docs.ray.io/en/latest/ray-core/api/exceptions.html
family(
    "ray",
    {
        "internal_error": "RayError RayActorError DeserializationError PoolTaskError",
        "out_of_memory": "OutOfMemoryError ObjectStoreFullError NixlOutOfMemoryError RayOutOfMemoryError",
        "disk_full": "OutOfDiskError",
        "deadline_exceeded": "GetTimeoutError RayChannelTimeoutError ObjectFetchTimedOutError SandboxTimeoutError",
        "overloaded": """ActorUnavailableError PendingCallsLimitExceeded BackPressureError RayCgraphCapacityExceeded
            QuotaExceededError""",
        "service_unavailable": """RpcError NodeDiedError LocalRayletDiedError ServerUnavailable DataSourceUnavailable
            RayStateApiException SandboxError CloudInstanceProviderError NodeLaunchException""",
        _STOPPED: "TaskCancelledError AsyncioActorExit",
        "misconfigured": "RuntimeEnvSetupError TaskUnschedulableError ActorUnschedulableError",
        "auth_failed": "AuthenticationError",
    },
)


@rule("ray.RayTaskError", "ray.UserCodeException")
def ray_task(error: BaseException) -> BaseException | Verdict:
    """A wrapper of what the task raised; often of a class that inherits from both."""
    cause = read(error, "cause")
    return cause if isinstance(cause, Exception) else Verdict("internal_error", defer="cause")


# DBOS: https://docs.dbos.dev/python/reference
family(
    "dbos",
    {
        "internal_error": "DBOSException DBOSBaseException",
        _STOPPED: "DBOSWorkflowCancelledError DBOSAwaitedWorkflowCancelledError",
        "misconfigured": "DBOSInitializationError DBOSWorkflowFunctionNotFoundError",
        "not_found": "DBOSNonExistentWorkflowError",
        "forbidden": "DBOSNotAuthorizedError",
        "invalid_request": "DBOSConflictingWorkflowError DBOSQueueDeduplicatedError DBOSWorkflowConflictIDError",
        Verdict("internal_error", defer="cause"): "DBOSMaxStepRetriesExceeded MaxRecoveryAttemptsExceededError",
    },
)


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


register("internal_error", "tenacity.TryAgain pebble.CancelledError")
register(_STOPPED, "pebble.CancelledError")
register(
    "overloaded", "pybreaker.CircuitBreakerError aiobreaker.CircuitBreakerError circuitbreaker.CircuitBreakerError"
)
