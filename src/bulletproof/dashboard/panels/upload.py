"""Send a file and see what comes out."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nicegui import events, ui

from bulletproof.dashboard.client import Reply
from bulletproof.dashboard.panels.panel import Problem, panel
from bulletproof.dashboard.tags import Rows, Tag
from bulletproof.dashboard.watch import Watch
from bulletproof.dashboard.wording import number, seconds, share
from bulletproof.errors import AIError

_FIRST = 5
_TICK = 0.5
# Nothing but the framework's own figures stands in it. The trigger covers it for mouse and finger; the button is for
# the keyboard.
_DROP = """<div class="drop"><button type="button" class="plain" @click="props.pickFiles">Choose a file</button>
<span class="soft">or drop it here</span><span v-if="props.isUploading">{{ props.uploadProgressLabel }}</span>
<q-uploader-add-trigger aria-hidden="true"></q-uploader-add-trigger></div>"""


class UploadPanel:
    """A form for a file, its progress, and its result or its error."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._started: float | None = None
        with panel("Process a file", "upload"):
            Tag("p", "JSON, JSON lines, CSV, TSV or text; may be gzipped.", css="soft")
            self._field, self._labels = (
                ui.input(asked).props("outlined dense").classes("input")
                for asked in (
                    "Field that holds the text (found by itself)",
                    "Labels, separated by commas (needs an LLM)",
                )
            )
            self._uploader = (
                ui.upload(auto_upload=True, on_upload=self._received)
                .props("flat bordered no-thumbnails field-name=file")
                .classes("uploader")
            )
            self._uploader.add_slot("header", _DROP)
            self._uploader.on_begin_upload(lambda: self._say("Sending …"))
            self._uploader.on("failed", self._refused, args=[])
            self._progress = Tag("p", css="progress", role="status", aria_live="polite")
            self._problem = Problem()
            self._result = Tag("div", css="result")
            with self._result:
                self._headline = Tag("strong")
                self._facts = Rows(Tag("ul", css="facts"), lambda: Tag("span").say, empty="")
                self._table = Rows(Tag("ol", css="list"), self._row, empty="No results.")
            self._result.show(False)
        self._ticker = ui.timer(_TICK, self._tick, active=False)

    def _say(self, text: str) -> None:
        self._progress.say(text)
        self._progress.attribute("aria-busy", "true" if text else None)

    def _tick(self) -> None:
        if self._started is not None:
            self._say(f"Analysing … {seconds(time.monotonic() - self._started)}")

    def _refused(self) -> None:
        self._say("")
        self._problem.show(
            {
                "error": "The upload was refused",
                "code": "file_too_large",
                "details": "The file is too large, or you are no longer logged in.",
                "hint": "Reload the page; use 'bulletproof process FILE' for large files.",
            }
        )

    async def _received(self, event: events.UploadEventArguments) -> None:
        self._problem.show(None)
        self._result.show(False)
        self._started = time.monotonic()
        self._ticker.activate()
        try:
            reply = await self._process(event.file)
        except AIError as error:
            self._problem.show_error(error)
        else:
            self._show(event.file.name, reply)
        finally:
            self._started = None
            self._ticker.deactivate()
            self._say("")
            self._uploader.reset()

    async def _process(self, file: Any) -> Reply:
        fields = {"text_field": self._field.value, "labels": self._labels.value}
        with tempfile.TemporaryDirectory(prefix="bulletproof-") as folder:
            path = Path(folder) / "upload"
            await file.save(path)
            with path.open("rb") as content:
                return await self._watch.api.process(
                    file.name,
                    content,
                    fields={name: value for name, value in fields.items() if value},
                    key=self._watch.session.key,
                )

    def _show(self, name: str, reply: Reply) -> None:
        self._problem.show(None if reply.ok else reply.body)
        self._result.show(reply.ok)
        if not reply.ok:
            return
        answer = reply.body
        records = answer.get("records") or {}
        self._headline.say(
            f"{name}: {number(records.get('analyzed'))} of {number(records.get('received'))} records analysed"
        )
        self._facts.show((fact, fact) for fact in _facts(answer))
        results = answer.get("results") or []
        self._table.show((row.get("row"), row) for row in results[:_FIRST])

    @staticmethod
    def _row() -> Callable[[Any], None]:
        with Tag("div", css="entry"):
            place, sentiment = Tag("span", css="soft"), Tag("span", css="chip")
            told, message = Tag("span", css="told"), Tag("span", css="message")

        def update(row: Any) -> None:
            place.say(f"row {row.get('row')}")
            sentiment.say(row.get("label") or row.get("sentiment") or "")
            sentiment.mark_as(str(row.get("sentiment", "")))
            told.say(f"score {number(row.get('score'))}, {share(row.get('confidence'))} sure")
            message.say(row.get("text", ""))

        return update


def _facts(answer: Mapping[str, Any]) -> list[str]:
    counts = (answer.get("summary") or {}).get("sentiment") or {}
    facts = [", ".join(f"{number(count)} {name}" for name, count in counts.items())] if counts else []
    facts.append(f"id {answer.get('processing_id')}, by {answer.get('analyzer')}")
    if answer.get("degraded"):
        reason = answer.get("degraded_reason")
        why = reason.get("details") or reason.get("code") if isinstance(reason, Mapping) else reason
        facts.append(f"The local model stood in: {why}")
    if answer.get("stored") is False:
        problem = answer.get("store_error")
        why = f": {problem.get('details')} {problem.get('hint')}" if isinstance(problem, Mapping) else "."
        facts.append(f"Not stored{why}")
    facts += [
        f"row {item.get('row')} rejected ({item.get('code')}): {item.get('details')}"
        for item in (answer.get("rejections") or [])[:5]
    ]
    facts += [str(warning) for warning in (answer.get("warnings") or [])[:5]]
    return facts
