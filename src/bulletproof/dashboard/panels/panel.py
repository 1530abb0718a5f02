"""What all panels share."""

from collections.abc import Mapping
from typing import Any

from bulletproof.dashboard.client import Reply
from bulletproof.dashboard.tags import Tag


def panel(title: str, name: str, *, css: str = "") -> Tag:
    """Make the frame of a panel; use it with ``with``.

    Args:
        title: Its heading.
        name: Its id on the page.
        css: Further classes.
    """
    frame = Tag("section", css=f"panel {css}", id=name, aria_labelledby=f"{name}-title")
    with frame:
        Tag("h2", title, id=f"{name}-title")
    return frame


class Problem:
    """An error answer: what, its code and service, what to do."""

    def __init__(self) -> None:
        self.box = Tag("div", css="problem", role="group")
        with self.box:
            self._title = Tag("strong")
            self._code = Tag("code", css="code")
            self._details = Tag("p", css="details")
            self._hint = Tag("p", css="hint")
        self.box.show(False)

    def show(self, body: Mapping[str, Any] | None) -> None:
        """Show an error in the form of the API; None hides it."""
        self.box.show(body is not None)
        if body is not None:
            self._title.say(body.get("error") or "Error")
            self._code.say(body.get("code") or "")
            self._details.say(body.get("details") or "")
            hint = body.get("hint")
            self._hint.say(f"What to do: {hint}" if hint else "")
            self.box.mark_as(str(body.get("error_type") or ""))

    def show_reply(self, reply: Reply) -> None:
        """Show what the API refused; nothing when it did not, or does not offer it."""
        self.show(None if reply.ok or reply.status == 404 else reply.body)
