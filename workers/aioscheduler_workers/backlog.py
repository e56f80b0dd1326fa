"""Log records that wait to be sent, within bounds. Pure.

One side adds, the other takes, and neither waits: each writes its own attributes only, so that the
loop can take while a thread adds. Only one thread may add at a time; but objects freed meanwhile
may log, and so add, too. Therefore a count is read and written with no call in between.
"""

from __future__ import annotations

from collections import deque

MOST_RECORDS = 1000
MOST_BYTES = 1 << 20
FRAME_RECORDS = 32  # records that the host handles in one turn of its loop
FRAME_BYTES = 32 * 1024


class Backlog:
    """Packed records, oldest first; when it is full, new ones are dropped, and counted."""

    def __init__(self) -> None:
        self._records: deque[bytes] = deque()
        self._added = 0  # bytes, written by the side that adds
        self._dropped = 0  # records, likewise
        self._taken = 0  # bytes, written by the side that takes
        self._reported = 0  # dropped records that were reported, likewise

    def __bool__(self) -> bool:
        """Return whether there is anything to send."""
        return bool(self._records) or self._dropped != self._reported

    @property
    def size(self) -> int:
        """The number of bytes it holds."""
        return self._added - self._taken

    @property
    def is_full(self) -> bool:
        """Whether a record added now would be dropped."""
        return len(self._records) >= MOST_RECORDS or self.size >= MOST_BYTES

    def add(self, record: bytes) -> None:
        """Keep a record if there is room."""
        if self.is_full:
            self._dropped += 1
            return
        size = len(record)
        self._added += size  # first: a record taken at once must have been counted
        self._records.append(record)

    def drop(self) -> None:
        """Count a record as dropped."""
        self._dropped += 1

    def take(self) -> tuple[list[bytes], int]:
        """Return the records of the next frame, and the number dropped since the last one."""
        records: list[bytes] = []
        size = 0
        while self._records and len(records) < FRAME_RECORDS:
            size += len(self._records[0])
            if records and size > FRAME_BYTES:
                break
            records.append(self._records.popleft())
        self._taken += sum(map(len, records))
        dropped = self._dropped - self._reported
        self._reported += dropped
        return records, dropped
