"""What has to happen at the moment the process is told to stop, before the server waits for what is under way."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def when_told_to_stop(call: Callable[[], None]) -> Iterator[None]:
    """Have something called at SIGTERM or Ctrl-C, and then whatever the server does at it.

    A server waits for open answers before the app hears of its end; streams that never end by themselves have to be
    told sooner.

    Args:
        call: Safe to call in a signal handler.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ours = threading.current_thread() is threading.main_thread()

    def told(number: int, frame: FrameType | None) -> None:
        call()
        server = before[signal.Signals(number)]
        if callable(server):
            server(number, frame)

    # A handler that is no Python function, such as the default that ends the process, needs no help from us.
    taken = [number for number, handler in before.items() if ours and callable(handler)]
    for number in taken:
        signal.signal(number, told)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is told:
                signal.signal(number, before[number])
