"""What fails, since when, how often."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from bulletproof.dashboard.panels.panel import Problem, pair, panel
from bulletproof.dashboard.tags import Button, Rows, Tag
from bulletproof.dashboard.watch import Picture, Watch
from bulletproof.dashboard.wording import ago, chart, chart_in_words, number, times, type_name
from bulletproof.errors import CODES, AIError

_SAMPLES = 20


class ErrorsPanel:
    """Errors over time, by service, trending and most frequent, each with its samples."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._now = watch.now()
        with panel("Errors per minute", "timeline", css="wide"):
            self._words = Tag("p", css="only-read")
            self._chart = ui.echart(chart([])).classes("chart").props('aria-hidden="true"')
        self._shown: Any = None
        with panel("Errors by service", "services"):
            self._services = Rows(Tag("ul", css="bars"), self._bar, empty="No errors in this time.")
        with panel("Rising", "trending"):
            self._trending = Rows(Tag("ul", css="list"), self._trend, empty="Nothing fails more than usual.")
        with panel("Most frequent errors", "top", css="wide"):
            self._top = Rows(Tag("ul", css="list"), self._error, empty="No errors in this time.")
        self._drill = _Samples(watch)

    def show(self, picture: Picture) -> None:
        metrics, self._now = picture.metrics.body, picture.at
        timeline = metrics.get("timeline") or []
        if timeline != self._shown:
            self._shown = timeline
            self._chart.options.update(chart(timeline))
            self._chart.update()
            self._words.say(chart_in_words(timeline))
        by_service = metrics.get("by_service") or {}
        most = max(by_service.values(), default=1)
        self._services.show((name, (name, count, count / most)) for name, count in by_service.items())
        self._trending.show((_key(row), row) for row in metrics.get("trending_errors") or [])
        self._top.show((_key(row), row) for row in metrics.get("top_errors") or [])

    @staticmethod
    def _bar() -> Callable[[Any], None]:
        name, count = Tag("span", css="name"), Tag("span", css="count")
        with Tag("span", css="track", aria_hidden="true"):
            fill = Tag("span", css="fill")

        def update(item: Any) -> None:
            name.say(item[0])
            count.say(number(item[1]))
            fill.style(f"width: {100 * item[2]:.0f}%")

        return update

    def _trend(self) -> Callable[[Any], None]:
        update_row, told = self._row()

        def update(row: Any) -> None:
            update_row(row)
            ratio = row.get("ratio")
            rise = "new" if row.get("new") or not isinstance(ratio, int | float) else f"{ratio:.1f} times as many"
            told.say(f"{rise}: {number(row.get('recent'))} in {number(row.get('minutes'))} min")

        return update

    def _error(self) -> Callable[[Any], None]:
        update_row, told = self._row()

        def update(row: Any) -> None:
            update_row(row)
            told.say(f"{times(row.get('count'))}, {ago(row.get('last_seen'), self._now)}")

        return update

    def _row(self) -> tuple[Callable[[Any], None], Tag]:
        current: dict[str, Any] = {}
        button = Button("", lambda: self._drill.open(current), css="entry")
        with button:
            kind, service, code = Tag("span", css="chip"), Tag("strong"), Tag("code", css="code")
            told, message = Tag("span", css="told"), Tag("span", css="message")

        def update(row: Any) -> None:
            current.update(row)
            kind.say(type_name(row.get("error_type")))
            kind.mark_as(str(row.get("error_type")))
            service.say(row.get("service", ""))
            code.say(row.get("code") or "")
            message.say(row.get("message") or row.get("template") or "")

        return update, told


class _Samples:
    """The dialog with the latest samples of one kind of error."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        with ui.dialog().props("aria-labelledby=samples-title") as self._dialog, Tag("div", css="dialog"):
            with Tag("div", css="dialog-head"):
                self._title = Tag("h2", id="samples-title")
                Button("Close", self._dialog.close, css="plain")
            self._facts = Tag("p", css="soft")
            self._hint = Tag("p", css="hint")
            self._problem = Problem()
            self._samples = Rows(Tag("ul", css="samples"), self._sample, empty="No samples are kept of this error.")

    async def open(self, row: Mapping[str, Any]) -> None:
        """Ask for the samples and show them."""
        fingerprint = str(row.get("fingerprint", ""))
        self._title.say(f"{type_name(row.get('error_type'))}: {row.get('service', '')}")
        self._tell(row)
        self._problem.show(None)
        self._samples.show(_samples([row]))
        self._dialog.open()
        try:
            reply = await self._watch.api.get(
                f"/errors/{quote(fingerprint, safe='')}", key=self._watch.session.key, params={"samples": _SAMPLES}
            )
        except AIError as error:
            self._problem.show_error(error)
            return
        if reply.ok:
            self._tell({**row, **reply.body})
            self._samples.show(_samples(reply.body.get("samples") or [row]))
        else:
            self._problem.show_reply(reply)

    def _tell(self, row: Mapping[str, Any]) -> None:
        now = self._watch.now()
        facts = [str(row[name]) for name in ("code", "severity") if row.get(name)]
        if row.get("count") is not None:
            facts.append(times(row["count"]))
        facts += [f"{word} {ago(row[name], now)}" for name, word in _TIMES if row.get(name)]
        facts.append(f"fingerprint {row.get('fingerprint', '')}")
        self._facts.say(" · ".join(facts))
        spec = CODES.get(str(row.get("code")))
        self._hint.say(f"What to do: {spec.hint}" if spec else "")

    def _sample(self) -> Callable[[Any], None]:
        when, message = Tag("span", css="soft"), Tag("pre", css="message")
        context = Rows(Tag("dl", css="context"), pair, empty="", tag="div")

        def update(sample: Any) -> None:
            at = sample.get("timestamp") or sample.get("last_seen")
            when.say(f"{at} ({ago(at, self._watch.now())})" if at else "")
            message.say(sample.get("message") or "")
            found = sample.get("context")
            context.show((key, (key, value)) for key, value in (found if isinstance(found, Mapping) else {}).items())

        return update


_TIMES = (("first_seen", "first"), ("last_seen", "last"), ("since", "rising since"))


def _samples(rows: list[Any]) -> list[tuple[int, Any]]:
    return list(enumerate(row for row in rows[:_SAMPLES] if isinstance(row, Mapping)))


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("fingerprint")), str(row.get("service"))
