"""How the service is, and why."""

from collections.abc import Callable, Mapping
from typing import Any

from bulletproof.dashboard.panels.panel import pair, panel
from bulletproof.dashboard.tags import Rows, Tag
from bulletproof.dashboard.watch import Picture
from bulletproof.dashboard.wording import number, seconds, share

_SHOWN = {"healthy": "✓ Healthy", "degraded": "! Degraded", "critical": "✕ Critical"}


class HealthPanel:
    """Status, reasons, components, and the figures that matter first."""

    def __init__(self) -> None:
        with panel("Health", "health", css="wide"):
            with Tag("div", css="verdict"):
                self._status = Tag("p", "…", css="status", role="status", aria_live="polite")
                self._about = Tag("p", css="soft")
            self._reasons = Rows(Tag("ul", css="reasons"), lambda: Tag("span").say, empty="Nothing to worry about.")
            self._components = Rows(Tag("ul", css="components"), self._component, empty="No details for this key.")
            self._figures = Rows(Tag("dl", css="figures"), pair, empty="", tag="div")

    def show(self, picture: Picture) -> None:
        health, metrics = picture.health.body, picture.metrics.body
        status = str(health.get("status", ""))
        self._status.say(_SHOWN.get(status, "? Unknown"))
        self._status.mark_as(status)
        facts = [f"version {health['version']}"] if "version" in health else []
        if "uptime_s" in health:
            facts.append(f"up {seconds(health['uptime_s'])}")
        self._about.say(" · ".join(facts))
        self._reasons.show((text, text) for text in dict.fromkeys(health.get("reasons") or ()))
        components = health.get("components")
        self._components.show((name, {**found, "label": name}) for name, found in (components or {}).items())
        self._figures.show(_figures(metrics))

    @staticmethod
    def _component() -> Callable[[Any], None]:
        name, status = Tag("strong"), Tag("span", css="chip")
        code, details, hint = Tag("code", css="code"), Tag("p", css="details"), Tag("p", css="hint")

        def update(found: Any) -> None:
            name.say(found["label"])
            status.say(found.get("status", ""))
            status.mark_as(str(found.get("status", "")))
            code.say(found.get("code") or found.get("name") or "")
            details.say(found.get("details") or "")
            hint.say(f"What to do: {found['hint']}" if found.get("hint") else "")

        return update


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    files, records = metrics.get("files") or {}, metrics.get("records") or {}
    uploads = (metrics.get("queues") or {}).get("uploads") or {}
    route: Mapping[str, Any] = next(
        (row for row in metrics.get("requests") or [] if row.get("route") == "/process"), {}
    )
    p95 = route.get("p95_ms")
    figures = {
        "Errors": number(metrics.get("total_errors")),
        "Errors a minute": number(metrics.get("error_rate")),
        "Failed share": share(metrics.get("failure_ratio")),
        "Files": number(sum(files.values())),
        "Files refused": number(sum(count for outcome, count in files.items() if outcome != "success")),
        "Records analysed": number(records.get("analyzed", 0)),
        "Under way / waiting": f"{number(uploads.get('running', 0))} / {number(uploads.get('waiting', 0))}",
        "95 % of uploads in": "–" if p95 is None else f"{number(p95)} ms" if p95 < 1000 else f"{p95 / 1000:.1f} s",
    }
    return [(name, (name, value)) for name, value in figures.items()]
