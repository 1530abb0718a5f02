"""Error handling, resilience and crash-proof processing for AI systems.

Every public name can be imported from here. Names are loaded when they are first used, so ``import bulletproof`` costs
next to nothing and needs the standard library alone.
"""

from importlib import import_module

from bulletproof._version import __version__

# Set here rather than imported: typing alone would take most of the time of this import.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from bulletproof.analysis import Analysis as Analysis
    from bulletproof.analysis import Analyzer as Analyzer
    from bulletproof.analysis import AnalyzerChain as AnalyzerChain
    from bulletproof.analysis import LLMAnalyzer as LLMAnalyzer
    from bulletproof.analysis import LocalAnalyzer as LocalAnalyzer
    from bulletproof.errors import AccessDeniedError as AccessDeniedError
    from bulletproof.errors import AIError as AIError
    from bulletproof.errors import BadResponseError as BadResponseError
    from bulletproof.errors import CircuitOpenError as CircuitOpenError
    from bulletproof.errors import ConfigurationError as ConfigurationError
    from bulletproof.errors import DeadlineExceededError as DeadlineExceededError
    from bulletproof.errors import Diagnosis as Diagnosis
    from bulletproof.errors import ErrorType as ErrorType
    from bulletproof.errors import ExternalServiceError as ExternalServiceError
    from bulletproof.errors import FileTooLargeError as FileTooLargeError
    from bulletproof.errors import InputValidationError as InputValidationError
    from bulletproof.errors import InvalidFileError as InvalidFileError
    from bulletproof.errors import InvalidModelOutputError as InvalidModelOutputError
    from bulletproof.errors import ModelError as ModelError
    from bulletproof.errors import ModelLoadError as ModelLoadError
    from bulletproof.errors import NotFoundError as NotFoundError
    from bulletproof.errors import OverloadedError as OverloadedError
    from bulletproof.errors import PredictionError as PredictionError
    from bulletproof.errors import PredictionTimeoutError as PredictionTimeoutError
    from bulletproof.errors import RateLimitedError as RateLimitedError
    from bulletproof.errors import ResourceError as ResourceError
    from bulletproof.errors import ServiceAuthError as ServiceAuthError
    from bulletproof.errors import ServiceTimeoutError as ServiceTimeoutError
    from bulletproof.errors import ServiceUnavailableError as ServiceUnavailableError
    from bulletproof.errors import Severity as Severity
    from bulletproof.errors import StoreError as StoreError
    from bulletproof.errors import TooManyRequestsError as TooManyRequestsError
    from bulletproof.errors import UnsupportedFormatError as UnsupportedFormatError
    from bulletproof.errors import Verdict as Verdict
    from bulletproof.errors import classify as classify
    from bulletproof.errors import explain as explain
    from bulletproof.errors import load_rules as load_rules
    from bulletproof.errors import redact as redact
    from bulletproof.errors import register as register
    from bulletproof.errors import retry_after_of as retry_after_of
    from bulletproof.errors import rule as rule
    from bulletproof.errors import should_retry_of as should_retry_of
    from bulletproof.fetch import Fetcher as Fetcher
    from bulletproof.fetch import Page as Page
    from bulletproof.ingest import load_training_data as load_training_data
    from bulletproof.ingest import read_training_data as read_training_data
    from bulletproof.jobs import KeptCalls as KeptCalls
    from bulletproof.llm import call_openai_api as call_openai_api
    from bulletproof.llm import wrap as wrap
    from bulletproof.models import Manifest as Manifest
    from bulletproof.models import ModelRegistry as ModelRegistry
    from bulletproof.models import ModelServer as ModelServer
    from bulletproof.models import PredictionRequest as PredictionRequest
    from bulletproof.models import PredictionResponse as PredictionResponse
    from bulletproof.models import inspect_model as inspect_model
    from bulletproof.models import load_ai_model as load_ai_model
    from bulletproof.models import register_loader as register_loader
    from bulletproof.monitor import AIErrorMonitor as AIErrorMonitor
    from bulletproof.monitor import ErrorEvent as ErrorEvent
    from bulletproof.monitor import default_monitor as default_monitor
    from bulletproof.pipeline import AIProcessingPipeline as AIProcessingPipeline
    from bulletproof.pipeline import ProcessingItem as ProcessingItem
    from bulletproof.pipeline import ProcessingStatus as ProcessingStatus
    from bulletproof.pipeline import StatusReport as StatusReport
    from bulletproof.processor import AIDataProcessor as AIDataProcessor
    from bulletproof.processor import ProcessOptions as ProcessOptions
    from bulletproof.resilience import AdaptiveLimit as AdaptiveLimit
    from bulletproof.resilience import AIServiceCircuitBreaker as AIServiceCircuitBreaker
    from bulletproof.resilience import Backoff as Backoff
    from bulletproof.resilience import BreakerRegistry as BreakerRegistry
    from bulletproof.resilience import Bulkhead as Bulkhead
    from bulletproof.resilience import CircuitConfig as CircuitConfig
    from bulletproof.resilience import CircuitEvent as CircuitEvent
    from bulletproof.resilience import CircuitState as CircuitState
    from bulletproof.resilience import Fallback as Fallback
    from bulletproof.resilience import FallbackEvent as FallbackEvent
    from bulletproof.resilience import Gate as Gate
    from bulletproof.resilience import Hedge as Hedge
    from bulletproof.resilience import Notice as Notice
    from bulletproof.resilience import Policy as Policy
    from bulletproof.resilience import RateLimit as RateLimit
    from bulletproof.resilience import RetryBudget as RetryBudget
    from bulletproof.resilience import RetryEvent as RetryEvent
    from bulletproof.resilience import RetryPolicy as RetryPolicy
    from bulletproof.resilience import SharedState as SharedState
    from bulletproof.resilience import StateStore as StateStore
    from bulletproof.resilience import ai_api_retry as ai_api_retry
    from bulletproof.resilience import check_deadline as check_deadline
    from bulletproof.resilience import deadline as deadline
    from bulletproof.resilience import no_waits as no_waits
    from bulletproof.resilience import remaining as remaining
    from bulletproof.resilience import timeout as timeout
    from bulletproof.settings import Settings as Settings
    from bulletproof.store import ResultStore as ResultStore

# Where each name lives. The imports above say the same to type checkers; a test compares the two.
_ROOMS: dict[str, tuple[str, ...]] = {
    "analysis": (
        "Analysis",
        "Analyzer",
        "AnalyzerChain",
        "LLMAnalyzer",
        "LocalAnalyzer",
    ),
    "errors": (
        "AIError",
        "AccessDeniedError",
        "BadResponseError",
        "CircuitOpenError",
        "ConfigurationError",
        "DeadlineExceededError",
        "Diagnosis",
        "ErrorType",
        "ExternalServiceError",
        "FileTooLargeError",
        "InputValidationError",
        "InvalidFileError",
        "InvalidModelOutputError",
        "ModelError",
        "ModelLoadError",
        "NotFoundError",
        "OverloadedError",
        "PredictionError",
        "PredictionTimeoutError",
        "RateLimitedError",
        "ResourceError",
        "ServiceAuthError",
        "ServiceTimeoutError",
        "ServiceUnavailableError",
        "Severity",
        "StoreError",
        "TooManyRequestsError",
        "UnsupportedFormatError",
        "Verdict",
        "classify",
        "explain",
        "load_rules",
        "redact",
        "register",
        "retry_after_of",
        "rule",
        "should_retry_of",
    ),
    "fetch": (
        "Fetcher",
        "Page",
    ),
    "ingest": (
        "load_training_data",
        "read_training_data",
    ),
    "jobs": ("KeptCalls",),
    "llm": (
        "call_openai_api",
        "wrap",
    ),
    "models": (
        "inspect_model",
        "Manifest",
        "ModelRegistry",
        "ModelServer",
        "PredictionRequest",
        "PredictionResponse",
        "load_ai_model",
        "register_loader",
    ),
    "monitor": (
        "AIErrorMonitor",
        "ErrorEvent",
        "default_monitor",
    ),
    "pipeline": (
        "AIProcessingPipeline",
        "ProcessingItem",
        "ProcessingStatus",
        "StatusReport",
    ),
    "processor": (
        "AIDataProcessor",
        "ProcessOptions",
    ),
    "resilience": (
        "AIServiceCircuitBreaker",
        "AdaptiveLimit",
        "Backoff",
        "BreakerRegistry",
        "Bulkhead",
        "CircuitConfig",
        "CircuitEvent",
        "CircuitState",
        "Fallback",
        "FallbackEvent",
        "Gate",
        "Hedge",
        "Notice",
        "Policy",
        "RateLimit",
        "RetryBudget",
        "RetryEvent",
        "RetryPolicy",
        "SharedState",
        "StateStore",
        "ai_api_retry",
        "check_deadline",
        "deadline",
        "no_waits",
        "remaining",
        "timeout",
    ),
    "settings": ("Settings",),
    "store": ("ResultStore",),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "AIDataProcessor",
    "AIError",
    "AIErrorMonitor",
    "AIProcessingPipeline",
    "AIServiceCircuitBreaker",
    "AccessDeniedError",
    "AdaptiveLimit",
    "Analysis",
    "Analyzer",
    "AnalyzerChain",
    "Backoff",
    "BadResponseError",
    "BreakerRegistry",
    "Bulkhead",
    "CircuitConfig",
    "CircuitEvent",
    "CircuitOpenError",
    "CircuitState",
    "ConfigurationError",
    "DeadlineExceededError",
    "Diagnosis",
    "ErrorEvent",
    "ErrorType",
    "ExternalServiceError",
    "Fallback",
    "FallbackEvent",
    "Fetcher",
    "FileTooLargeError",
    "Gate",
    "Hedge",
    "InputValidationError",
    "InvalidFileError",
    "InvalidModelOutputError",
    "KeptCalls",
    "LLMAnalyzer",
    "LocalAnalyzer",
    "Manifest",
    "ModelError",
    "ModelLoadError",
    "ModelRegistry",
    "ModelServer",
    "NotFoundError",
    "Notice",
    "OverloadedError",
    "Page",
    "Policy",
    "PredictionError",
    "PredictionRequest",
    "PredictionResponse",
    "PredictionTimeoutError",
    "ProcessOptions",
    "ProcessingItem",
    "ProcessingStatus",
    "RateLimit",
    "RateLimitedError",
    "ResourceError",
    "ResultStore",
    "RetryBudget",
    "RetryEvent",
    "RetryPolicy",
    "ServiceAuthError",
    "ServiceTimeoutError",
    "ServiceUnavailableError",
    "Settings",
    "Severity",
    "SharedState",
    "StateStore",
    "StatusReport",
    "StoreError",
    "TooManyRequestsError",
    "UnsupportedFormatError",
    "Verdict",
    "__version__",
    "ai_api_retry",
    "call_openai_api",
    "check_deadline",
    "classify",
    "deadline",
    "default_monitor",
    "explain",
    "inspect_model",
    "load_ai_model",
    "load_rules",
    "load_training_data",
    "no_waits",
    "read_training_data",
    "redact",
    "register",
    "register_loader",
    "remaining",
    "retry_after_of",
    "rule",
    "should_retry_of",
    "timeout",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
