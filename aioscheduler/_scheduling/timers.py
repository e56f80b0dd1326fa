"""The timer queue: numbers with due times, popped in order of time. Pure.

Rules of this file:

1. Time is an argument, in integer nanoseconds. No clock, no loop, no I/O.
2. No number is popped before its due time; those with equal due times come in the order of the
   numbers, which ascend in the order of scheduling.
3. Push, pop and discard cost the same at ten million entries as at ten thousand.

A pop from a heap of n entries touches log n cache lines: measured at 3.5 µs with two million. Here
entries wait unsorted in buckets, and a bucket is sorted, at the speed of `list.sort`, when it is
due. This is the hierarchical timing wheel of Varghese and Lauck (1987) with dicts for wheels, so
that there is no latest time and an empty span costs nothing:

    push ─┬─► far wheel, 8.6 s a bucket ──(its time has come)──┐
          ├─► near wheel, 67 ms a bucket ◄─────────────────────┘
          │        └──(its time has come)──► ripe: sorted once, read once ─► pop_due
          └─► late: entries due in a span already opened, merged while reading: a list for those
              that come in order, as all that are due at once do, and a heap for the rest

Two widths, because one is not enough: with narrow buckets, a million timers spread over three days
would need a list each, and with wide ones, sorting a bucket would stall the loop.

An entry is one integer, `due << NUMBER_BITS | number`: half the size of a tuple, and sorted by
time, then number. Discarded entries stay until they surface or make up half of the queue, as in
trio's `Deadlines`; the caller knows which numbers are alive. When a number comes back, for another
time or the same, its old entries may still be here: the due time that counts is kept beside the
wheels, for such numbers only.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence

NUMBER_BITS = 48
_NUMBER = (1 << NUMBER_BITS) - 1
_NEAR_SHIFT = NUMBER_BITS + 26  # 2**26 ns = 67 ms
_FAR_SHIFT = NUMBER_BITS + 33  # 2**33 ns = 8.6 s
_NEVER = 1 << 200  # later than any entry
_NO_TIME = -1  # no entry has it
_PRUNE_MIN = 1000  # fewer dead entries than this are not worth a sweep


class TimerQueue:
    """A priority queue of numbers by due time, with O(1) discard.

    Args:
        alive: The numbers that still count. A number must be added before its push, and removed
            when `pop_due` has returned it or before `discard` is called for it.
    """

    def __init__(self, alive: Container[int]) -> None:
        self._alive = alive
        self._far = _Wheel(_FAR_SHIFT)
        self._near = _Wheel(_NEAR_SHIFT)
        self._ripe = _Run([])
        self._late = _Run([])
        self._odd: list[int] = []  # late ones that came out of order: a heap
        self._again: dict[int, int] = {}  # numbers that came back, with the due times that count
        self._taken: list[int] = []  # numbers of `_again` that the current pop has found
        self._size = 0
        self._dead = 0

    def __len__(self) -> int:
        """Return how many numbers it holds, discarded ones not counted."""
        return self._size - self._dead

    def push(self, due: int, number: int) -> None:
        """Add a number.

        Args:
            due: Its due time in nanoseconds, 0 or more.
            number: 0 to 2**48 - 1, not in the queue.
        """
        self._push(due << NUMBER_BITS | number)

    def _push(self, entry: int) -> None:
        self._size += 1
        if entry >> _FAR_SHIFT > self._far.opened:
            self._far.add(entry)
        elif entry >> _NEAR_SHIFT > self._near.opened:
            self._near.add(entry)
        elif not self._late.extend([entry]):
            heapq.heappush(self._odd, entry)

    def push_many(self, dues: int | Sequence[int], numbers: Sequence[int]) -> None:
        """Add ascending numbers, with a due time each or one for all."""
        if not isinstance(dues, int):
            # A list first: if one is no time, none is pushed.
            pairs = zip(dues, numbers, strict=True)
            for entry in [due << NUMBER_BITS | number for due, number in pairs]:
                self._push(entry)
            return
        base = dues << NUMBER_BITS
        entries = [base | number for number in numbers]
        self._size += len(entries)
        # All have one due time, and so belong in one bucket.
        if base >> _FAR_SHIFT > self._far.opened:
            self._far.add(*entries)
        elif base >> _NEAR_SHIFT > self._near.opened:
            self._near.add(*entries)
        elif not self._late.extend(entries):
            for entry in entries:
                heapq.heappush(self._odd, entry)

    def push_again(self, dues: int | Sequence[int], numbers: Sequence[int]) -> None:
        """Add ascending numbers that were here before, whose old entries may still be here.

        Each was popped or discarded, and comes back with a due time of its own, or one for all.
        Once popped or discarded again, it is a number like any other.
        """
        if isinstance(dues, int):
            dues = [dues] * len(numbers)
        pairs = list(zip(dues, numbers, strict=True))
        for entry in [due << NUMBER_BITS | number for due, number in pairs]:
            self._push(entry)
        self._again.update((number, due) for due, number in pairs)

    def pop_due(self, now: int, limit: int) -> tuple[list[int], list[int]]:
        """Remove up to `limit` living numbers that are due at `now`, in order.

        Returns:
            The numbers, and their due times.
        """
        bound = (now + 1) << NUMBER_BITS  # entries below it are due
        found: list[int] = []  # entries
        while len(found) < limit:
            entries = self._take(bound, limit - len(found))
            if not entries and not self._open(bound):
                break
            found += self._surface(entries)
        for number in self._taken:  # no longer alive, and so none of its old entries counts
            del self._again[number]
        self._taken.clear()
        numbers = [entry & _NUMBER for entry in found]
        if found and found[0] >> NUMBER_BITS == found[-1] >> NUMBER_BITS:
            return numbers, [found[0] >> NUMBER_BITS] * len(found)
        return numbers, [entry >> NUMBER_BITS for entry in found]

    def next_look(self) -> int | None:
        """Return the time at which to call `pop_due` again; None for an empty queue.

        It is the due time of the first living entry if its bucket is open, else the start of the
        first bucket: early by a bucket's width at most, never late.
        """
        if not len(self):
            return None
        while (entry := min(self._heads())) != _NEVER:
            if self._counts(entry):
                return entry >> NUMBER_BITS
            self._surface(self._take(entry + 1, 1))
        wheel = self._near if self._near.order else self._far
        return wheel.start() >> NUMBER_BITS

    def discard(self) -> None:
        """Note that one number of the queue is no longer alive. Amortised O(1).

        When half of the entries are dead, they are swept out together
        (`test_cancelled_entries_do_not_pile_up`).
        """
        self._dead += 1
        if self._dead > _PRUNE_MIN and self._dead * 2 > self._size:
            self._prune()

    def _prune(self) -> None:
        self._ripe = _Run(self._living(self._ripe.rest()))
        self._late = _Run(self._living(self._late.rest()))
        self._odd = self._living(self._odd)
        heapq.heapify(self._odd)
        self._near.replace(self._living(self._near.entries()))
        self._far.replace(self._living(self._far.entries()))
        self._size -= self._dead
        self._dead = 0
        self._again.clear()  # no old entry is left
        self._taken.clear()

    def _heads(self) -> tuple[int, int, int]:
        """Return the first entry of each of the three opened sources, or _NEVER."""
        return self._ripe.first(), self._late.first(), self._odd[0] if self._odd else _NEVER

    def _take(self, bound: int, limit: int) -> list[int]:
        """Remove opened entries below `bound` from one source, up to the next of another.

        Runs are cut out whole where possible (`benchmarks/bench_queue.py`).
        """
        ripe, late, odd = self._heads()
        first = min(ripe, late, odd)
        if first >= bound:
            return []
        if first == odd:
            return [heapq.heappop(self._odd)]
        # A number that came back for its old time may have an equal entry in each source.
        if first == ripe:
            return self._ripe.take(max(first + 1, min(bound, late, odd)), limit)
        return self._late.take(min(bound, ripe, odd), limit)

    def _surface(self, entries: list[int]) -> list[int]:
        """Count removed entries, and return those that are alive."""
        if not self._dead and not self._again:
            self._size -= len(entries)
            return entries
        living = self._living(entries)
        self._size -= len(entries)
        self._dead -= len(entries) - len(living)
        return living

    def _living(self, entries: Iterable[int]) -> list[int]:
        alive, again = self._alive, self._again
        if not again:
            return [entry for entry in entries if entry & _NUMBER in alive]
        return [
            entry
            for entry in entries
            if (self._take_again(entry) if entry & _NUMBER in again else entry & _NUMBER in alive)
        ]

    def _counts(self, entry: int) -> bool:
        """Return whether an entry is alive, and not an old one of a number that came back."""
        number = entry & _NUMBER
        due = entry >> NUMBER_BITS
        return number in self._alive and self._again.get(number, due) == due

    def _take_again(self, entry: int) -> bool:
        """Return `_counts` for an entry that leaves, of a number in `_again`.

        Of equal entries only the first counts.
        """
        number = entry & _NUMBER
        counts = self._counts(entry)
        if counts:
            self._again[number] = _NO_TIME
            self._taken.append(number)
        elif self._again[number] == entry >> NUMBER_BITS:
            del self._again[number]  # discarded: the entry that counted leaves now
        return counts

    def _open(self, bound: int) -> bool:
        """Open the next bucket if it starts before `bound`; False if there is none."""
        if self._near.order:
            if self._near.start() >= bound:
                return False
            self._ripe = _Run(sorted(self._near.take()))
            return True
        if self._far.order and self._far.start() < bound:
            # Near buckets opened so far lie before this span, so every entry finds an unopened one.
            for entry in self._far.take():
                self._near.add(entry)
            return True
        return False


class _Run:
    """Entries in ascending order, read from the front."""

    def __init__(self, entries: list[int]) -> None:
        self._entries = entries
        self._read = 0

    def first(self) -> int:
        return self._entries[self._read] if self._read < len(self._entries) else _NEVER

    def rest(self) -> list[int]:
        return self._entries[self._read :]

    def extend(self, entries: list[int]) -> bool:
        """Append ascending entries; return False if they do not follow the last one."""
        own = self._entries
        if own and entries[0] <= own[-1]:
            return False
        own += entries
        return True

    def take(self, bound: int, limit: int) -> list[int]:
        """Remove and return up to `limit` entries below `bound`."""
        own, read = self._entries, self._read
        end = self._read = bisect_left(own, bound, read, min(len(own), read + limit))
        taken = own[read:end]
        if end == len(own) or (end > _PRUNE_MIN and end * 2 > len(own)):
            del own[:end]
            self._read = 0
        return taken


class _Wheel:
    """Unsorted buckets of one width, with the order of their starts."""

    def __init__(self, shift: int) -> None:
        self._shift = shift
        self._buckets: dict[int, list[int]] = {}
        self.order: list[int] = []  # a heap of the buckets' keys
        self.opened = -1  # the last key taken

    def add(self, entry: int, *more: int) -> None:
        """Add entries of one bucket."""
        key = entry >> self._shift
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = []
            heapq.heappush(self.order, key)
        bucket.append(entry)
        if more:
            bucket.extend(more)

    def start(self) -> int:
        return self.order[0] << self._shift

    def take(self) -> list[int]:
        self.opened = heapq.heappop(self.order)
        return self._buckets.pop(self.opened)

    def entries(self) -> Iterable[int]:
        for bucket in self._buckets.values():
            yield from bucket

    def replace(self, entries: Iterable[int]) -> None:
        entries = list(entries)
        self._buckets.clear()
        self.order.clear()
        for entry in entries:
            self.add(entry)
