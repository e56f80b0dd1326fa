"""Due tasks are announced before they begin, once their arguments are here.

    engine.launch ─┬─► ANNOUNCED ── in the pipe ─────────────────► engine.run
                   ├─► PROPOSED ── CONFIRM, the host's own word ─► engine.run
                   └─► held back until its BLOB is here: then engine.ready ─► engine.launch

A slice is announced before the first of its bytes is decoded, and begins once the announcement is
in the pipe, where it survives this process. So a task that the host has not heard of has not begun.
If a process may live on after it was given up, or a start must be on record first, that is not
enough: such tasks are proposed, and begin when the host confirms that it has entered them. Timed
tasks that need not wait pass them. A queue keeps its order: those behind one in its slice wait too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.few import MOST, Few
from aioscheduler._scheduling.order import Order
from aioscheduler._transport import wire
from aioscheduler._transport.pipe import Pipe
from aioscheduler._transport.wire import Kind, Payload

from .turn import Turn

Entry = tuple["int | bytes", Payload, wire.Record]
"""A task as received: the function's number or pickle, the payload or IN_BLOB, and the record."""

_Slice = tuple[Engine[Entry], list[int], list[int]]


class Announcer:
    """Announces slices, and keeps large payloads until their tasks begin.

    Args:
        pipe: The pipe to the host.
        turn: Writes the frames sent.
        order: The order of the engines.
        confirmed: Whether every task waits for CONFIRM.

    Attributes:
        engines: The schedulers, once they are made.
    """

    def __init__(self, pipe: Pipe, turn: Turn, order: Order, confirmed: bool) -> None:
        self.engines: Sequence[Engine[Entry]] = ()
        self._pipe = pipe
        self._turn = turn
        self._order = order
        self._all = confirmed
        self._blobs: dict[int, bytes | None] = {}  # None: there was no memory for it
        self._expected: set[int] = set()  # tasks whose blob is not here yet
        self._late: dict[int, tuple[Engine[Entry], int]] = {}  # those of them that are due
        self._some: dict[int, int] = {}  # tasks that need CONFIRM, if not all do: 1, ALONE, FEW
        self._few = Few()
        self._alone = 0  # how many of them are ALONE
        self._lone: dict[int, int] = {}  # by queue, the ALONE task that was proposed last
        # Proposed slices by index, each with the number of its FEW tasks.
        self._proposed: dict[int, tuple[_Slice, int]] = {}
        self._next = 0  # index

    def expect(
        self,
        numbers: Sequence[int],
        records: wire.Record | list[wire.Record],
        payloads: list[Payload],
    ) -> None:
        """Note which tasks of a frame lack their payloads, or need CONFIRM."""
        if list in map(type, payloads):
            pairs = zip(numbers, payloads, strict=True)
            self._expected.update(number for number, payload in pairs if isinstance(payload, list))
        if isinstance(records, list):
            for number, record in zip(numbers, wire.column(records, len(numbers)), strict=True):
                if confirmed := wire.confirmed_of(record):
                    self._wait(number, confirmed)
        self._set_ahead()

    def take_blob(self, number: int, payload: bytes | None) -> None:
        """Accept a large payload; None: there is no memory for it."""
        if number in self._expected:
            self._expected.remove(number)
            self._blobs[number] = payload
            self._set_ahead()
            if number in self._late:
                engine, due = self._late[number]
                engine.ready(number, due)

    def pop_blob(self, number: int) -> bytes:
        """Return the payload that came as a blob.

        Raises:
            MemoryError: There was no memory for it.
        """
        payload = self._blobs.pop(number)
        if payload is None:
            raise MemoryError("this worker has no memory for the task's arguments")
        return payload

    def forget(self, number: int) -> None:
        """Drop what is kept of a task that will not begin."""
        self._expected.discard(number)
        if self._wait_no_more(number) == wire.FEW:
            self._few.forget(number)
        self._blobs.pop(number, None)
        self._late.pop(number, None)
        self._set_ahead()

    def stop(self) -> None:
        """Announce no more tasks, even if their blobs arrive: the engines have been stopped."""
        self._late.clear()
        self._expected.clear()
        self._few.stop()

    def confirm_again(self, number: int, confirmed: int) -> None:
        """Make a task that has begun wait for CONFIRM at its next attempt, too."""
        self._wait(number, confirmed)
        self._set_ahead()

    def is_held_back(self, number: int) -> bool:
        """Return whether a launched task waits for its blob or its turn, and was not announced."""
        return number in self._late or number in self._few

    def launch(self, engine: Engine[Entry], numbers: list[int], dues: list[int]) -> None:
        """Announce a slice, without the tasks whose blobs are not here yet."""
        if self._expected and not self._expected.isdisjoint(numbers):
            slice_ = dict(zip(numbers, dues, strict=True))
            for number in self._expected.intersection(numbers):
                self._late[number] = engine, slice_.pop(number)
            numbers, dues = list(slice_), list(slice_.values())
        if self._late:
            for number in numbers:
                self._late.pop(number, None)
        self._announce(engine, numbers, dues)

    def confirm(self, indices: list[int]) -> None:
        """Begin proposed slices, by the indices of their PROPOSED frames of this process, from 0.

        Raises:
            wire.WireError: A slice was not proposed, or is confirmed for the second time.
        """
        for index in indices:
            if index not in self._proposed:
                raise wire.WireError(f"proposal {index!r:.80} is confirmed, and does not wait")
            (engine, numbers, dues), few = self._proposed.pop(index)
            engine.run(numbers, dues, ends=self._order is not Order.TIMED)
            if few:  # released tasks are launched in another turn, behind the first steps of these
                self._few.began(engine, few)

    def _announce(self, engine: Engine[Entry], numbers: list[int], dues: list[int]) -> None:
        if not numbers:
            engine.run(numbers, dues)
            return
        if self._lone.pop(engine.index, None) is not None:  # it has ended
            self._set_ahead()
        if engine.concurrency is not None:
            self._turn.pack()  # the ends that made room come first
        if self._all or (self._some and not self._some.keys().isdisjoint(numbers)):
            self._announce_parts(engine, numbers, dues)
        else:
            self._announce_plain(engine, numbers, dues)
        self._turn.write_soon()
        if engine.concurrency is not None:
            self._pipe.flush()  # so that a task that ends at once is followed at once

    def _announce_parts(self, engine: Engine[Entry], numbers: list[int], dues: list[int]) -> None:
        """Announce a slice with at least one task that needs CONFIRM."""
        timed = self._order is Order.TIMED
        plain: tuple[list[int], list[int]] = [], []
        waiting: tuple[list[int], list[int]] = [], []
        few = 0
        for number, due in zip(numbers, dues, strict=True):
            if timed and self._some.get(number) == wire.FEW:
                if not self._few.take(engine, number, due):
                    continue
                few += 1
            confirmed = self._wait_no_more(number) or self._all
            if confirmed == wire.ALONE:
                if timed:
                    self._propose(engine, [number], [due])
                    continue
                self._lone[engine.index] = number
            part = waiting if confirmed or (waiting[0] and not timed) else plain
            part[0].append(number)
            part[1].append(due)
        self._set_ahead()
        if plain[0]:
            self._announce_plain(engine, *plain, ends=timed)
        elif timed:
            engine.run([], [])  # the next slice need not wait
        if waiting[0]:
            self._propose(engine, *waiting, few)

    def _announce_plain(
        self, engine: Engine[Entry], numbers: list[int], dues: list[int], ends: bool = True
    ) -> None:
        announcement = wire.encode([Kind.ANNOUNCED, engine.index, numbers])
        self._pipe.send(announcement, partial(engine.run, numbers, dues, ends))

    def _propose(
        self, engine: Engine[Entry], numbers: list[int], dues: list[int], few: int = 0
    ) -> None:
        self._proposed[self._next] = (engine, numbers, dues), few
        self._next += 1
        self._pipe.send(wire.encode([Kind.PROPOSED, engine.index, numbers]))

    def _wait(self, number: int, confirmed: int) -> None:
        self._some[number] = confirmed
        self._alone += confirmed == wire.ALONE

    def _wait_no_more(self, number: int) -> int:
        confirmed = self._some.pop(number, 0)
        self._alone -= confirmed == wire.ALONE
        return confirmed

    def _set_ahead(self) -> None:
        """Let a queue launch ahead if tasks need CONFIRM, and no payload or ALONE task is pending.

        Otherwise it announces one task at a time: an announced task has started, to the user; none
        may overtake a late payload; and none may be announced ahead of an ALONE task, or with it.
        """
        if self._order is Order.FIFO:
            several = bool(self._all or self._some)
            several = several and not (self._expected or self._alone or self._lone)
            for engine in self.engines:
                engine.ahead = MOST if several else 1
