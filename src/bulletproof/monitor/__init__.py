"""What went wrong, how often, how bad: the error monitor."""

from bulletproof.monitor.default import default_monitor, record_exception
from bulletproof.monitor.event import ErrorEvent
from bulletproof.monitor.monitor import AIErrorMonitor
from bulletproof.monitor.sharing import ErrorBatch, ErrorSink, MonitorSharing

__all__ = [
    "AIErrorMonitor",
    "ErrorBatch",
    "ErrorEvent",
    "ErrorSink",
    "MonitorSharing",
    "default_monitor",
    "record_exception",
]
