"""Linux's timer on the wall clock, as a file descriptor: `timerfd_create(2)`.

`os` has it from Python 3.13 on; through ctypes, every Python this package runs on has it. One way
for all of them: it is set once a wake-up, and what ctypes costs more (half a microsecond) is not
seen.
"""

from __future__ import annotations

import ctypes
import os

from .clock import LATEST, SECOND

_CLOCK_REALTIME = 0
_ABSTIME, _CANCEL_ON_SET = 1, 2

_Itimerspec = ctypes.c_long * 4
"""Interval and first time, each in seconds and nanoseconds."""


class TimerFd:
    """One timer. Its descriptor is readable once its time has come, or the clock was set.

    Raises:
        OSError: The system has none, or no room for another.
        AttributeError: So has the C library.
    """

    def __init__(self) -> None:
        self.fd = -1
        if ctypes.sizeof(ctypes.c_long) != 8:
            raise OSError("a timer for 64 bit is needed")
        self._library = ctypes.CDLL(None, use_errno=True)
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        self.fd = self._check(self._library.timerfd_create(_CLOCK_REALTIME, flags))

    def set(self, due: int | None) -> None:
        """Sets the time, in nanoseconds since the epoch; the past is now, None is never."""
        when = 0 if due is None else min(max(1, due), LATEST)  # 0 disarms
        value = _Itimerspec(0, 0, *divmod(when, SECOND))
        flags = _ABSTIME | _CANCEL_ON_SET
        self._check(self._library.timerfd_settime(self.fd, flags, value, None))

    def read(self) -> bool:
        """Takes note of the ring; False if there was none, for it was set anew meanwhile."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return False
        except OSError:  # ECANCELED: the clock was set
            pass
        return True

    def close(self) -> None:
        """Gives the descriptor back. May be called again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()  # the loop ended without a close

    def _check(self, result: int) -> int:
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result
