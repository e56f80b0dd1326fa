"""Routes tasks: due time, place, call, link. The work of the manager, without its life.

    schedule(work(1), when)
        │ due time      (order.due_time)
        │ place         (placement, with its limits)
        │ call          (`link.Shipper.take`: function, payload, options)
        ▼
      link.schedule ─► handle

Many calls of one function come by `submission`, requests of tasks by `hostupstream`, and the tasks
of a store by `admission`.
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
    """Places tasks on links, and counts them.

    Args:
        manager: The manager's id.
        order: The order of the schedulers.
        prefer_utc: What a naive datetime means.
        placement: Chooses places, counts tasks and enforces limits.
        loop_thread: The thread in which calls are allowed.
        propagation: Context values that travel with each task, if any.
        clock: Return the present in nanoseconds since the epoch.

    Attributes:
        closed: Why no more tasks are accepted; None while they are.
        links: One for each worker; set before the first task.
        order: The order of the schedulers.
        ids: The ids of its tasks.
        keeper: Keeps the file of durable tasks; None: there is none, and they are not kept.
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
        """Schedule one task; see `Manager.schedule`.

        Args:
            coro: As for `Manager.schedule`.
            when: As for `Manager.schedule`.
            key: As for `Manager.schedule`.
            options: As for `Manager.schedule`.
            captured: The values captured for it; None: they are captured here.

        Raises:
            Exception: As `Manager.schedule` does.
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
        """Schedule one task that is durable, or that has an id, unless that is taken.

        Raises:
            Exception: As `Manager.schedule` does.
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
            # First, though the id may be taken: invalid arguments are refused in any case.
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
        """Turn a coroutine into a call or, if it will be in the file, a draft."""
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
        """Choose a place for a task, not counting the pending task whose id it takes."""
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
        """Schedule a task that takes its id from the task that has it, if one is known.

        Nothing is refused here, as that task has already lost the id.
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
        """Withdraw a task that loses its id to another; if it has begun it goes on without it."""
        if known is not None:
            worker, scheduler, number = known
            self.link_at(worker).dispossess(scheduler, number)
            if worker >= 0:  # the new task may be at no link
                self.ids.release(worker, number)

    def handle(self, address: Address) -> Task[Any]:
        """Return the handle of a task that has an id."""
        worker, scheduler, number = address
        task = self.link_at(worker).find(scheduler, number)
        assert task is not None  # it has an id, and so has not ended
        return task

    async def find(self, id_: str) -> Task[Any] | None:
        """Return the handle of the task that has an id, also if it is only in the file."""
        keeper = self.keeper
        found = self.find_known(id_)
        if found is None and keeper is not None and keeper.is_open:
            found = await keeper.shelf.find_id(id_)
            found = found or self.find_known(id_)  # it may have come into memory meanwhile
        return found

    def find_known(self, id_: str) -> Task[Any] | None:
        """Return the handle of the task that has an id, if known without asking the file."""
        known = self.known(id_)
        return None if known is None else self.handle(known)

    def known(self, id_: str) -> Address | None:
        """Return the task that has an id, if it is in memory or has a handle."""
        shelved = None if self.keeper is None else self.keeper.shelf.address(id_)
        return shelved or self.ids.find(id_)  # a shelved task takes it from one at a link

    def is_sure(self, known: Address | None) -> bool:
        """Whether a durable task has its id for certain, as it is in the file with it."""
        if known is None or self.keeper is None:
            return False
        worker, _, number = known
        if worker < 0:
            return number not in self.keeper.shelf.claims
        kept = self.keeper.keepings[worker].kept.get(number)
        return kept is not None and kept.row >= 0

    def link_at(self, worker: int) -> Link | Shelf:
        """Return the link of a worker; for worker -1, the shelf."""
        if worker < 0:
            assert self.keeper is not None
            return self.keeper.shelf
        return self.links[worker]

    def due(self, when: datetime | timedelta | None) -> int:
        """Return the due time of a task, in nanoseconds since the epoch; 0 in a queue.

        Raises:
            ValueError: It has passed.
            TypeError: It is not a time, or this manager is of queues.
        """
        return due_time(self.order, when, self._clock(), self._prefer_utc)

    def dues(self, when: Whens, count: int, cut: bool) -> int | list[int]:
        """Return the due times of a batch; see `bulk.read_dues`."""
        return read_dues(self.order, when, count, cut, self._clock(), self._prefer_utc)

    def new_due(self, when: datetime | timedelta | None) -> int:
        """Return the due time for a reschedule, in nanoseconds since the epoch.

        Raises:
            ValueError: It has passed.
            TypeError: It is not a time, or this manager is of queues.
        """
        return new_due_time(self.order, when, self._clock(), self._prefer_utc)

    def _read(self, options: TaskOptions) -> Options | None:
        return read_options(options, self.order) if options else None

    def take_record(self, options: Options | None, captured: Captured | None = None) -> Any:
        """Return the record of a task; None if it needs none."""
        if self.propagation is None:
            return None if options is None else self.links[0].shipper.take_record(options, None)
        if captured is None:
            captured = self.propagation.capture()
        return self.links[0].shipper.take_record(options, captured)

    def locate(self, ref: TaskRef) -> tuple[Link | Shelf, int, int]:
        """Return the link of a task, its scheduler and its number there.

        Raises:
            UnknownTask: The reference is damaged, another manager's, or no longer leads anywhere.
            TypeError: It is not a reference.
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
                f"{ref} has ended, or no longer leads anywhere: of the references that tasks get "
                "when they schedule, only those of the last far-off tasks, and of the last calls "
                "with an id that was taken, are kept. Give such a task an id, and find it by that"
            )
        return link, scheduler, number

    async def join(self) -> None:
        """Wait until every task has ended."""
        while self.placement.all_loads:
            await self._joiners.wait(self.loop_thread.make_waiter())

    def check_open(self) -> None:
        """Check that the manager is open.

        Raises:
            ManagerClosed: It was closed, or has failed.
        """
        if self.closed is not None:
            raise self.closed.with_traceback(None)

    # ---- inside

    def link_of(self, place: int, count: int) -> Link:
        """Count tasks at a place, and return its link."""
        self.placement.added(place, count)
        return self.links[self.placement.worker_of[place]]
