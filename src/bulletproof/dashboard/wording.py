"""Figures and moments in words; charts as data. No framework here."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

TYPES = {
    "validation_error": ("Bad input", "#7d8ea3"),
    "resource_error": ("Resources", "#d99a00"),
    "model_error": ("Model", "#9b6bdf"),
    "external_service_error": ("External service", "#e0483e"),
}
_OTHER = ("Other", "#2f9c95")
_AXIS = "#8593a5"


def type_name(error_type: Any) -> str:
    """Return an error type in words.

    Example:
        >>> type_name("external_service_error")
        'External service'
    """
    return TYPES.get(str(error_type), (str(error_type), ""))[0]


def number(value: Any) -> str:
    """Return a number for people.

    Example:
        >>> number(12345), number(0.25), number(None)
        ('12,345', '0.25', '–')
    """
    if not isinstance(value, int | float):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def times(count: Any) -> str:
    """Return how often something happened.

    Example:
        >>> times(1), times(1200)
        ('once', '1,200 times')
    """
    return "once" if count == 1 else f"{number(count)} times"


def share(value: Any) -> str:
    """Return a share as a percentage.

    Example:
        >>> share(0.0312), share(None)
        ('3.1 %', '–')
    """
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "–"


def seconds(value: Any) -> str:
    """Return a length of time.

    Example:
        >>> seconds(8.2), seconds(150), seconds(7300), seconds(None)
        ('9 s', '2 min 30 s', '2 h 1 min', '–')
    """
    if not isinstance(value, int | float):
        return "–"
    whole = int(-(-value // 1))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(value: Any) -> datetime | None:
    """Return a moment given in ISO 8601, or None."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def ago(value: Any, now: datetime) -> str:
    """Return how long ago something was.

    Example:
        >>> ago("2026-05-01T12:00:00+00:00", datetime(2026, 5, 1, 12, 2, tzinfo=UTC))
        '2 min ago'
    """
    then = moment(value)
    if then is None:
        return "–"
    passed = (now - then).total_seconds()
    if passed < 10:
        return "just now"
    if passed < 60:
        return f"{passed:.0f} s ago"
    if passed < 3600:
        return f"{passed // 60:.0f} min ago"
    if passed < 48 * 3600:
        return f"{passed // 3600:.0f} h ago"
    return f"{passed // 86400:.0f} days ago"


def chart(timeline: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return errors per minute over time, by type, as options of the chart.

    Names of the service's own go in as values, never as keys: the chart would run keys that start with a colon.

    Args:
        timeline: As ``GET /metrics`` gives it.
    """
    steps = [(step, moment(step.get("start")), float(step.get("seconds") or 60)) for step in timeline]
    points: dict[str, list[list[Any]]] = {name: [] for name in (*TYPES, "other")}
    for step, start, length in steps:
        if start is None:
            continue
        counts = dict(step.get("by_type") or {})
        at = start.timestamp() * 1000
        for name in TYPES:
            points[name].append([at, round(60 * counts.pop(name, 0) / length, 3)])
        points["other"].append([at, round(60 * sum(counts.values()) / length, 3)])
    shown = {name: data for name, data in points.items() if name in TYPES or any(value for _, value in data)}
    text = {"color": _AXIS, "fontSize": 12}
    return {
        "animation": False,
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 8, "containLabel": True},
        "legend": {"top": 0, "left": 0, "textStyle": text, "itemWidth": 14, "itemHeight": 10, "type": "scroll"},
        # Drawn on the canvas: its other mode builds HTML.
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True, "axisPointer": {"type": "shadow"}},
        "xAxis": {"type": "time", "axisLabel": {**text, "hideOverlap": True}, "splitLine": {"show": False}},
        "yAxis": {
            "type": "value",
            "minInterval": 0.1,
            "min": 0,
            "axisLabel": text,
            "splitLine": {"lineStyle": {"color": "rgba(128, 140, 155, 0.22)"}},
        },
        "series": [
            {
                "name": TYPES.get(name, _OTHER)[0],
                "type": "bar",
                "stack": "errors",
                "barMaxWidth": 14,
                "itemStyle": {"color": TYPES.get(name, _OTHER)[1]},
                "data": data,
            }
            for name, data in shown.items()
        ],
    }


def chart_in_words(timeline: list[Mapping[str, Any]]) -> str:
    """Say what the chart shows, for those who cannot see it.

    Example:
        >>> chart_in_words([{"total": 2, "seconds": 60}, {"total": 6, "seconds": 60}])
        'Errors per minute by type: 6 in the last step, at most 6, 8 errors in all.'
    """
    rates = [60 * float(step.get("total") or 0) / float(step.get("seconds") or 60) for step in timeline]
    total = sum(int(step.get("total") or 0) for step in timeline)
    if not total:
        return "Errors per minute by type: none."
    return (
        f"Errors per minute by type: {rates[-1]:.3g} in the last step, at most {max(rates):.3g}, {total} errors in all."
    )
