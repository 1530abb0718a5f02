"""What turns up about a file while it is read."""

from collections.abc import Callable

from bulletproof.ingest.records import shorten


class Notes:
    """The encoding and the text field that were found, and warnings: each once, with a count where it came often."""

    def __init__(self) -> None:
        self.encoding = "utf-8"
        self.text_field: str | None = None
        self.check_count: Callable[[int], None] = lambda _: None  # told now and then how many records there are so far
        self._warnings: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def say(self, text: str) -> None:
        """Add a warning, once."""
        self._warnings.setdefault(text, text.replace("{", "{{").replace("}", "}}"))

    def count(self, key: str, template: str) -> None:
        """Add one to a count; ``{n}`` in the template, the one given first, stands for it."""
        self._warnings.setdefault(key, template)
        self._counts[key] = self._counts.get(key, 0) + 1

    def count_duplicate(self, name: str) -> None:
        """Count a JSON record that gives a field twice."""
        self.count("duplicates", f"{{n}} record(s) give a field twice (such as {shorten(name)}); the last counts.")

    @property
    def texts(self) -> list[str]:
        """The warnings so far, in the order in which they came up."""
        return [template.format(n=self._counts.get(key)) for key, template in self._warnings.items()]
