"""Linux's timer on the wall clock, as a file descriptor: `timerfd_create(2)`.

`os` has it from Python 3.13 on; before, it is called with ctypes, which some builds of Python lack.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import suppress

from .clock import LATEST, SECOND

_ABSTIME, _CANCEL_ON_SET = 1, 2

if sys.version_info >= (3, 13):

    def _create(clock: int) -> int:
        return os.timerfd_create(clock, flags=os.O_NONBLOCK | os.O_CLOEXEC)

    def _set(fd: int, due: int, flags: int) -> None:
        os.timerfd_settime_ns(fd, flags=flags, initial=due)

    def _look_at(fd: int) -> None:
        os.timerfd_gettime_ns(fd)

else:
    import ctypes

    _library = ctypes.CDLL(None, use_errno=True)
    _Itimerspec = ctypes.c_long * 4  # interval and first time, each in seconds and nanoseconds

    def _create(clock: int) -> int:
        if ctypes.sizeof(ctypes.c_long) != 8:
            raise OSError("a 64-bit timer is needed")
        return _check(_library.timerfd_create(clock, os.O_NONBLOCK | os.O_CLOEXEC))

    def _set(fd: int, due: int, flags: int) -> None:
        value = _Itimerspec(0, 0, *divmod(due, SECOND))
        _check(_library.timerfd_settime(fd, flags, value, None))

    def _look_at(fd: int) -> None:
        _check(_library.timerfd_gettime(fd, _Itimerspec()))

    def _check(result: int) -> int:
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result


class TimerFd:
    """One timer. Its descriptor is readable when it is due, or when the clock was set.

    Args:
        monotonic: Whether it uses the monotonic clock, which nobody can set.

    Raises:
        OSError: The system has no such timers, or no room for another.
        AttributeError: The C library has no such timers.
    """

    def __init__(self, monotonic: bool = False) -> None:
        self.fd: int = -1
        self._flags = _ABSTIME if monotonic else _ABSTIME | _CANCEL_ON_SET
        self.fd = _create(time.CLOCK_MONOTONIC if monotonic else time.CLOCK_REALTIME)

    def set(self, due: int | None) -> None:
        """Set the due time, in nanoseconds by its clock; the past is now, None is never.

        Raises:
            OSError: Some other code has closed the descriptor, or replaced it.
        """
        when = 0 if due is None else min(max(1, due), LATEST)  # 0 disarms
        try:
            _set(self.fd, when, self._flags)
        except OSError as error:
            if error.errno != errno.ECANCELED:  # the clock was set; the timer is armed all the same
                raise

    def is_there(self) -> bool:
        """Return whether the descriptor is still a timer: a faulty library may have closed it."""
        try:
            _look_at(self.fd)
        except OSError:
            return False
        return True

    def read(self) -> bool:
        """Acknowledge the ring; return False if there was none, because it was set again."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            return False
        except OSError:  # ECANCELED: the clock was set
            pass
        return True

    def close(self) -> None:
        """Close the descriptor if it is still the timer's. May be called again."""
        if self.fd >= 0 and self.is_there():
            with suppress(OSError):
                os.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        self.close()  # in case the loop ended without a close
