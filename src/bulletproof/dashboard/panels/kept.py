"""Calls that are kept to be run again, and the buttons of the operator."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from bulletproof.dashboard.panels.panel import Operator, Problem, Sure, panel
from bulletproof.dashboard.tags import Button, Rows, Tag
from bulletproof.dashboard.watch import Picture, Watch
from bulletproof.dashboard.wording import ago, number, times


class KeptPanel:
    """The oldest kept calls, each with its last error and what an operator can do."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        with panel("Kept calls", "kept"):
            self._operator = Operator(watch, self.show)
            self._totals = Tag("p", css="soft")
            self._problem = Problem()
            self._rows = Rows(Tag("ul", css="list"), self._call, empty="No call waits to be run again.")
        self._sure = Sure("sure-drop", "It is never run again, and cannot be brought back.", "Drop the call")

    def show(self, picture: Picture) -> None:
        self._problem.show_reply(picture.kept)
        if picture.kept.ok:
            counts = (picture.kept.body.get("functions") or {}).values()
            total = {name: sum(count.get(name, 0) for count in counts) for name in ("kept", "done", "left")}
            told = (
                f"{number(total['left'])} of {number(total['kept'])} kept calls are left; {number(total['done'])} were"
            )
            self._totals.say(f"{told} run again with success." if total["kept"] else "")
            self._rows.show((str(call.get("id")), call) for call in picture.kept.body.get("calls") or [])

    def _call(self) -> Callable[[Any], None]:
        current = {"id": "", "name": ""}
        with Tag("div", css="entry"):
            name, state, code = Tag("strong", css="name"), Tag("span", css="chip"), Tag("code", css="code")
            told, error = Tag("span", css="told"), Tag("span", css="message")
        with Tag("div", css="buttons"):
            retry = Button("Retry", lambda: self._retry(current["id"]), css="plain")
            drop = Button("Drop", lambda: self._drop(current["id"], current["name"]), css="plain")

        def update(call: Any) -> None:
            current.update(id=str(call.get("id")), name=str(call.get("function")))
            name.say(current["name"])
            state.say(call.get("state") or "")
            state.mark_as("critical" if call.get("state") in ("failed", "expired") else "")
            code.say(call.get("code") or "")
            error.say(call.get("error") or "")
            told.say(f"{ago(call.get('kept_at'), self._watch.now())}, run again {times(call.get('attempts'))}")
            for button, word in ((retry, "Retry"), (drop, "Drop")):
                button.attribute("aria-label", f"{word} {current['name']} {current['id']}")

        return update

    async def _retry(self, kept_id: str) -> None:
        api, path, key = self._watch.api, f"/kept/{quote(kept_id, safe='')}/retry", self._watch.session.key
        done = f"{kept_id} is run next, as soon as a process that knows its function looks."
        await self._operator.do(kept_id, lambda: api.post(path, key=key), done)

    async def _drop(self, kept_id: str, name: str) -> None:
        api, path, key = self._watch.api, f"/kept/{quote(kept_id, safe='')}", self._watch.session.key
        if await self._sure.ask(f"Drop this call of {name}?"):
            await self._operator.do(kept_id, lambda: api.delete(path, key=key), f"{kept_id} was dropped.")
