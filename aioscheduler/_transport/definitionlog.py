"""The definitions of a host, by number, each kept as long as something uses it. Pure.

    class, code ───────────────────► Lease ─┐
    task that has not ended ───────► Lease ─┼─► line ─► Leases of what the line names
    outcome that nobody has read ──► Lease ─┘

A line is msgpack: a kind, its number, and fields (see `definitions`). The host holds the leases of
classes and codes weakly: they are returned when their class or code is garbage. A line without
leases is retired: it is sent to no more processes, and those that know it are sent word to forget
it. Until they have confirmed that, their frames may still name it, which leases it again and brings
it back. After that it is dropped. Lines refer to older lines only, but `keeps` may add a cycle,
which `is_used_beyond` finds. Lines that were never leased stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import takewhile

from . import wire

FORGET = 8  # the kind of a line that lists lines to forget; its number is a serial
FORGET_AT = 64  # of `DefinitionLog.weight`; less costs a worker no memory worth mentioning


class Lease(int):
    """The number of a line; while one is held, the line is kept."""

    returned: deque[int]

    def __del__(self) -> None:
        self.returned.append(int(self))  # in any thread, during garbage collection


class Leased(bytes):
    """A payload that names definitions, with the leases that keep those."""

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
    """Lines by number, and their leases.

    Attributes:
        lines: The lines, by ascending number, retired ones included.
        retired: The numbers of lines without leases.
        next: The number of the next line; no number is used twice.
        weight: How much was ever retired: each line counts as one, plus one per KiB.
        leased: Whether there was ever a lease.
        returned: The numbers of leases that were released, until `unused` reads them.
        readers: The readers of the log, one per process.
        keeps: Leases that a line holds beyond those of the lines it names, by line and any key.
    """

    def __init__(self) -> None:
        self.lines: dict[int, bytes] = {}
        self.retired: set[int] = set()
        self.next: int = 0
        self.weight: int = 0
        self.leased: bool = False
        self.returned: deque[int] = deque()
        self.readers: list[Reader] = []
        self.keeps: dict[int, dict[str, int]] = {}
        self._stale = False  # whether a retired line may no longer be known to any process
        self._holds: dict[int, tuple[int, ...]] = {}  # leases of lines named by leasable lines
        self._leases: dict[int, int] = {}  # the number of leases of each line

    def write(self, kind: int, *fields: object, names: Iterable[int] | None = None) -> int:
        """Add a line.

        Args:
            kind: What it defines.
            fields: Values that msgpack can encode.
            names: Leases of the lines that it names; None: it cannot be leased.

        Returns:
            Its number.

        Raises:
            Exception: Msgpack cannot encode a field; no line is added then.
        """
        number = self.next
        line = wire.pack([kind, number, *fields])  # first: if it raises, nothing has changed
        self.next = number + 1
        self.lines[number] = line
        if names is not None:
            self._holds[number] = tuple(names)
        return number

    def lease(self, number: int) -> int:
        """Return a lease of a line; its plain number if it cannot be leased, or is gone."""
        if number not in self._holds:
            return number
        if number in self.retired:  # named by a process that had not forgotten it yet
            self.retired.remove(number)
            for reader in self.readers:
                reader.send_again(number)
        self.leased = True
        self._leases[number] = self._leases.get(number, 0) + 1
        lease = Lease(number)
        lease.returned = self.returned
        return lease

    def unused(self) -> Iterator[int]:
        """Yield the lines whose last lease was returned."""
        while self.returned:
            number = self.returned.popleft()
            self._leases[number] -= 1
            if not self._leases[number]:
                del self._leases[number]
                if number in self.lines:
                    yield number

    def is_used_beyond(self, numbers: Iterable[int], keeper: int) -> bool:
        """Return whether some lines have leases besides those that a line keeps."""
        kept: dict[int, int] = {}  # each lease once, by its id: it may have several holders
        for lease in self.keeps.get(keeper, {}).values():
            kept |= {id(inner): int(inner) for inner in self._holds.get(int(lease), ())}
        inner = list(kept.values())
        return any(self._leases.get(n, 0) > inner.count(n) for n in numbers)

    def retire(self, number: int) -> None:
        """Retire a line without leases."""
        self.retired.add(number)
        self._stale |= not self._is_known(number)
        self.weight += 1 + (len(self.lines[number]) >> 10)

    def drop(self, number: int) -> bytes:
        """Remove and return a line that no process knows; its leases are released."""
        self.retired.discard(number)
        self.keeps.pop(number, None)
        self._holds.pop(number, None)
        return self.lines.pop(number)

    def forgotten(self) -> list[int]:
        """Return the numbers of retired lines that no process knows any more."""
        if not self._stale:
            return []
        self._stale = False
        return [number for number in self.retired if not self._is_known(number)]

    def look_again(self) -> None:
        """Note that a process knows fewer lines than before."""
        self._stale = True

    def _is_known(self, number: int) -> bool:
        return any(number in reader.known for reader in self.readers)


class Reader:
    """The lines that one worker process must still be sent, in order.

    Args:
        log: The log, read from its beginning.

    Attributes:
        known: The lines that the process knows, or may not have forgotten yet.
    """

    def __init__(self, log: DefinitionLog) -> None:
        self.log = log
        log.readers.append(self)
        self._serial = 0  # of the last FORGET; never reused, not even for a new process
        self.restart()

    def restart(self) -> None:
        """Begin again, for a process that knows nothing."""
        self.known: set[int] = set()
        self._next = 0
        self._weight = self.log.weight
        self._again: dict[int, int] = {}  # lines, with the FORGET that named each; 0: none
        self._forgetting: dict[int, list[int]] = {}  # unconfirmed lines, by serial
        self.log.look_again()

    def read(self) -> list[bytes]:
        """Return the lines added since the last call, and FORGET lines for those retired."""
        log, lines = self.log, []
        if log.weight - self._weight > FORGET_AT + len(self.known) // 8:
            self._weight = log.weight
            under_way = {number for gone in self._forgetting.values() for number in gone}
            under_way.update(self._again)
            gone = [n for n in self.known & log.retired if n not in under_way]
            if gone:
                self._serial += 1
                self._forgetting[self._serial] = gone
                lines.append(wire.pack([FORGET, self._serial, gone]))
        if self._again:
            for number, serial in self._again.items():
                if number in log.lines and number not in log.retired:
                    self.known.add(number)
                    lines.append(log.lines[number])
                elif serial in self._forgetting:  # it was retired again since
                    self._forgetting[serial].append(number)
                elif serial:  # the process has forgotten it by now
                    self.known.discard(number)
                    log.look_again()
            self._again.clear()
        if log.next > self._next:
            start, self._next = self._next, log.next
            fresh = list(takewhile(lambda number: number >= start, reversed(log.lines)))[::-1]
            fresh = [number for number in fresh if number not in log.retired]
            self.known.update(fresh)
            lines += [log.lines[number] for number in fresh]
        return lines

    def confirm(self, serial: int) -> None:
        """Note that the process has read all FORGET lines up to this serial."""
        for read in [read for read in self._forgetting if read <= serial]:
            self.known.difference_update(self._forgetting.pop(read))
            self.log.look_again()

    def send_again(self, number: int) -> None:
        """Send a line again, unless the process certainly knows it."""
        for serial, gone in self._forgetting.items():
            if number in gone:
                gone.remove(number)  # its confirmation no longer means that the line is gone
                self._again[number] = serial
                return
        if number < self._next and number not in self.known:  # it was retired when `read` passed it
            self._again[number] = 0
