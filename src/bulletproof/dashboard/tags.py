"""Plain HTML elements whose content is always text.

What the service reports comes from strangers in part: file names, error messages, rows. It reaches the browser as
text nodes and attribute values alone; no markup is ever put together here.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from nicegui.elements.mixins.text_element import TextElement


class Tag(TextElement):
    """An HTML element with a text; in the names of its attributes ``_`` stands for ``-``."""

    def __init__(self, name: str, text: Any = "", *, css: str = "", **attributes: Any) -> None:
        super().__init__(tag=name, text=str(text))
        self.classes(css)
        for attribute, value in attributes.items():
            self.props[attribute.replace("_", "-")] = value

    def say(self, text: Any) -> None:
        """Change the text, if it is another one."""
        if self.text != str(text):
            self.text = str(text)

    def mark_as(self, kind: str) -> None:
        """Say what kind of thing it shows; the style sheet gives each kind its colour."""
        self.attribute("data-kind", kind)

    def attribute(self, name: str, value: Any) -> None:
        """Set an attribute, if it has another value; None takes it away."""
        if self.props.get(name) != value:
            self.props.set_optional(name, value)

    def show(self, shown: bool) -> None:
        self.attribute("hidden", None if shown else "")


class Button(Tag):
    """A button, and what is called when it is pressed."""

    def __init__(self, text: str, action: Callable[[], Any], *, css: str) -> None:
        super().__init__("button", text, css=css, type="button")
        self.on("click", action, args=[])

    def enable(self, enabled: bool) -> None:
        self.attribute("disabled", None if enabled else "")


class Rows:
    """A list that is changed in place, so that nobody loses the place or the focus when it is refreshed.

    ``make`` makes the elements of a row and returns what brings them up to date; ``empty`` is said when there are none.
    """

    def __init__(self, parent: Tag, make: Callable[[], Callable[[Any], None]], *, empty: str, tag: str = "li") -> None:
        self._parent = parent
        self._make = make
        self._tag = tag
        self._rows: dict[Hashable, tuple[Tag, Callable[[Any], None]]] = {}
        with parent:
            self._empty = Tag(tag, empty, css="empty")

    def show(self, items: Iterable[tuple[Hashable, Any]]) -> None:
        """Show these items, each with a key that stays the same."""
        wanted = dict(items)
        for key in [key for key in self._rows if key not in wanted]:
            self._rows.pop(key)[0].delete()
        for place, (key, item) in enumerate(wanted.items(), start=1):
            if key not in self._rows:
                with self._parent:
                    row = Tag(self._tag)
                    with row:
                        self._rows[key] = row, self._make()
            row, update = self._rows[key]
            if self._parent.default_slot.children.index(row) != place:
                row.move(target_index=place)
            update(item)
        self._empty.show(not wanted)
