"""Ctrl-C and SIGTERM, noticed at safe points: a child is never started and then forgotten."""

import os
import signal
import subprocess
import time
from types import FrameType

from fintech_core.embedded.errors import StopRequested

STEP_SECONDS = 0.1


class StopSignals:
    """Turns the signals into a flag, and the flag into StopRequested where we wait anyway."""

    def __init__(self) -> None:
        self.received: int | None = None
        # `kill -9` of make leaves nobody who could pass a signal on: then stop as well.
        self._make = os.getppid() if os.environ.get("MAKELEVEL") else None

    def install(self) -> "StopSignals":
        """Listen from now on; a second Ctrl-C during the orderly end changes nothing."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._notice)
        return self

    def leave_ctrl_c_to_the_foreground(self) -> "StopSignals":
        """In a shell Ctrl-C abandons a line, not the shell. A handler, not SIG_IGN: that would be
        inherited."""
        signal.signal(signal.SIGINT, lambda *_: None)
        return self

    def _notice(self, number: int, _: FrameType | None) -> None:
        self.received = number

    def check(self) -> None:
        """Raise StopRequested if it is time to go."""
        if self._make is not None and os.getppid() != self._make:
            self.received = self.received or signal.SIGTERM
        if self.received is not None:
            raise StopRequested

    def sleep(self, seconds: float = STEP_SECONDS) -> None:
        """Wait, unless it is time to go."""
        self.check()
        time.sleep(seconds)
        self.check()

    def wait_for(self, process: "subprocess.Popen[bytes]", patience: float = 3.0) -> int:
        """The exit code of `process`; when we have to go first, it has to go too."""
        try:
            while process.poll() is None:
                self.sleep()
        except StopRequested:
            end_child(process, patience)
            raise
        return process.returncode


def end_child(process: "subprocess.Popen[bytes]", patience: float) -> None:
    """SIGTERM, and SIGKILL after `patience` seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
