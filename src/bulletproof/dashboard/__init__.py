"""The dashboard: a page that shows the HTTP API to people."""

from bulletproof.dashboard.mounting import Dashboard, create_dashboard_app, missing, mount

__all__ = ["Dashboard", "create_dashboard_app", "missing", "mount"]
