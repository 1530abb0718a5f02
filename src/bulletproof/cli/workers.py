"""Several worker processes behind one socket: replaced when they die, and one by one at SIGHUP."""

import signal
from types import FrameType

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

START_SECONDS = 60
"""How long a worker may take to start, or to give a sign of life, before it is taken for dead."""


class Workers(Multiprocess):
    """uvicorn's supervisor; told to stop, it stops though it is in the middle of a rolling restart."""

    def run(self) -> None:
        """Start the workers, and look after them until told to stop."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def told(number: int, frame: FrameType | None) -> None:
            self.should_exit.set()
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)

        for number in before:
            signal.signal(number, told)
        super().run()


def run_workers(config: Config) -> None:
    """Run as many workers as the configuration says, until told to stop."""
    Workers(config, sockets=[config.bind_socket()]).run()
