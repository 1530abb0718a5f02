"""What all panels share."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui

from bulletproof.dashboard.client import Reply
from bulletproof.dashboard.tags import Button, Tag
from bulletproof.dashboard.watch import Picture, Watch
from bulletproof.errors import AIError, classify


def panel(title: str, name: str, *, css: str = "") -> Tag:
    """Make the frame of a panel; use it with ``with``."""
    frame = Tag("section", css=f"panel {css}", id=name, aria_labelledby=f"{name}-title")
    with frame:
        Tag("h2", title, id=f"{name}-title")
    return frame


def pair() -> Callable[[Any], None]:
    """Make a name and its value; returns what changes both."""
    name, value = Tag("dt"), Tag("dd")

    def update(item: Any) -> None:
        name.say(item[0])
        value.say(item[1])

    return update


class Problem:
    """An error answer: what, its code and service, what to do."""

    def __init__(self) -> None:
        with Tag("div", css="problem", role="group") as self._box:
            self._title = Tag("strong")
            self._code = Tag("code", css="code")
            self._details = Tag("p", css="details")
            self._hint = Tag("p", css="hint")
        self._box.show(False)

    def show(self, body: Mapping[str, Any] | None) -> None:
        """Show an error in the form of the API; None hides it."""
        self._box.show(body is not None)
        if body is not None:
            self._title.say(body.get("error") or "Error")
            self._code.say(body.get("code") or "")
            self._details.say(body.get("details") or "")
            hint = body.get("hint")
            self._hint.say(f"What to do: {hint}" if hint else "")
            self._box.mark_as(str(body.get("error_type") or ""))

    def show_error(self, error: AIError) -> None:
        """Show why the API could not be asked."""
        found = classify(error)
        self.show({**found.as_dict(), "error": found.title})

    def show_reply(self, reply: Reply) -> None:
        """Show what the API refused; nothing when it did not, or does not offer it."""
        self.show(None if reply.ok or reply.status == 404 else reply.body)


class Sure:
    """Asks before something that cannot be undone: what comes of it, and a button that says what it does."""

    def __init__(self, name: str, warning: str, deed: str) -> None:
        with ui.dialog().props(f"aria-labelledby={name}") as self._dialog, Tag("div", css="dialog small"):
            self._question = Tag("h2", id=name)
            Tag("p", warning)
            with Tag("div", css="buttons"):
                Button(deed, lambda: self._dialog.submit(True), css="danger")
                Button("Cancel", lambda: self._dialog.submit(False), css="plain")

    async def ask(self, question: str) -> bool:
        self._question.say(question)
        return bool(await self._dialog)


class Operator:
    """Does what an operator wants, says how it went, and has the panel shown anew."""

    def __init__(self, watch: Watch, show: Callable[[Picture], None]) -> None:
        self._watch = watch
        self._show = show
        self._told = Tag("p", css="soft", role="status", aria_live="polite")

    async def do(self, name: str, request: Callable[[], Awaitable[Reply]], done: str) -> None:
        """Send a request about the thing of that name; ``done`` is said when it was granted."""
        if not self._watch.session.alive:
            return
        try:
            reply = await request()
        except AIError as error:
            found = classify(error)
            self._told.say(f"{name}: {found.details}. {found.hint}")
            return
        self._told.say(done if reply.ok else f"{name}: {reply.body.get('details') or reply.body.get('error')}")
        await self._watch.look(at_once=True)
        if self._watch.picture is not None:
            self._show(self._watch.picture)
