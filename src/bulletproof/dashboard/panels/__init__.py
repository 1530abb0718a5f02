"""The panels of the page; each shows a part of a ``Picture``."""

from bulletproof.dashboard.panels.breakers import BreakersPanel
from bulletproof.dashboard.panels.errors import ErrorsPanel
from bulletproof.dashboard.panels.health import HealthPanel
from bulletproof.dashboard.panels.kept import KeptPanel
from bulletproof.dashboard.panels.runs import RunsPanel
from bulletproof.dashboard.panels.upload import UploadPanel

__all__ = ["BreakersPanel", "ErrorsPanel", "HealthPanel", "KeptPanel", "RunsPanel", "UploadPanel"]
