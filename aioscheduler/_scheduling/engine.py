"""The scheduler core: takes due entries from a queue and runs them, in slices.

It serves in the user's process and inside a worker, and so knows nothing of coroutines, handles
or frames: an entry is opaque, and the `Runner` knows how to run it.

    add ─► waiting + queue ─(due)─► runner.launch(slice) ─► run ─► runner.execute ─► running ─► end
                 │  ▲                     a worker announces the slice here           │
                 │  └──────────── rest: a queue's head, until its next attempt ◄──────┘
                 └─ cancel: withdrawn, never started

A slice is the entries started in one turn of the loop (`pace`). If concurrency is limited, only as
many are launched as may run; one that ends at once is followed at once. Queues may launch ahead.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Context, copy_context
from functools import partial
from typing import Generic, TypeVar

from .alarm import Alarm
from .holdback import HoldBack
from .lateness import Recorder
from .order import Order
from .pace import MAX_SLICE, SLICE_TIME, Pace
from .runner import Runner
from .running import EAGER, Running

E = TypeVar("E")


class Engine(Generic[E]):
    """Runs entries at their due times on one loop.

    Args:
        index: The index of this scheduler in its worker.
        order: The order in which entries run.
        runner: Runs the entries.
        recorder: Records how late timed entries start.
        clock: Returns the present in nanoseconds since the epoch.
        context_of: Returns the context that an entry's task uses as its own; None: each uses a
            copy of the context in which the engine was started.
        max_running: How many timed entries may run at a time; None for any number.

    Attributes:
        waiting: Entries that have not been launched, by number.
        running: Entries that have begun and not ended, with their asyncio tasks.
        concurrency: How many entries may run at a time; None for any number.
        ahead: How many entries of a queue may be launched together; if 1, none while one runs.
    """

    def __init__(
        self,
        index: int,
        order: Order,
        runner: Runner[E],
        recorder: Recorder,
        clock: Callable[[], int] = time.time_ns,
        context_of: Callable[[E], Context] | None = None,
        max_running: int | None = None,
    ) -> None:
        self.index = index
        self.waiting: dict[int, E] = {}
        self.running: Running[E] = Running(self._report_unbegun)
        self.ahead = 1
        self._launched: dict[int, E] = {}  # handed to the runner, not yet run
        self._slices = 0  # between `launch` and their last `run`
        # Announced entries, in order, as iterators over numbers and due times; a queue's singly.
        self._to_run: deque[Iterator[tuple[int, int]]] = deque()
        self._ready: deque[tuple[int, int]] = deque()  # left out of their slices; to be launched
        self._head: tuple[int, int] | None = None  # a queue's resting head, and until when it rests
        self._next_run: asyncio.Handle | None = None
        self._order = order
        self.concurrency = order.concurrency or max_running
        self._queue = order.make_queue(self.waiting)
        self._runner = runner
        self._recorder = recorder
        self._clock = clock
        self._context_of = context_of
        self._base = Context()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None  # None: not started, or stopped
        self._sleeper = self._wake  # one object, as the alarm's key
        self._waking = False
        self._hold_back = HoldBack(self.wake_soon)
        self._looks_at: int | None = None  # an entry due earlier wakes us; None: every entry does
        self._pace = Pace()
        self._left = 0  # entries that may still be launched in this turn of the loop

    @property
    def pending(self) -> int:
        """The number of entries that have not started and were not cancelled."""
        return len(self.waiting) + len(self._launched)

    def find(self, number: int) -> E | None:
        """Return an entry that has not ended, else None."""
        return self.running.find(number) or self.waiting.get(number) or self._launched.get(number)

    def replace(self, number: int, entry: E) -> None:
        """Replace an entry that has not begun."""
        (self.waiting if number in self.waiting else self._launched)[number] = entry

    def numbers(self) -> tuple[list[int], ...]:
        """Return the numbers of all entries that have not ended; joining the lists is slow."""
        return list(self.waiting), list(self._launched), self.running.numbers()

    def start(self, loop: asyncio.AbstractEventLoop, alarm: Alarm) -> None:
        """Begin to run due entries."""
        self._loop, self._alarm = loop, alarm
        self._base = copy_context()
        self.wake_soon()

    def stop(self) -> tuple[dict[int, E], dict[int, E]]:
        """Start no more entries; running ones go on.

        Returns:
            The entries that had been launched and not run, and those that were waiting.
        """
        if self._alarm is not None:
            self._alarm.set(self._sleeper, None)
            self._alarm = None
        dropped = self._launched, self.waiting
        self._launched, self.waiting, self._head = {}, {}, None
        self._to_run.clear()
        self._ready.clear()
        self._queue = self._order.make_queue(self.waiting)
        return dropped

    def drop_slice(self) -> None:
        """Start no more entries, even in the middle of a slice: this is a forked child's copy."""
        self._left = 0
        self._to_run.clear()
        self._launched.clear()

    def add(self, number: int, due: int, entry: E) -> None:
        """Accept an entry; numbers must ascend, and times are nanoseconds since the epoch."""
        self.waiting[number] = entry
        self._queue.push(due, number)
        self._look_at(due)

    def add_many(
        self, numbers: Sequence[int], dues: int | Sequence[int], entries: Iterable[E]
    ) -> None:
        """Accept entries with ascending numbers, and a due time each or one for all.

        It costs a third of adding them singly (`benchmarks/bench_throughput.py`).
        """
        self.waiting.update(zip(numbers, entries, strict=True))
        try:
            self._queue.push_many(dues, numbers)
        except BaseException:
            for number in numbers:  # the queue does not have them
                self.waiting.pop(number, None)
            raise
        self._look_at(dues)

    def add_again(
        self, numbers: Sequence[int], dues: int | Sequence[int], entries: Iterable[E]
    ) -> None:
        """Accept entries as `add_many` does, with numbers that were here before and have left."""
        self._queue.push_again(dues, numbers)
        self.waiting.update(zip(numbers, entries, strict=True))
        self._look_at(dues)

    def _look_at(self, dues: int | Sequence[int]) -> None:
        earliest = dues if isinstance(dues, int) else min(dues)
        if not self._waking and (self._looks_at is None or earliest < self._looks_at):
            self._look_again()

    def cancel(self, number: int) -> bool:
        """Withdraw an entry that has not begun, or cancel a running one; False if it is neither."""
        if (unbegun := self.withdraw(number, launched=True)) is not None:
            self._runner.withdrawn(self, number, unbegun)
        elif self.running.find(number) is not None:
            self.running.cancel(number)
        else:
            return False
        return True

    def withdraw(self, number: int, launched: bool = False) -> E | None:
        """Remove an entry that waits or, if `launched`, has not begun, unreported; None if none."""
        entry = self.waiting.pop(number, None)
        is_head = self._head is not None and self._head[0] == number
        if entry is not None and not is_head:
            self._queue.discard()
            return entry
        if entry is None and launched:
            entry = self._launched.pop(number, None)
        if entry is None:
            return None
        if is_head:
            self._head = None
        if self.concurrency is not None:  # it may have taken up room
            self.wake_soon()
        return entry

    def ready(self, number: int, due: int) -> None:
        """Launch an entry that the runner had left out of its slice, together with others."""
        self._ready.append((number, due))
        self.wake_soon()

    def run(self, numbers: list[int], dues: list[int], ends: bool = True) -> None:
        """Start the entries of a launched slice, in this order and after those of earlier calls.

        Entries that were cancelled meanwhile are left out. One part of a slice `ends` its launch:
        once that part has begun, more entries are launched.
        """
        self._slices -= ends and self._slices > 0
        slice_ = zip(numbers, dues, strict=True)
        if self._order is Order.TIMED:  # there is room for all of it
            self._to_run.append(slice_)
        elif self._head is not None and numbers == [self._head[0]]:
            self._head = None
            self._to_run.appendleft(slice_)
        else:
            self._to_run.extend(iter((single,)) for single in slice_)
        if self._next_run is None:
            self._run_some()

    def _run_some(self) -> None:
        self._next_run = None
        if not self._hold_back.active:  # else `_launch_due` goes on later
            # We may be called in a task's step or callback, whose context variables are its own.
            self._guard(partial(self._base.copy().run, self._run_slice))

    def _guard(self, step: Callable[[], None]) -> None:
        """Take a step; if it raises, for lack of memory say, launched entries go to the runner."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  whatever it is
            broken, self._launched = self._launched, {}
            self._to_run.clear()
            self._slices = self._left = 0
            self._runner.broken(self, error, broken)

    def _run_slice(self) -> None:
        clock, loop, execute = self._clock, self._loop, self._runner.execute
        context_of, base, to_run = self._context_of, self._base, self._to_run
        running = self.running
        started: list[int] = []  # due times
        first = last = now = clock()
        self._pace.begin(first)
        while to_run and not self._is_full():
            slice_ = to_run.popleft()
            for number, due in slice_:
                entry = self._launched.pop(number, None)
                if entry is None:  # cancelled meanwhile
                    continue
                started.append(due)
                last = now
                coro = None
                try:
                    context = base.copy() if context_of is None else context_of(entry)
                    coro = context.run(execute, self, number, entry, due)
                    if coro is not None:
                        running.begin(number, entry, coro, loop, context)
                except Exception:
                    if coro is not None:
                        coro.close()
                    self._launched[number] = entry
                    raise
                now = clock()
                if now - first > SLICE_TIME:
                    to_run.appendleft(slice_)  # the iterator goes on from here
                    break
            else:
                continue
            break
        # A raised error holds this frame by its traceback, and an entry holds its handle.
        entry = coro = context = None  # type: ignore[assignment]
        if started and self._order is Order.TIMED:
            if EAGER or loop is None:
                self._recorder.record(started, first, last)
            else:  # their first steps come in the loop's next turn, just before this call
                loop.call_soon(self._recorder.record_until, started, now, clock)
        if not (to_run or self._slices):
            self._look_again()
        elif to_run and loop is not None and not self._is_full():  # else `ended` wakes it
            self._next_run = loop.call_soon(self._run_some)

    def _is_full(self) -> bool:
        """Return whether no more may begin: all room is taken, or a queue's head comes first."""
        if self.concurrency is None:
            return False
        return self._head is not None or len(self.running) >= self.concurrency

    def _room(self, most: int) -> int:
        """Return how many entries may be launched, up to `most`."""
        if self.concurrency is None:
            return most
        room = self.concurrency - len(self.running) if self.ahead == 1 else self.ahead
        return min(most, room - len(self._launched))

    def ended(self, number: int) -> None:
        """Note that an entry has ended, and make room for the next; called by the runner."""
        self.running.end(number)
        if self.concurrency is not None:
            self.wake_soon()

    def rest(self, number: int, entry: E, until: int) -> None:
        """Keep an entry that has begun at the head of its queue: nothing else begins before it.

        It is launched again when its rest is over, and may be cancelled or withdrawn meanwhile.

        Args:
            number: The number of an executed entry that has not ended.
            entry: The entry to launch then.
            until: When the rest is over, in nanoseconds since the epoch.
        """
        self.waiting[number] = entry
        self._head, self._left = (number, until), 0
        self.ended(number)

    def was_cancelled(self, number: int) -> None:
        """Note that a running entry ends by cancellation; called by the runner in a user's loop.

        If it was not requested here, no entry is started until it is clear that the loop goes on.
        """
        if not self.running.was_cancelled(number) and self._loop is not None:
            self._left = 0
            self._hold_back.begin(self._loop)

    def _report_unbegun(self, number: int, entry: E) -> None:
        self._runner.withdrawn(self, number, entry)
        self.ended(number)

    def wake_soon(self) -> None:
        """Look for due entries in the loop's next turn."""
        if self._alarm is not None and not self._waking and self._loop is not None:
            self._waking = True
            self._loop.call_soon(self._wake)

    def _look_again(self) -> None:
        """Sleep until the queue is worth a look, or wake at the next turn of the loop."""
        if self._alarm is None:
            return
        look: int | None = None  # without room, an end wakes us,
        self._looks_at = 0  # and a new entry does not
        if self._ready:
            look = 0
        elif self._head is not None:
            number, until = self._head
            look = until if number in self.waiting else None
        elif self._room(1) > 0:
            look = self._looks_at = self._queue.next_look()
        if look is not None and look <= self._clock():
            self.wake_soon()
        else:
            self._pace.pause()
            self._alarm.set(self._sleeper, look)

    def _wake(self) -> None:
        self._waking = False
        self._guard(self._launch_due)

    def _launch_due(self) -> None:
        if self._alarm is None or self._hold_back.active:
            return
        now = self._clock()
        is_launching = self._slices or self._to_run
        if self._ready and not is_launching:  # a queue's head may be among them
            some = [self._ready.popleft() for _ in range(min(MAX_SLICE, len(self._ready)))]
            living = [pair for pair in some if pair[0] in self._launched]
            self._slices += 1
            self._runner.launch(self, [number for number, _ in living], [due for _, due in living])
        elif self._head is not None:
            number, until = self._head
            if number in self.waiting and until <= now:
                self._launched[number] = self.waiting.pop(number)
                self._slices += 1
                self._runner.launch(self, [number], [0])
            else:  # it rests, or has been launched
                self._look_again()
        elif self._to_run and self._next_run is None:  # a queue may go on, or it was held back
            self._run_some()
        elif not is_launching:  # otherwise `run` looks again
            self._launch_slice(now)

    def _launch_slice(self, began: int) -> None:
        """Launch due entries; repeat while the launched ones end at once and make room."""
        now, self._left = began, self._pace.next_length(began)
        while (room := self._room(self._left)) > 0:
            numbers, dues = self._queue.pop_due(now, room)
            if not numbers:
                self._look_again()
                return
            self._launched.update(zip(numbers, map(self.waiting.pop, numbers), strict=True))
            self._left -= len(numbers)
            self._slices += 1
            self._runner.launch(self, numbers, dues)
            if self.concurrency is None or self._slices or self._to_run or not self._waking:
                return
            now = self._clock()
            if now - began > SLICE_TIME:
                return
