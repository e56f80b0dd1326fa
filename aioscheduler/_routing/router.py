"""Where tasks go: due time, place, call, link. The manager's work, without its life.

    schedule(work(1), when)
        │ due time      (order.due_time)
        │ place         (placement; limits are held here)
        │ call          (`link.Shipper.take`: function, payload, options)
        ▼
      link.schedule ─► handle

It is also the one that tasks ask for more tasks (`inside.Desk`, and `asked_inside` for those of
other processes).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from threading import get_ident
from types import CoroutineType
from typing import Any

from .._scheduling.coroutines import close_refused, close_unstarted, name_of
from .._scheduling.loopthread import LoopThread, Waiters
from .._scheduling.order import Order, due_time, new_due_time
from .._shipping.hostcatalog import HostCatalog
from .._shipping.hostshipping import adopt_call
from .._shipping.propagation import Captured, Propagation
from .._transport.entry import InsideRequest
from ..batch import Batch, Outcomes
from ..errors import ManagerClosed
from ..options import Options, TaskOptions, read_id, read_options
from ..task import State, Task, TaskRef, check_ref
from .bulk import Whens, name_item, read_dues, take_some
from .ids import Address, Ids
from .layout import check_flag
from .link import AcrossLink, Link
from .placement import Placement


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
        ids: Of its tasks.
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
        self.placement = placement
        self.loop_thread = loop_thread
        self.propagation = propagation
        self._manager = manager
        self._order = order
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
        """Takes one task; see `Manager.schedule`.

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
        try:
            if self.closed is not None:
                self.check_open()
            if get_ident() != self.loop_thread.ident:
                self.loop_thread.check()
            due = due_time(self._order, when, self._clock(), self._prefer_utc)
            place = self.placement.choose(key)
            record = None
            if options or self.propagation is not None:
                record = self._take_record(self._read(options), captured)
            call = self.links[0].shipper.take(coro, record)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        shown = when if isinstance(when, datetime) else due
        return self._link_of(place, 1).schedule(
            self.placement.scheduler_of[place], due, shown, call
        )

    def schedule_once(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        options: TaskOptions,
        id_: str | None,
        replace: bool,
        captured: Captured | None = None,
    ) -> Task[Any]:
        """Takes one task, unless there is one with its id; see `schedule`.

        Raises:
            Exception: As `Manager.schedule`.
            BaseException: Whatever a `capture` of `Manager(context=...)` raises.
        """
        try:
            self.check_open()
            self.loop_thread.check()
            id_ = read_id(id_, replace)
            due = due_time(self._order, when, self._clock(), self._prefer_utc)
            self.placement.check_key(key)
            # It is looked at though the id may be taken: what cannot be right is refused.
            call = self.links[0].shipper.take(
                coro, self._take_record(self._read(options), captured)
            )
            known = self.ids.find(id_)
            if known is not None and not replace:
                close_unstarted(coro)
                return self._handle(known)
            place = self._choose_instead(known, key)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        shown = when if isinstance(when, datetime) else due
        return self._schedule_as(id_, known, place, due, shown, call)

    def _choose_instead(self, known: Address | None, key: str | bytes | int | None) -> int:
        """Choose a place for a task that takes the id of another: that may wait no more then."""
        placement = self.placement
        if known is None or self.links[known[0]].state(known[2]) is not State.PENDING:
            return placement.choose(key)
        placement.count_waiting(*known[:2], -1)
        try:
            return placement.choose(key)
        finally:
            placement.count_waiting(*known[:2], 1)

    def _schedule_as(
        self,
        id_: str,
        known: Address | None,
        place: int,
        due: int,
        when: datetime | int,
        call: Any,
    ) -> Task[Any]:
        """Schedule a task that takes its id from the one that has it, if one is known."""
        self._dispossess(known)
        worker, scheduler = self.placement.worker_of[place], self.placement.scheduler_of[place]
        task = self._link_of(place, 1).schedule(scheduler, due, when, call)
        self.ids.give(id_, (worker, scheduler, task._number))
        task._id = id_
        return task

    def _dispossess(self, known: Address | None) -> None:
        """Withdraw a task whose id another takes; if it has begun, it goes on without."""
        if known is not None:
            worker, scheduler, number = known
            self.links[worker].dispossess(scheduler, number)

    def _handle(self, address: Address) -> Task[Any]:
        worker, scheduler, number = address
        task = self.links[worker].find(scheduler, number)
        assert task is not None  # it has an id, and so has not ended
        return task

    def find(self, id_: str) -> Task[Any] | None:
        """Gives the handle of the task that has an id."""
        known = self.ids.find(id_)
        return None if known is None else self._handle(known)

    def new_due(self, when: datetime | timedelta | None) -> int:
        """Reads the time to which a task is rescheduled.

        Raises:
            ValueError: It has passed.
            TypeError: It is no time, or this manager is of queues.
        """
        return new_due_time(self._order, when, self._clock(), self._prefer_utc)

    def _read(self, options: TaskOptions) -> Options | None:
        return read_options(options, self._order) if options else None

    def _take_record(self, options: Options | None, captured: Captured | None = None) -> Any:
        """Turn what goes with a task into what links take, None if nothing does."""
        if self.propagation is None:
            return None if options is None else self.links[0].shipper.take_record(options, None)
        if captured is None:
            captured = self.propagation.capture()
        return self.links[0].shipper.take_record(options, captured)

    def submit(
        self,
        func: Callable[..., Any],
        arguments: Iterable[tuple[Any, ...]],
        when: Whens,
        key: str | bytes | int | None,
        options: TaskOptions,
        return_exceptions: bool = False,
    ) -> Batch[Any]:
        """Takes calls of one function; see `Manager.map`."""
        if not callable(func):
            close_unstarted(func)
            hint = ""
            if isinstance(func, CoroutineType):
                hint = f"; leave out the call: map({func.__name__}, items)"
            raise TypeError(
                f"map() takes a function and its items, not {type(func).__name__}{hint}"
            )
        check_flag("return_exceptions", return_exceptions)
        self.check_open()
        self.loop_thread.check("manager.map, func, items")
        placement = self.placement
        # One more than there is room for is refused below, and an endless iterable with it.
        room = placement.room_everywhere()
        calls = list(arguments if room is None else islice(arguments, room + 1))
        count = len(calls)
        cut = room is not None and count > room
        dues = read_dues(self._order, when, count, cut, self._clock(), self._prefer_utc)
        front = self.links[0]
        function = front.shipper.take_function(func)
        read = self._read(options)
        record = self._take_record(read)
        outcomes = Outcomes(count, (read and read.name) or name_of(func))
        batch: Batch[Any] = Batch(outcomes, return_exceptions)
        # Small batches, too, are to use every scheduler.
        share = -(-count // len(placement.loads)) if key is None else count
        sent = 0
        try:
            while sent < count:
                try:
                    place = placement.choose(key)
                except (ValueError, TypeError) as refusal:
                    raise name_item(sent, refusal) from refusal
                room = min(share, front.room(), placement.room(place))
                payloads = take_some(front.shipper, calls, sent, room)
                until = sent + len(payloads)
                self._link_of(place, len(payloads)).schedule_many(
                    outcomes,
                    sent,
                    placement.scheduler_of[place],
                    dues[sent:until] if isinstance(dues, list) else dues,
                    function,
                    payloads,
                    record,
                )
                sent = until
        except BaseException:
            batch.cancel()
            raise
        return batch

    def locate(self, ref: TaskRef) -> tuple[Link, int, int]:
        """Gives the link of a task, its scheduler and its number there.

        Raises:
            UnknownTask: The reference is damaged or another manager's.
            TypeError: It is no reference.
        """
        check_ref(ref, self._manager, self.placement)
        worker, scheduler, number = self.ids.leads.get(ref.number, ref[1:])
        return self.links[worker], scheduler, number

    async def join(self) -> None:
        """Returns when every task has ended."""
        while self.placement.all_loads:
            await self._joiners.wait(self.loop_thread.make_waiter())

    def check_open(self) -> None:
        """Refuses everything once the manager was closed.

        Raises:
            ManagerClosed: It was.
        """
        if self.closed is not None:
            raise self.closed.with_traceback(None)

    # ---- what tasks ask

    def schedule_inside(
        self,
        coro: Awaitable[Any],
        when: datetime | timedelta | None,
        key: str | bytes | int | None,
        origin: TaskRef | None,
        options: TaskOptions,
        id_: str | None,
        replace: bool,
    ) -> TaskRef:
        """Takes a task that a task of this process schedules."""
        try:
            self.check_open()
            due = due_time(self._order, when, self._clock(), self._prefer_utc)
            place = self.placement.place_near(key, 0, 0 if origin is None else origin.scheduler)
            call = self.links[0].shipper.take(coro, self._take_record(self._read(options)))
            known = None
            if id_ is not None or replace is not False:
                id_ = read_id(id_, replace)
                known = self.ids.find(id_)
        except BaseException as refusal:
            close_refused(coro, refusal)
            raise
        if known is not None and not replace:
            close_unstarted(coro)
            task = self._handle(known)
        elif id_ is not None:
            task = self._schedule_as(id_, known, place, due, due, call)
        else:
            task = self._link_of(place, 1).schedule(place, due, due, call)
        ref = task.ref
        assert ref is not None
        return ref

    def cancel_inside(self, ref: TaskRef) -> bool:
        """Takes a request of a task of this process."""
        link, scheduler, number = self.locate(ref)
        return link.cancel(scheduler, number)

    def asked_inside(
        self, links: Sequence[AcrossLink], catalog: HostCatalog, what: str, *fields: Any
    ) -> None:
        """Takes a request of a task of another process: the fields are the worker's `_ask`."""
        if what == "cancel":
            worker, scheduler, number = fields
            worker, scheduler, number = self.ids.leads.get(number, (worker, scheduler, number))
            links[worker].cancel(scheduler, number)
        elif self.closed is None:
            asked = InsideRequest(*fields)
            known = None if asked.id is None else self.ids.find(asked.id)
            if known is not None and not asked.replace:
                self.ids.lead(asked.alias, known)
                return
            call = adopt_call(catalog, asked)
            self._dispossess(known)
            place = asked.place
            self.placement.added(place)
            worker, scheduler = self.placement.worker_of[place], self.placement.scheduler_of[place]
            own = links[worker].adopt(scheduler, asked.due, call, asked.alias)
            if asked.id is not None:
                self.ids.give(asked.id, (worker, scheduler, own))

    # ---- inside

    def _link_of(self, place: int, count: int) -> Link:
        """Counts tasks at a place and gives its link."""
        self.placement.added(place, count)
        return self.links[self.placement.worker_of[place]]
