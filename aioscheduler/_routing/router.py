"""Where tasks go: due time, place, call, link. The manager's work, without its life.

    schedule(work(1), when)
        │ due time      (order.due_time)
        │ place         (placement; limits are held here)
        │ call          (`link.Shipper.take`: function, payload, options)
        ▼
      link.schedule ─► handle

Many calls of one function go by way of `submission`, what tasks ask for by way of `hostupstream`,
and the tasks of a store by way of `admission`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from threading import get_ident
from typing import Any

from .. import registry
from .._scheduling.coroutines import close_refused, close_unstarted
from .._scheduling.loopthread import LoopThread, Waiters
from .._scheduling.order import Order, due_time, new_due_time
from .._shipping.propagation import Captured, Propagation
from ..errors import ManagerClosed, UnknownTask
from ..options import Options, TaskOptions, read_id, read_options
from ..registry import Durable, read_durable_options
from ..task import State, Task, TaskRef, check_ref
from .bulk import Whens, read_dues
from .drafts import Draft
from .ids import Address, Forgotten, Ids
from .keeper import Keeper
from .link import Link
from .placement import Placement
from .shelf import Shelf


class Router:
    """Places tasks on links and counts them.

    Args:
        manager: The manager's id.
        order: Of the schedulers.
        prefer_utc: What a naive datetime means.
        placement: Chooses, counts and limits.
        loop_thread: Where calls are right.
        propagation: What goes with each task of the context of its `schedule`, if anything does.
        clock: Gives the present in nanoseconds since the epoch.

    Attributes:
        closed: Why nothing is accepted any more; None while it is.
        links: One for each worker; set before the first task.
        order: Of the schedulers.
        ids: Of its tasks.
        keeper: Has the file of its durable tasks; None: there is none, and they are as others.
    """

    def __init__(
        self,
        manager: str,
        order: Order,
        prefer_utc: bool,
        placement: Placement,
        loop_thread: LoopThread,
        propagation: Propagation | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.closed: ManagerClosed | None = None
        self.links: Sequence[Link] = ()
        self.ids: Ids = Ids(placement.workers)
        self.keeper: Keeper | None = None
        self.placement = placement
        self.loop_thread = loop_thread
        self.propagation = propagation
        self._manager = manager
        self.order: Order = order
        self._prefer_utc = prefer_utc
        self._clock = clock
        self._joiners = Waiters()
        placement.emptied = self._joiners.wake

    def schedule(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        options: TaskOptions,
        captured: Captured | None = None,
    ) -> Task[Any]:
        """Take one task; see `Manager.schedule`.

        Args:
            coro: As there.
            when: As there.
            key: As there.
            options: As there.
            captured: What was captured for it; None: nothing was, and it is done here.

        Raises:
            Exception: As there.
            BaseException: Whatever a `capture` of `Manager(context=...)` raises.
        """
        durable = registry.of_coroutine(coro)
        if durable is not None:
            return self.schedule_once(coro, when, key, options, None, False, captured, durable)
        try:
            if self.closed is not None:
                self.check_open()
            if get_ident() != self.loop_thread.ident:
                self.loop_thread.check()
            due = due_time(self.order, when, self._clock(), self._prefer_utc)
            place = self.placement.choose(key)
            record = None
            if options or self.propagation is not None:
                record = self.take_record(self._read(options), captured)
            call = self.links[0].shipper.take(coro, record)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        shown = when if isinstance(when, datetime) else due
        return self.link_of(place, 1).schedule(self.placement.scheduler_of[place], due, shown, call)

    def schedule_once(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        options: TaskOptions,
        id_: str | None,
        replace: bool,
        captured: Captured | None = None,
        durable: Durable | None = None,
    ) -> Task[Any]:
        """Take one task, unless there is one with its id, and a durable one; see `schedule`.

        Raises:
            Exception: As `Manager.schedule`.
            BaseException: Whatever a `capture` of `Manager(context=...)` raises.
        """
        durable = durable or registry.of_coroutine(coro)
        try:
            self.check_open()
            self.loop_thread.check()
            if id_ is not None or replace is not False:
                id_ = read_id(id_, replace)
            due = self.due(when)
            self.placement.check_key(key)
            # It is looked at though the id may be taken: what cannot be right is refused.
            call, draft = self.take_once(coro, due, key, options, id_, captured, durable)
            known = None if id_ is None else self.known(id_)
            if known is not None and not replace:
                close_unstarted(coro)
                return self.handle(known)
            place = self._choose_instead(known, key)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        shown = when if isinstance(when, datetime) else due
        return self.schedule_as(id_, known, place, due, shown, call, draft, replace)

    def take_once(
        self,
        coro: Awaitable[Any],
        due: int,
        key: str | bytes | int | None,
        options: TaskOptions,
        id_: str | None,
        captured: Captured | None,
        durable: Durable | None,
    ) -> tuple[Any, Draft | None]:
        """Turn a coroutine into a call, and, if the file is to have it, into what that keeps."""
        if durable is None:
            record = self.take_record(self._read(options), captured)
            return self.links[0].shipper.take(coro, record), None
        own = read_durable_options(durable, options, self.order)
        if self.keeper is None:
            record = self.take_record(own, captured)
            return self.links[0].shipper.take(coro, record), None
        if captured is None and self.propagation is not None:
            captured = self.propagation.capture()
        self.keeper.commits.check_room()
        self.keeper.know(id_)
        return None, self.keeper.drafts.draft(coro, durable, own.name, captured, key, id_)

    def _choose_instead(self, known: Address | None, key: str | bytes | int | None) -> int:
        """Choose a place for a task that takes the id of another: that may wait no more then."""
        placement = self.placement
        if known is None or self.link_at(known[0]).state(known[2]) is not State.PENDING:
            return placement.choose(key)
        placement.count_given_up(*known[:2], -1)
        try:
            return placement.choose(key)
        finally:
            placement.count_given_up(*known[:2], 1)

    def schedule_as(
        self,
        id_: str | None,
        known: Address | None,
        place: int,
        due: int,
        when: datetime | int,
        call: Any,
        draft: Draft | None = None,
        replace: bool = False,
        sure: bool = False,
    ) -> Task[Any]:
        """Schedule a task that takes its id from the one that has it, if one is known.

        Nothing is refused here: who has the id has lost it.
        """
        if draft is not None and self.keeper is not None:
            sure |= self.is_sure(known)
            self.keeper.free(id_)
        self.dispossess(known)
        if draft is not None and self.keeper is not None:
            if self.keeper.is_far(due):
                return self.keeper.shelf.schedule(due, when, draft, replace, sure)
            call = self.keeper.calls.make(draft.stored, due)
        worker, scheduler = self.placement.worker_of[place], self.placement.scheduler_of[place]
        task = self.link_of(place, 1).schedule(scheduler, due, when, call)
        if id_ is not None:
            self.ids.give(id_, (worker, scheduler, task._number))
            task._id = id_
        if draft is not None:
            assert self.keeper is not None
            task._kept = self.keeper.intake.enter(worker, task._number, due, draft, replace, sure)
        return task

    def dispossess(self, known: Address | None) -> None:
        """Withdraw a task whose id another takes; if it has begun, it goes on without."""
        if known is not None:
            worker, scheduler, number = known
            self.link_at(worker).dispossess(scheduler, number)
            if worker >= 0:  # it is given to one that may be at no link
                self.ids.release(worker, number)

    def handle(self, address: Address) -> Task[Any]:
        """Return the handle of a task that has an id."""
        worker, scheduler, number = address
        task = self.link_at(worker).find(scheduler, number)
        assert task is not None  # it has an id, and so has not ended
        return task

    async def find(self, id_: str) -> Task[Any] | None:
        """Return the handle of the task that has an id, wherever it is."""
        keeper = self.keeper
        found = self.find_known(id_)
        if found is None and keeper is not None and keeper.is_open:
            found = await keeper.shelf.find_id(id_)
            found = found or self.find_known(id_)  # which came into memory meanwhile
        return found

    def find_known(self, id_: str) -> Task[Any] | None:
        """Return the handle of the task that has an id, if it is known without asking the file."""
        known = self.known(id_)
        return None if known is None else self.handle(known)

    def known(self, id_: str) -> Address | None:
        """Return the task that has an id, if it is in memory, or somebody has its handle."""
        shelved = None if self.keeper is None else self.keeper.shelf.address(id_)
        return shelved or self.ids.find(id_)  # whoever is new there takes it from a link

    def is_sure(self, known: Address | None) -> bool:
        """Whether no other task can have the id that a durable one has, for that is in the file."""
        if known is None or self.keeper is None:
            return False
        worker, _, number = known
        if worker < 0:
            return number not in self.keeper.shelf.claims
        kept = self.keeper.keepings[worker].kept.get(number)
        return kept is not None and kept.row >= 0

    def link_at(self, worker: int) -> Link | Shelf:
        """Return who has the tasks of a worker's slot, or what is only in the file."""
        if worker < 0:
            assert self.keeper is not None
            return self.keeper.shelf
        return self.links[worker]

    def due(self, when: datetime | timedelta | None) -> int:
        """Read the time at which a task is to start, in nanoseconds since the epoch; 0 in a queue.

        Raises:
            ValueError: It has passed.
            TypeError: It is no time, or this manager is of queues.
        """
        return due_time(self.order, when, self._clock(), self._prefer_utc)

    def dues(self, when: Whens, count: int, cut: bool) -> int | list[int]:
        """Read the times of a batch; see `bulk.read_dues`."""
        return read_dues(self.order, when, count, cut, self._clock(), self._prefer_utc)

    def new_due(self, when: datetime | timedelta | None) -> int:
        """Read the time to which a task is rescheduled.

        Raises:
            ValueError: It has passed.
            TypeError: It is no time, or this manager is of queues.
        """
        return new_due_time(self.order, when, self._clock(), self._prefer_utc)

    def _read(self, options: TaskOptions) -> Options | None:
        return read_options(options, self.order) if options else None

    def take_record(self, options: Options | None, captured: Captured | None = None) -> Any:
        """Turn what goes with a task into what links take, None if nothing does."""
        if self.propagation is None:
            return None if options is None else self.links[0].shipper.take_record(options, None)
        if captured is None:
            captured = self.propagation.capture()
        return self.links[0].shipper.take_record(options, captured)

    def locate(self, ref: TaskRef) -> tuple[Link | Shelf, int, int]:
        """Return the link of a task, its scheduler and its number there.

        Raises:
            UnknownTask: The reference is damaged or another manager's, or leads nowhere any more.
            TypeError: It is no reference.
        """
        keeper = self.keeper
        check_ref(ref, self._manager, self.placement, "" if keeper is None else keeper.where.store)
        if keeper is None:
            return self._locate_near(ref, self.ids.forgotten)
        held = keeper.shelf.held
        row = ref.number if ref.is_durable else held.aliases.get(ref.number)
        if row is None:
            return self._locate_near(ref, self.ids.forgotten, held.forgotten)
        at = keeper.where.find(row)
        if at is not None:
            known = self.links[at[0]].scheduler_of(at[1])
            if known is not None:
                return self.links[at[0]], known, at[1]
        return keeper.shelf, 0, row

    def _locate_near(self, ref: TaskRef, *forgotten: Forgotten) -> tuple[Link, int, int]:
        lead = self.ids.leads.get(ref.number)
        worker, scheduler, number = lead or ref[1:]
        link = self.links[worker]
        is_forgotten = lead is None and any(ref.number in some for some in forgotten)
        if is_forgotten and link.find(scheduler, number) is None:
            raise UnknownTask(
                f"{ref} has ended, or leads nowhere any more: of the references that tasks get "
                "when they schedule, those of the last far-off tasks, and of the last calls with "
                "an id that is taken, are kept. Give such a task an id, and find it by that"
            )
        return link, scheduler, number

    async def join(self) -> None:
        """Return when every task has ended."""
        while self.placement.all_loads:
            await self._joiners.wait(self.loop_thread.make_waiter())

    def check_open(self) -> None:
        """Refuse everything once the manager was closed.

        Raises:
            ManagerClosed: It was.
        """
        if self.closed is not None:
            raise self.closed.with_traceback(None)

    # ---- inside

    def link_of(self, place: int, count: int) -> Link:
        """Count tasks at a place and return its link."""
        self.placement.added(place, count)
        return self.links[self.placement.worker_of[place]]
