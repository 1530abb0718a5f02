"""What went wrong, how often, how bad: the error monitor."""

from bulletproof.monitor.default import default_monitor, record_exception
from bulletproof.monitor.event import ErrorEvent
from bulletproof.monitor.monitor import AIErrorMonitor

__all__ = ["AIErrorMonitor", "ErrorEvent", "default_monitor", "record_exception"]
