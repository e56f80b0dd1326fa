"""The book of one worker's tasks: sent, asked, announced, ended. Pure.

    adopt, cancel, withdraw, reschedule ──► Book ─► frames (outbox), kept until the end (ledger)
    announced, proposed, unbegun, retried,   │
    ended, cancelled, died, close            └─► Change: tasks that have ended, change in pending

Rules of this file:

1. A task moves as `states.MOVES` says. If a frame has a number that cannot move so, the numbers
   before it are processed; it is named (`Change.refused`), and its worker must go.
2. A verb makes all its changes before it returns, and does not raise after the first of them.
   What follows for handles and counts is in its result.
3. A task counts as begun once it was announced and, if it was proposed, confirmed. If so, it goes
   to the next process only if the black box says that it has not begun; if not, it always does.
4. A task that was asked to cancel goes to no other process: it ends cancelled.
5. A withdrawal never ends a task that was announced: an announcement on its way wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .._scheduling.clock import LATEST
from .._scheduling.states import State
from .._transport import wire
from .._transport.definitionlog import DefinitionLog
from .._transport.entry import Entry
from .._transport.outbox import Outbox
from .._transport.wire import Kind, Payload, Record
from .announcements import Announcements
from .changes import Aliases, Change, by_scheduler, first_refused
from .durables import Durables
from .requests import Request, Requests


class Book:
    """The tasks of one worker's slot that have not ended, whichever process is in it.

    Args:
        schedulers: How many schedulers the worker has.
        timed: Whether tasks have due times; else they are in queues.
        log: The definitions.

    Attributes:
        outbox: Numbers the tasks and holds the frames to be sent.
        ledger: The tasks that were sent and have not ended.
        schedulers: How many schedulers the worker has.
        announcements: Those of them that were announced.
        durables: Keeps the durable tasks; None: there are none.
        closing: Whether tasks that end unasked were only stopped: durable ones stay.
    """

    def __init__(self, schedulers: int, timed: bool, log: DefinitionLog) -> None:
        self.outbox: Outbox = Outbox(log, schedulers)
        self.ledger = self.outbox.ledger
        self.schedulers = schedulers
        self.announcements: Announcements = Announcements(schedulers, timed, self.outbox)
        self.durables: Durables | None = None
        self.closing = False
        self._timed = timed
        self._asked: Requests = Requests()
        self._heads = self.announcements.heads
        self._aliases = Aliases()

    # ---- requests of the host; new tasks go straight to the outbox

    def adopt(
        self,
        scheduler: int,
        due: int,
        function: int,
        payload: Payload,
        record: Record,
        alias: int,
    ) -> int:
        """Add a task that has been given a number already, its alias.

        Returns:
            Its number here.
        """
        record = wire.make_record(wire.read_record(record)._replace(alias=alias))
        number = self.outbox.add(scheduler, due, function, payload, record)
        self._aliases.add(alias, number)
        return number

    def cancel(self, scheduler: int, number: int) -> Change | None:
        """Ask for a task's cancellation, begun or not; return None if it has ended."""
        if self.outbox.scheduler(number) != scheduler:
            return None
        asked = self._asked.get(number)
        if asked is Request.CANCEL:
            return Change(scheduler)
        self._asked[number] = Request.CANCEL
        self.outbox.request(Kind.CANCEL, scheduler, number)
        waits = asked is not Request.WITHDRAW and self.state(number) is State.PENDING
        return Change(scheduler, -waits)

    def withdraw(self, scheduler: int, number: int) -> Change | None:
        """Ask that a task end before it is announced; return None if it was, or has ended."""
        if not self._is_waiting(scheduler, number):
            return None
        asked = self._asked.get(number)
        if isinstance(asked, Request):
            return Change(scheduler)
        self._asked[number] = Request.WITHDRAW
        if asked is None:
            self.outbox.request(Kind.WITHDRAW, scheduler, number)
        return Change(scheduler, -1)

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        """Ask that a task start at another time.

        If it was sent, its worker must withdraw it first; it is then sent again.

        Returns:
            Whether that is possible: as far as is known it has neither been announced nor ended,
            and nobody has asked for its end.
        """
        asked = self._asked.get(number)
        if not self._is_waiting(scheduler, number) or isinstance(asked, Request):
            return False
        if self.durables is not None:
            self.durables.moved(number, due)
        if number in self.outbox.loose:
            self.outbox.change_due(number, due)
            return True
        self._asked[number] = due
        if asked is None:
            self.outbox.request(Kind.WITHDRAW, scheduler, number)
        return True

    def _is_waiting(self, scheduler: int, number: int) -> bool:
        known = self.outbox.scheduler(number) == scheduler
        return known and self.state(number) is State.PENDING

    # ---- queries

    def number_of(self, number: int) -> int:
        """Return a task's number, given its number or its alias."""
        return self._aliases.number_of(number)

    def alias_of(self, number: int) -> int:
        """Return a task's alias, or its number if it has none."""
        return self._aliases.alias_of(number)

    def state(self, number: int) -> State:
        """Return PENDING or RUNNING for a task that has not ended."""
        return self.ledger.state(number) or State.PENDING  # if it is in no frame yet

    def find(self, number: int) -> Entry | None:
        """Return the entry of a task that has not ended, with requests applied."""
        entry = self.outbox.find(number) or self.ledger.find(number)
        return None if entry is None else self._asked.apply(number, entry)

    def read(self, numbers: Sequence[int]) -> dict[int, Entry]:
        """Return the entries of tasks that were sent and have not ended, as `find` does.

        Pending tasks that were asked to end are left out.
        """
        entries = self.ledger.read(numbers)
        if self._asked:
            for number in entries.keys() & self._asked.keys():
                if self._asked.ends(number) and self.state(number) is State.PENDING:
                    del entries[number]
                else:
                    entries[number] = self._asked.apply(number, entries[number])
        return entries

    # ---- reports of the worker

    def announced(self, scheduler: int, numbers: list[int]) -> Change:
        """Note that the worker has announced tasks: they may have begun."""
        known, change = self._start(scheduler, numbers)
        if self.durables is not None:
            self.durables.announced(numbers[:known])
        self.announcements.announced(scheduler, numbers[:known])
        return change

    def _start(self, scheduler: int, numbers: list[int]) -> tuple[int, Change]:
        known = self.ledger.move(numbers, State.RUNNING)
        waiting = known
        if self._asked:
            for number in numbers[:known]:
                asked = self._asked.get(number)
                waiting -= isinstance(asked, Request)
                if asked is not Request.CANCEL:  # the announcement was on its way, and wins
                    self._asked.pop(number, None)
        return known, Change(scheduler, -waiting, refused=first_refused(numbers, known))

    def proposed(self, scheduler: int, numbers: list[int]) -> Change:
        """Note that the worker has announced tasks that begin on our CONFIRM.

        It gets that at once, or when `durables` allows it; never if a number was refused.
        """
        known, change = self._start(scheduler, numbers)
        begin = self.announcements.proposed(scheduler, numbers[:known])
        if change.refused is None:
            if self.durables is None:
                begin()
            else:  # the worker itself knows those that must no longer begin
                self.durables.proposed(numbers, lambda _: begin())
        return change

    def unbegun(self, scheduler: int, numbers: list[int]) -> Change:
        """Note that announced tasks have not begun."""
        known = self.ledger.move(numbers, State.PENDING)
        if self.durables is not None:
            self.durables.unbegun(numbers[:known])
        waiting = known - self._asked.count_ending(numbers[:known])
        return Change(scheduler, waiting, refused=first_refused(numbers, known))

    def retried(self, scheduler: int, numbers: list[int], waits: list[int], now: int) -> Change:
        """Note that tasks have failed, and start once more after `waits`, in nanoseconds from now.

        A timed worker has forgotten them. A queue's worker keeps the task at its head, and so does
        the next process, which recognizes it by its due time.
        """
        good = next((i for i, n in enumerate(numbers) if not self._runs(n)), len(numbers))
        entries = self.ledger.read(numbers[:good])
        # These were asked to cancel, and no process has them now.
        cancelled = [n for n in entries if n in self._asked] if self._timed else []
        if not self._timed:
            self._heads.update(numbers[:good])
        until = {n: min(now + wait, LATEST) for n, wait in zip(numbers, waits, strict=True)}
        again = {
            number: entry.retry(until[number], self._timed)
            for number, entry in entries.items()
            if number not in cancelled
        }
        self.outbox.amend(again, send=self._timed)
        if self.durables is not None:
            self.durables.retried({number: until[number] for number in again})
        known = self.ledger.move(numbers[:good], State.PENDING)
        waiting = known - self._asked.count_ending(numbers[:known])
        self.ledger.move(cancelled, State.CANCELLED)
        self._asked.forget(cancelled)
        return Change(scheduler, waiting, cancelled, refused=first_refused(numbers, known))

    def ended(self, scheduler: int, numbers: list[int], state: State) -> Change:
        """Note that tasks have ended."""
        known = self.ledger.move(numbers, state)
        ended = numbers if known == len(numbers) else numbers[:known]
        self._asked.forget(ended)
        return Change(scheduler, 0, ended, state, refused=first_refused(numbers, known))

    def cancelled(self, scheduler: int, numbers: list[int]) -> list[Change]:
        """Note that tasks were cancelled, or have not begun and now never will.

        Durable ones that were only stopped stay for the next host or, if in doubt, are lost.
        """
        waiting = 0
        refused = None
        ends: dict[State, list[int]] = {State.KEPT: [], State.LOST: [], State.CANCELLED: []}
        moved = self._asked.moves(numbers) if self._asked else {}
        self._amend_moved(moved, send=True)
        for number in numbers:
            if number in moved:
                self._asked.pop(number, None)
                continue
            before = self.ledger.state(number)
            end = State.CANCELLED
            if self.closing and self.durables is not None and not self._asked.ends(number):
                if self.durables.stays(number, before is State.RUNNING):
                    end = State.KEPT
                elif before is State.RUNNING and self.durables.all_durable((number,)):
                    end = State.LOST
            if not self.ledger.move((number,), end):
                refused = number
                break
            waiting += before is State.PENDING and number not in self._asked
            ends[end].append(number)
        ended = ends.pop(State.CANCELLED)
        self._asked.forget(ended)
        if self._heads:
            self._heads.difference_update(ended, *ends.values())
        changes = [Change(scheduler, 0, own, state) for state, own in ends.items() if own]
        return [*changes, Change(scheduler, -waiting, ended, refused=refused)]

    def _stays(self, number: int, running: bool) -> bool:
        """Whether a task stays for the next host, as it is only stopped here."""
        if self.durables is None or self._asked.ends(number):
            return False
        return self.durables.stays(number, running)

    # ---- from one process to the next

    def died(self, begun: Sequence[tuple[int, int] | None]) -> list[Change]:
        """Note that the process is gone: announced tasks that have not begun are pending again.

        Args:
            begun: The tasks that each scheduler began last; see `WorkerHandle.begun`.
        """
        announcements = self.announcements
        changes = [self._unstart(*announced) for announced in announcements.unconfirmed]
        for scheduler, words in enumerate(begun):
            for last, unbegun in announcements.unbegun(scheduler, words) if words else ():
                if unbegun is not None:
                    changes.append(self._unstart(scheduler, unbegun))
                elif self.ledger.state(last) is State.PENDING:
                    # It has begun but was not announced: announcements were lost, and every
                    # announced task may have begun.
                    changes.append(self.announced(scheduler, [last]))
        announcements.clear()
        return changes + self.drop_asked()

    def _unstart(self, scheduler: int, numbers: Sequence[int]) -> Change:
        return self.unbegun(scheduler, [number for number in numbers if self._runs(number)])

    def _runs(self, number: int) -> bool:
        return self.ledger.state(number) is State.RUNNING

    def drop_asked(self) -> list[Change]:
        """Carry out the requests that no process is left to answer: end tasks, or move them."""
        self.outbox.pack()
        moved = self._asked.moves(self._asked)
        self._amend_moved(moved, send=False)
        ending = sorted(number for number in self._asked if number not in moved)
        self._asked.clear()
        return self._end(ending, State.CANCELLED)

    def lose(self, scheduler: int, number: int) -> list[Change]:
        """End a task that had begun in a process that is gone, and must not start again.

        Do nothing if no such task runs there.

        Args:
            scheduler: Its scheduler.
            number: Its number, or its alias.
        """
        number = self.number_of(number)
        known = self._runs(number) and self.ledger.scheduler(number) == scheduler
        return self._end([number], State.LOST) if known else []

    def sort_running(self, rerun: bool) -> list[Change]:
        """Decide which tasks that had begun in a process that is gone start again; end the rest.

        Args:
            rerun: Whether tasks that are not durable start again.
        """
        lost, confirmed = [], {}
        numbers = list(self.ledger.running_numbers())
        if self.durables is not None:
            again = [n for n in numbers if self.durables.runs_again(n, rerun)]
            kept = set(again)
            lost = [n for n in numbers if n not in kept]
            confirmed = {n: self.durables.confirmed_again(n) for n in again}
        elif rerun:
            again = numbers
        else:
            again, lost = [], numbers
        entries = self.ledger.read(again)
        self.outbox.amend({n: e.rerun(confirmed.get(n, 0)) for n, e in entries.items()}, send=False)
        self.ledger.move(again, State.PENDING)
        waiting = [Change(s, len(own)) for s, own in by_scheduler(self.ledger, again).items()]
        return waiting + self._end(lost, State.LOST)

    def _end(self, numbers: Sequence[int], state: State) -> list[Change]:
        changes = []
        for scheduler, own in by_scheduler(self.ledger, numbers).items():
            self.ledger.move(own, state)
            changes.append(Change(scheduler, 0, own, state))
        return changes

    def close(self, lost: bool) -> Iterator[tuple[Sequence[int], State, bool]]:
        """End every task: there will be no further process.

        Tasks that were asked to end are cancelled; of the others, running ones are lost, and
        pending ones, too, if `lost`.

        Yields:
            Tasks that have ended alike, how, and whether they had been announced.
        """
        self.announcements.clear()
        state = State.LOST if lost else State.CANCELLED
        plain = not self._asked and self.durables is None
        for row in list(self.ledger.pending_rows()):  # maybe millions: a tenth of the cost
            if plain or not any(n in self._asked or self._stays(n, False) for n in row):
                self.ledger.move(row, state)
                yield row, state, False
        for number in [*self.ledger, *self.outbox.loose]:  # loose if they could not be packed
            runs = self._runs(number)
            stays = self._stays(number, runs)
            asked = isinstance(self._asked.pop(number, None), Request)
            ends = State.CANCELLED
            if stays:
                ends = State.KEPT
            elif (runs or lost) and not asked:
                ends = State.LOST
            self.ledger.move((number,), ends)
            yield (number,), ends, runs

    # ---- inside

    def forget(self, numbers: Sequence[int]) -> None:
        """Forget the aliases of tasks whose ends have been reported to everybody."""
        self._aliases.forget(numbers)

    def _amend_moved(self, moved: dict[int, int], send: bool) -> None:
        entries = self.ledger.read(moved)
        self.outbox.amend({n: entry.move(moved[n]) for n, entry in entries.items()}, send)
