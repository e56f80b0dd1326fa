"""What has been logged and is still to be told, within bounds. Pure.

One adds, one takes, and neither waits for the other: each changes what is its own alone, so that
the loop can take while a thread adds. Who adds must be one at a time; but what is freed in the
midst of it may log, and adds, too. So a count is read and written with no call in between.
"""

from __future__ import annotations

from collections import deque

MOST_RECORDS = 1000
MOST_BYTES = 1 << 20
FRAME_RECORDS = 32  # which the host handles in one turn of its loop
FRAME_BYTES = 32 * 1024


class Backlog:
    """Packed records, oldest first; when it is full, what comes is dropped, and counted."""

    def __init__(self) -> None:
        self._records: deque[bytes] = deque()
        self._added = 0  # bytes, and how many were dropped, by who adds
        self._dropped = 0
        self._taken = 0  # bytes, and of how many dropped ones was told, by who takes
        self._told = 0

    def __bool__(self) -> bool:
        """Whether there is anything to be told."""
        return bool(self._records) or self._dropped != self._told

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._added - self._taken

    @property
    def is_full(self) -> bool:
        """Whether what is added now is dropped."""
        return len(self._records) >= MOST_RECORDS or self.size >= MOST_BYTES

    def add(self, record: bytes) -> None:
        """Keep a record if there is room."""
        if self.is_full:
            self._dropped += 1
            return
        size = len(record)
        self._added += size  # first: who takes it at once must not find less
        self._records.append(record)

    def drop(self) -> None:
        """Count a record that is not kept."""
        self._dropped += 1

    def take(self) -> tuple[list[bytes], int]:
        """Return the records of the next frame, and how many were dropped since the last."""
        records: list[bytes] = []
        size = 0
        while self._records and len(records) < FRAME_RECORDS:
            size += len(self._records[0])
            if records and size > FRAME_BYTES:
                break
            records.append(self._records.popleft())
        self._taken += sum(map(len, records))
        dropped = self._dropped - self._told
        self._told += dropped
        return records, dropped
