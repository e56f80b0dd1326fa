"""The length of a slice: the tasks that an engine starts in one turn of the loop. Pure.

It is adapted so that a slice takes about `SLICE_TIME`: a million no-ops due together run in slices
of hundreds, tasks that compute for a millisecond in slices of a few, and I/O is handled in between.
"""

from __future__ import annotations

SLICE_TIME = 4_000_000  # nanoseconds
MAX_SLICE = 256  # tasks


class Pace:
    """Computes the length of the next slice from the duration of the last one."""

    def __init__(self) -> None:
        self._length = 16
        self._began: int | None = None  # when the last slice began, if no pause came after it

    def begin(self, now: int) -> None:
        """Note that a slice begins at `now`, or goes on; the wait before it does not count."""
        if self._began is None:
            self._began = now

    def pause(self) -> None:
        """Note that nothing is due: the time until the next slice is not part of the last."""
        self._began = None

    def next_length(self, now: int) -> int:
        """Return the maximum length of the slice launched at `now`."""
        if self._began is not None:
            took = now - self._began
            if took > SLICE_TIME:
                self._length = max(1, self._length // 2)
            elif took < SLICE_TIME // 2:
                self._length = min(MAX_SLICE, self._length * 2)
            self._began = None
        return self._length
