"""Warnings of one file, gathered while it is read."""


class Notes:
    """What a user should know about how a file was read; each thing once, with a count where it happened often.

    Example:
        >>> notes = Notes()
        >>> for line in (4, 9):
        ...     notes.count("nul", "{n} lines were repaired, the first is line " + str(line))
        >>> notes.texts
        ['2 lines were repaired, the first is line 4']
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._templates: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Add a warning, once."""
        self._templates.setdefault(text, text.replace("{", "{{").replace("}", "}}"))

    def count(self, key: str, template: str, times: int = 1) -> None:
        """Add ``times`` to a count; ``{n}`` in the template, the one given first, stands for it."""
        self._templates.setdefault(key, template)
        self._counts[key] = self._counts.get(key, 0) + times

    @property
    def texts(self) -> list[str]:
        """The warnings so far, in the order in which they came up."""
        return [template.format(n=self._counts.get(key, 1)) for key, template in self._templates.items()]
