"""How long a slice is: what an engine starts without giving the loop a turn. Pure.

A slice is made longer or shorter so that it takes about `SLICE_TIME`: a million no-ops due together
run in slices of hundreds, tasks that compute for a millisecond in slices of a few, and I/O is
answered in between.
"""

from __future__ import annotations

SLICE_TIME = 4_000_000  # nanoseconds
MAX_SLICE = 256  # tasks


class Pace:
    """Finds the length of the next slice from the time that the last one took."""

    def __init__(self) -> None:
        self._length = 16
        self._began: int | None = None  # when the last slice began, if no pause came after it

    def begin(self, now: int) -> None:
        """Note that a slice begins at `now`, or goes on: that it waited before does not count."""
        if self._began is None:
            self._began = now

    def pause(self) -> None:
        """Note that nothing is due: the time until the next slice is not the last one's."""
        self._began = None

    def next_length(self, now: int) -> int:
        """Return how many tasks the slice that is taken at `now` may have."""
        if self._began is not None:
            took = now - self._began
            if took > SLICE_TIME:
                self._length = max(1, self._length // 2)
            elif took < SLICE_TIME // 2:
                self._length = min(MAX_SLICE, self._length * 2)
            self._began = None
        return self._length
