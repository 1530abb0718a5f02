"""Start processes that leave the main script of the caller alone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import connection, context, parent_process, resource_tracker, spawn
from threading import Thread
from typing import Any

fcntl: Any = import_module("fcntl") if os.name == "posix" else None
_prepare = spawn.get_preparation_data


class _Name(str):
    """The name of one of our processes: marked, and yet the one by which pebble finds its workers when it ends."""

    __slots__ = ()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Hold back SIGINT in this thread, and so from its first instant in a process that it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started along with the process, it would undo this
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Spawned(context.SpawnProcess):
    def start(self) -> None:
        with _without_ctrl_c():
            super().start()


_CLASSES: dict[str, Any] = {"spawn": _Spawned}
if hasattr(context, "ForkServerProcess"):

    class _Forked(context.ForkServerProcess):
        def start(self) -> None:
            with _without_ctrl_c():
                super().start()

    _CLASSES["forkserver"] = _Forked


class Aside:
    """A context of ``multiprocessing`` whose processes do not import the main script.

    A new process of the standard library runs that script again, so that functions in it can be found: a script
    without ``if __name__ == "__main__"`` would do all its work twice, and one that was typed in has no file to run.
    What runs in our workers never stands there. SIGINT, which Ctrl-C sends to all processes of a terminal, is held back
    in them from the start; what they run first has to ignore it and let it through.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        spawn.get_preparation_data = _without_main

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 -- named by multiprocessing
        process = _CLASSES[self._context.get_start_method()](*args, **kwargs)
        process.name = _Name(process.name)
        return process


def _without_main(name: str) -> dict[str, Any]:
    data: dict[str, Any] = dict(_prepare(name))
    if isinstance(name, _Name):
        data.pop("init_main_from_name", None)
        data.pop("init_main_from_path", None)
    return data


def end_with_parent() -> None:
    """Have this process get SIGTERM when the one that started it by ``multiprocessing`` is gone, be it by ``kill -9``.

    Nothing happens in a process that was not started so. On Linux the kernel sends the signal when the pipe that comes
    from the parent loses its other end (fcntl(2), F_SETSIG), whatever this process is stuck in; elsewhere a thread
    watches. ``PR_SET_PDEATHSIG`` would not do: it fires when the *thread* ends that started this process.
    """
    parent = parent_process()
    if parent is None:
        return
    pipe: Any = parent.sentinel
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
        if connection.wait([pipe], 0):  # it ended before that
            os.kill(os.getpid(), signal.SIGTERM)
        return

    def watch() -> None:
        connection.wait([pipe])
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="bulletproof-parent", daemon=True).start()
