"""The circuit breakers and the buttons of the operator."""

from collections.abc import Callable
from typing import Any

from nicegui import ui

from bulletproof.dashboard.client import segment
from bulletproof.dashboard.panels.panel import panel
from bulletproof.dashboard.tags import Button, Rows, Tag
from bulletproof.dashboard.watch import Picture, Watch
from bulletproof.dashboard.wording import number, seconds, share
from bulletproof.errors import AIError, classify

_STATES = {
    "closed": ("Closed", "calls go through"),
    "open": ("Open", "calls are refused"),
    "half_open": ("Half open", "trying whether it works again"),
    "forced_open": ("Forced open", "an operator refuses all calls"),
    "disabled": ("Disabled", "calls go through unjudged"),
    "shadow": ("Shadow", "judges, but refuses nothing"),
}


class BreakersPanel:
    """Each breaker with its state, the time left and what an operator can do."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        with panel("Circuit breakers", "breakers", css="wide"):
            self._told = Tag("p", css="soft", role="status", aria_live="polite")
            self._rows = Rows(Tag("ul", css="cards"), self._breaker, empty="No service is behind a breaker.")
        with ui.dialog().props("aria-labelledby=sure") as self._dialog, Tag("div", css="dialog small"):
            self._sure = Tag("h2", id="sure")
            Tag("p", "Every call is refused at once until somebody resets the breaker.")
            with Tag("div", css="buttons"):
                Button("Refuse all calls", lambda: self._dialog.submit(True), css="danger")
                Button("Cancel", lambda: self._dialog.submit(False), css="plain")

    def show(self, picture: Picture) -> None:
        """Show the latest answers."""
        self._rows.show(
            (name, {**row, "name": name}) for name, row in (picture.metrics.body.get("breakers") or {}).items()
        )

    def _breaker(self) -> Callable[[Any], None]:
        current: dict[str, str] = {"name": ""}
        with Tag("div", css="card-head"):
            name, state = Tag("strong"), Tag("span", css="chip")
        meaning, left = Tag("p", css="soft"), Tag("p", css="left")
        figures, error = Tag("p", css="soft"), Tag("p", css="message")
        with Tag("div", css="buttons"):
            force = Button("Force open", lambda: self._force(current["name"]), css="plain")
            reset = Button("Reset", lambda: self._do(current["name"], "reset"), css="plain")

        def update(found: Any) -> None:
            current["name"] = found["name"]
            code = str(found.get("state", "")).lower()
            word, told = _STATES.get(code, (code, ""))
            name.say(found["name"])
            state.say(word)
            state.mark_as(code)
            meaning.say(told)
            wait = found.get("retry_after")
            left.say(f"Next try in {seconds(wait)}" if code == "open" and wait is not None else "")
            figures.say(
                f"{number(found.get('total_calls'))} calls, {number(found.get('failures'))} failed, "
                f"{number(found.get('rejected'))} refused; failure rate {share(found.get('failure_rate'))}"
            )
            error.say(f"Last error: {found['last_error']}" if found.get("last_error") else "")
            force.attribute("aria-label", f"Force open {found['name']}")
            reset.attribute("aria-label", f"Reset {found['name']}")
            force.enable(code != "forced_open")

        return update

    async def _force(self, name: str) -> None:
        self._sure.say(f"Refuse all calls to {name}?")
        if await self._dialog:
            await self._do(name, "force-open")

    async def _do(self, name: str, action: str) -> None:
        if not self._watch.session.alive:
            return
        try:
            reply = await self._watch.api.post(f"/breakers/{segment(name)}/{action}", key=self._watch.session.key)
        except AIError as error:
            found = classify(error)
            self._told.say(f"{name}: {found.details}. {found.hint}")
            return
        if reply.ok:
            self._told.say(f"{name}: {'all calls are refused now' if action == 'force-open' else 'reset'}.")
            await self._watch.look(at_once=True)
            if self._watch.picture is not None:
                self.show(self._watch.picture)
        else:
            self._told.say(f"{name}: {reply.body.get('details') or reply.body.get('error')}")
