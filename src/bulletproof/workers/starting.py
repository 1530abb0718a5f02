"""Start processes that leave the main script of the caller alone."""

from multiprocessing import spawn
from typing import Any

_prepare = spawn.get_preparation_data


class _Name(str):
    """The name of one of our processes: marked, and yet the one by which pebble finds its workers when it ends."""

    __slots__ = ()


class Aside:
    """A context of ``multiprocessing`` whose processes do not import the main script.

    A new process of the standard library runs that script again, so that functions in it can be found: a script
    without ``if __name__ == "__main__"`` would do all its work twice, and one that was typed in has no file to run.
    What runs in our workers never stands there.

    Args:
        context: The context, ``spawn`` or ``forkserver``.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        spawn.get_preparation_data = _without_main

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 -- named by multiprocessing
        """Make a process."""
        process = self._context.Process(*args, **kwargs)
        process.name = _Name(process.name)
        return process


def _without_main(name: str) -> dict[str, Any]:
    data: dict[str, Any] = dict(_prepare(name))
    if isinstance(name, _Name):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data
