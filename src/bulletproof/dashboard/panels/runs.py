"""The latest files."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from bulletproof.dashboard.panels.panel import Problem, panel
from bulletproof.dashboard.tags import Rows, Tag
from bulletproof.dashboard.watch import Picture
from bulletproof.dashboard.wording import ago, number


class RunsPanel:
    """Recent runs, the newest first."""

    def __init__(self) -> None:
        self._now: datetime | None = None
        with panel("Recent runs", "runs"):
            self._problem = Problem()
            self._rows = Rows(Tag("ul", css="list"), self._run, empty="No files yet.")

    def show(self, picture: Picture) -> None:
        self._now = picture.at
        self._problem.show_reply(picture.runs)
        if picture.runs.ok:
            runs = picture.runs.body.get("runs") or []
            self._rows.show((str(run.get("processing_id")), run) for run in runs)

    def _run(self) -> Callable[[Any], None]:
        with Tag("div", css="entry"):
            name, chip = Tag("strong", css="name"), Tag("span", css="chip")
            told, identity = Tag("span", css="told"), Tag("code", css="code")

        def update(run: Any) -> None:
            records = run.get("records") or {}
            name.say(run.get("filename") or "(no name)")
            chip.say("by the stand-in" if run.get("degraded") else run.get("analyzer") or "")
            chip.mark_as("degraded" if run.get("degraded") else "")
            when = run.get("completed_at")
            told.say(
                f"{number(records.get('analyzed'))} analysed, {number(records.get('rejected'))} rejected"
                + (f", {ago(when, self._now)}" if when and self._now else "")
            )
            identity.say(run.get("processing_id", ""))

        return update
