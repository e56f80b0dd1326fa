"""How often a worker collects cyclic garbage: as often as Python, or less often if there is none.

Most objects that tasks make are freed before they could be garbage, and collecting all the same
costs a fifth of a worker on 3.11 (`benchmarks/bench_throughput.py`). But if tasks do leave cycles
behind, each may hold megabytes. So the threshold, the number of new objects after which the
youngest generation is collected, doubles each time several collections have found nothing, and is
Python's own again once one finds something, or once the process has grown.
"""

from __future__ import annotations

import gc
from typing import Any

LEAST, MOST = 700, 20_000  # objects
PATIENCE = 8  # collections that find nothing before the threshold doubles
FOUND = 10  # a tenth of the objects was garbage: that is worth collecting
GROWTH = 64 << 20  # bytes of resident memory between two measurements


class Thresholds:
    """Sets the threshold of the youngest generation until other code (an initializer) does."""

    def __init__(self) -> None:
        _, *self._older = gc.get_threshold()
        self._threshold = LEAST
        self._vain = 0  # collections that found nothing, at this threshold
        self._size: int | None = None

    def begin(self) -> None:
        """Adapt the threshold from now on."""
        self._set(LEAST)
        gc.callbacks.append(self._collected)

    def stop(self) -> None:
        """Leave the threshold as it is."""
        gc.callbacks.remove(self._collected)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase != "stop":
            return
        if not self._is_ours():
            self.stop()
        elif info["collected"] * FOUND >= self._threshold:
            self._set(LEAST)
        else:
            self._vain += 1
            if self._vain == PATIENCE:
                self._set(min(2 * self._threshold, MOST))

    def note_size(self, size: int) -> None:
        """Collect again soon if the process has grown; may be called from another thread.

        Args:
            size: The process's resident memory in bytes.
        """
        if self._size is not None and size - self._size > GROWTH and self._is_ours():
            self._set(LEAST)
        self._size = size

    def _is_ours(self) -> bool:
        return gc.get_threshold()[0] == self._threshold

    def _set(self, threshold: int) -> None:
        self._threshold, self._vain = threshold, 0
        gc.set_threshold(threshold, *self._older)
