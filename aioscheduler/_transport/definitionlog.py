"""The definitions of a host, by number, each as long as something uses it. Pure.

    class, code ───────────────────► Lease ─┐
    task that has not ended ───────► Lease ─┼─► line ─► Leases of what the line names
    outcome that nobody has read ──► Lease ─┘

A line is msgpack: a kind, its number, and fields (see `definitions`). The host holds the leases of
classes and codes weakly: they come back when their class or code is garbage. A line that nobody has
a lease of can be named by nobody any more, neither by what a process is sent from now on nor by
what it was sent before, so it is dropped, and workers are told to forget it. Lines refer to older
lines only, so no circle keeps itself. Lines that were never leased stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import takewhile

from . import wire

FORGET = 8  # the kind of the line that tells a reader which lines were dropped
FORGET_AT = 64  # of `DefinitionLog.dropped`; so little costs a worker no memory worth a word


class Lease(int):
    """The number of a line; while one is held, the line is kept."""

    returned: deque[int]

    def __del__(self) -> None:
        self.returned.append(int(self))  # in any thread, while garbage is collected


class Leased(bytes):
    """A payload that names definitions, with the leases that keep them."""

    leases: tuple[int, ...]


def leased(payload: bytes, leases: Iterable[int]) -> bytes:
    """Return the payload with its leases, if there are any."""
    held = tuple(leases)
    if not held:
        return payload
    payload = Leased(payload)
    payload.leases = held
    return payload


class DefinitionLog:
    """Lines by number, and who uses them.

    Attributes:
        lines: By number, which grows.
        next: The number of the next line. None is given twice.
        dropped: How much has gone: each line counts for one, and for one more per KiB.
        leased: Whether there was a lease, ever.
        returned: The numbers of leases that nobody holds any more, until `unused` looks at them.
    """

    def __init__(self) -> None:
        self.lines: dict[int, bytes] = {}
        self.next: int = 0
        self.dropped: int = 0
        self.leased: bool = False
        self._holds: dict[int, tuple[int, ...]] = {}  # what lines that may be leased name
        self._leases: dict[int, int] = {}  # how many there are, by number
        self.returned: deque[int] = deque()

    def write(self, kind: int, *fields: object, names: Iterable[int] | None = None) -> int:
        """Add a line.

        Args:
            kind: What it defines.
            fields: What msgpack takes.
            names: Leases of the lines that it names; None: it is not to be leased.

        Returns:
            Its number.
        """
        number = self.next
        self.next = number + 1
        self.lines[number] = wire.pack([kind, number, *fields])
        if names is not None:
            self._holds[number] = tuple(names)
        return number

    def drop(self, number: int) -> None:
        """Remove a line, and return the leases that it holds."""
        line = self.lines.pop(number, None)
        if line is not None:
            self.dropped += 1 + (len(line) >> 10)
            self._holds.pop(number, None)

    def lease(self, number: int) -> int:
        """Return a lease of a line; its mere number if it is not to be leased, or gone."""
        if number not in self._holds:
            return number
        self.leased = True
        self._leases[number] = self._leases.get(number, 0) + 1
        lease = Lease(number)
        lease.returned = self.returned
        return lease

    def unused(self) -> Iterator[int]:
        """Yield the lines of which the last lease has come back; they are not dropped by this.

        What is dropped meanwhile may make others unused, which follow.
        """
        while self.returned:
            number = self.returned.popleft()
            self._leases[number] -= 1
            if not self._leases[number]:
                del self._leases[number]
                if number in self.lines:
                    yield number


class Reader:
    """What one worker process is to be told of the log, in order.

    Args:
        log: Read from its beginning.
    """

    def __init__(self, log: DefinitionLog) -> None:
        self.log: DefinitionLog = log
        self.restart()

    def restart(self) -> None:
        """Begin again, for a process that knows nothing."""
        self._next = 0
        self._dropped = self.log.dropped
        self._told: set[int] = set()

    def read(self) -> list[bytes]:
        """Return the lines that have come since the last time, and word of those that went."""
        log, lines = self.log, []
        if log.dropped - self._dropped > FORGET_AT + len(self._told) // 8:
            self._dropped = log.dropped
            gone = [number for number in self._told if number not in log.lines]
            self._told.difference_update(gone)
            lines.append(wire.pack([FORGET, 0, gone]))
        if log.next > self._next:
            start, self._next = self._next, log.next
            fresh = list(takewhile(lambda number: number >= start, reversed(log.lines)))[::-1]
            self._told.update(fresh)
            lines += [log.lines[number] for number in fresh]
        return lines
