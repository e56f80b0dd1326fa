"""The definitions of a host, by number, each as long as something uses it. Pure.

    class, code ───────────────────► Lease ─┐
    task that has not ended ───────► Lease ─┼─► line ─► Leases of what the line names
    outcome that nobody has read ──► Lease ─┘

A line is msgpack: a kind, its number, and fields (see `definitions`). The host holds the leases of
classes and codes weakly: they come back when their class or code is garbage. A line that nobody has
a lease of is retired: no process is told of it from now on, and those that know it are told to
forget it. Until they have confirmed that, what they send may name it, and gives it a lease again:
then it comes back. After that it goes. Lines refer to older lines only; but what `keeps`
adds may close a circle, which `is_used_beyond` finds.
Lines that were never leased stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import takewhile

from . import wire

FORGET = 8  # the kind of the line that tells a reader what to forget; its number is a serial
FORGET_AT = 64  # of `DefinitionLog.weight`; so little costs a worker no memory worth a word


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
        lines: By number, which grows; the retired ones, too.
        retired: Those that nobody uses.
        next: The number of the next line. None is given twice.
        weight: How much was retired: each line counts for one, and for one more per KiB.
        leased: Whether there was a lease, ever.
        returned: The numbers of leases that nobody holds any more, until `unused` looks at them.
        readers: Who has been told of lines.
        keeps: What a line keeps beyond what it names: leases, by line and any key.
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
        self._stale = False  # whether a retired line may be known to no process any more
        self._holds: dict[int, tuple[int, ...]] = {}  # what lines that may be leased name
        self._leases: dict[int, int] = {}  # how many there are, by number

    def write(self, kind: int, *fields: object, names: Iterable[int] | None = None) -> int:
        """Add a line.

        Args:
            kind: What it defines.
            fields: What msgpack takes.
            names: Leases of the lines that it names; None: it is not to be leased.

        Returns:
            Its number.

        Raises:
            Exception: Msgpack does not take a field; there is no line then.
        """
        number = self.next
        line = wire.pack([kind, number, *fields])  # first: if it raises, nothing has changed
        self.next = number + 1
        self.lines[number] = line
        if names is not None:
            self._holds[number] = tuple(names)
        return number

    def lease(self, number: int) -> int:
        """Return a lease of a line; its mere number if it is not to be leased, or gone."""
        if number not in self._holds:
            return number
        if number in self.retired:  # a process has named it that had not forgotten it yet
            self.retired.remove(number)
            for reader in self.readers:
                reader.tell_again(number)
        self.leased = True
        self._leases[number] = self._leases.get(number, 0) + 1
        lease = Lease(number)
        lease.returned = self.returned
        return lease

    def unused(self) -> Iterator[int]:
        """Yield the lines of which the last lease has come back."""
        while self.returned:
            number = self.returned.popleft()
            self._leases[number] -= 1
            if not self._leases[number]:
                del self._leases[number]
                if number in self.lines:
                    yield number

    def is_used_beyond(self, numbers: Iterable[int], keeper: int) -> bool:
        """Whether somebody has leases of some lines, beyond what a line keeps."""
        kept: dict[int, int] = {}  # each lease by its id: many may hold the same
        for lease in self.keeps.get(keeper, {}).values():
            kept |= {id(inner): int(inner) for inner in self._holds.get(int(lease), ())}
        inner = list(kept.values())
        return any(self._leases.get(n, 0) > inner.count(n) for n in numbers)

    def retire(self, number: int) -> None:
        """Have a line forgotten, which nobody uses."""
        self.retired.add(number)
        self._stale |= not self._is_known(number)
        self.weight += 1 + (len(self.lines[number]) >> 10)

    def drop(self, number: int) -> bytes:
        """Remove a line that nobody knows, and return the leases that it holds."""
        self.retired.discard(number)
        self.keeps.pop(number, None)
        self._holds.pop(number, None)
        return self.lines.pop(number)

    def forgotten(self) -> list[int]:
        """Return the retired lines that no process knows any more."""
        if not self._stale:
            return []
        self._stale = False
        return [number for number in self.retired if not self._is_known(number)]

    def look_again(self) -> None:
        """A process knows less than before."""
        self._stale = True

    def _is_known(self, number: int) -> bool:
        return any(number in reader.told for reader in self.readers)


class Reader:
    """What one worker process is to be told of the log, in order.

    Args:
        log: Read from its beginning.

    Attributes:
        told: The lines that the process knows, or may not have forgotten yet.
    """

    def __init__(self, log: DefinitionLog) -> None:
        self.log = log
        log.readers.append(self)
        self._serial = 0  # of the last FORGET; it is not given twice, whatever the process
        self.restart()

    def restart(self) -> None:
        """Begin again, for a process that knows nothing."""
        self.told: set[int] = set()
        self._next = 0
        self._weight = self.log.weight
        self._again: dict[int, int] = {}  # lines, with the FORGET that has named each; 0: none has
        self._forgetting: dict[int, list[int]] = {}  # what is not confirmed, by serial
        self.log.look_again()

    def read(self) -> list[bytes]:
        """Return the lines that have come since the last time, and word of those that went."""
        log, lines = self.log, []
        if log.weight - self._weight > FORGET_AT + len(self.told) // 8:
            self._weight = log.weight
            under_way = {number for gone in self._forgetting.values() for number in gone}
            under_way.update(self._again)
            gone = [n for n in self.told & log.retired if n not in under_way]
            if gone:
                self._serial += 1
                self._forgetting[self._serial] = gone
                lines.append(wire.pack([FORGET, self._serial, gone]))
        if self._again:
            for number, serial in self._again.items():
                if number in log.lines and number not in log.retired:
                    self.told.add(number)
                    lines.append(log.lines[number])
                elif serial in self._forgetting:  # it has gone once more since
                    self._forgetting[serial].append(number)
                elif serial:  # the process has forgotten it by now
                    self.told.discard(number)
                    log.look_again()
            self._again.clear()
        if log.next > self._next:
            start, self._next = self._next, log.next
            fresh = list(takewhile(lambda number: number >= start, reversed(log.lines)))[::-1]
            fresh = [number for number in fresh if number not in log.retired]
            self.told.update(fresh)
            lines += [log.lines[number] for number in fresh]
        return lines

    def confirm(self, serial: int) -> None:
        """Take the word of the process that it has read all FORGET lines up to this one."""
        for known in [known for known in self._forgetting if known <= serial]:
            self.told.difference_update(self._forgetting.pop(known))
            self.log.look_again()

    def tell_again(self, number: int) -> None:
        """Have a line told again, unless the process knows it for sure."""
        for serial, gone in self._forgetting.items():
            if number in gone:
                gone.remove(number)  # it is not gone when that is confirmed
                self._again[number] = serial
                return
        if number < self._next and number not in self.told:  # it was retired when its turn came
            self._again[number] = 0
