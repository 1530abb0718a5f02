"""The circuit breakers and the buttons of the operator."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from bulletproof.dashboard.panels.panel import Operator, Sure, panel
from bulletproof.dashboard.tags import Button, Rows, Tag
from bulletproof.dashboard.watch import Picture, Watch
from bulletproof.dashboard.wording import number, seconds, share

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
            self._operator = Operator(watch, self.show)
            self._rows = Rows(Tag("ul", css="cards"), self._breaker, empty="No service is behind a breaker.")
        self._sure = Sure(
            "sure", "Every call is refused at once until somebody resets the breaker.", "Refuse all calls"
        )

    def show(self, picture: Picture) -> None:
        self._rows.show(
            (name, {**row, "name": name}) for name, row in (picture.metrics.body.get("breakers") or {}).items()
        )

    def _breaker(self) -> Callable[[Any], None]:
        current = {"name": ""}
        with Tag("div", css="card-head"):
            name, state = Tag("strong"), Tag("span", css="chip")
        meaning, left = Tag("p", css="soft"), Tag("p", css="left")
        figures, error = Tag("p", css="soft"), Tag("p", css="message")
        with Tag("div", css="buttons"):
            force = Button("Force open", lambda: self._force(current["name"]), css="plain")
            reset = Button("Reset", lambda: self._do(current["name"], "reset", "reset"), css="plain")

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
        if await self._sure.ask(f"Refuse all calls to {name}?"):
            await self._do(name, "force-open", "all calls are refused now")

    async def _do(self, name: str, action: str, done: str) -> None:
        api, key = self._watch.api, self._watch.session.key
        await self._operator.do(
            name, lambda: api.post(f"/breakers/{quote(name, safe='')}/{action}", key=key), f"{name}: {done}."
        )
