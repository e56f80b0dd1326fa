"""The host's end of one worker's slot, whichever process is in it.

       host loop                                              │ process border
                                                              │
    schedule ─► Book: outbox, ledger ─► Sender ─► SCHEDULE ═══╪══► worker
                  ▲                                           │
                  └────── Receiver ◄── ANNOUNCED, ENDED ◄═════╪═══ worker
                            └─► Endings: handles, counters    │

The link has no rules of its own: these are in the book (`book`). It keeps the contract of
`link.Link` towards the manager, and that of `occupant.Occupant` towards the supervisor.

The host does as little as it can: it runs no user code here, leaves results as bytes until
somebody asks for them, and never waits for a worker. Tasks are numbered in `schedule`, so that they
can be addressed before they are sent.

When a process has ended, tasks that had begun are lost, or run again. The next process is first
sent all that are left in the ledger (`connect`), with the same numbers, times and order.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from .._processes.budget import RestartBudget
from .._processes.occupant import End, Then
from .._processes.supervisor import Supervisor
from .._processes.workerhandle import MakeWorkerHandle, WorkerHandle
from .._scheduling.loopthread import LoopThread
from .._scheduling.states import State
from .._shipping.hostshipping import HostShipper
from .._shipping.shipping import Call
from .._transport import wire
from .._transport.ledger import PAGE
from .._transport.wire import Payload, Record
from ..inspection import TaskInfo, Wanted
from ..outcomes import Outcomes, Part
from ..task import Task
from .book import Book
from .changes import Change
from .endings import Endings
from .forwardedlogs import ForwardedLogs
from .ids import Ids
from .keeping import Keeping
from .link import LinkStats, LoadCounter
from .listing import list_book
from .receiving import Receiver
from .recovery import Recovery
from .recycling import Wear
from .remotehome import RemoteHome
from .sending import Sender

log: logging.Logger = logging.getLogger("aioscheduler")


class RemoteLink(RemoteHome):
    """One worker's slot with its schedulers; keeps the contract of `link.Link`.

    Args:
        worker: The slot, from 0.
        schedulers: How many schedulers it has.
        timed: Whether they are timed; else they are queues.
        make: Makes the handles of its processes.
        budget: The budget of replacements, one for the whole manager.
        shipper: Shared by all workers of the manager.
        counter: Notified of every start and end.
        loop_thread: The thread in which calls are allowed.
        clock: Return the present in nanoseconds since the epoch.
        manager: The manager's id.
        boot: The BOOT payload: the initializer, and what propagates; b"": neither.
        rerun: Whether tasks that had started run again if their worker died.
        failed: Called with the reason when the slot cannot be filled.
        asked_inside: Called with the fields of each request of a task to its manager.
        new_due: Return the due time for a reschedule.
        ids: The ids of the manager's tasks.
        wear: The wear of its processes; None: nothing is recycled.
        name: The manager's name, if given; for messages.
        keeping: Keeps the durable tasks; None: there is no store.

    Attributes:
        supervisor: Keeps a process in the slot.
        book: The tasks that have not ended.
        shipper: Turns users' coroutines into calls.
    """

    def __init__(
        self,
        worker: int,
        schedulers: int,
        timed: bool,
        make: MakeWorkerHandle,
        budget: RestartBudget,
        shipper: HostShipper,
        counter: LoadCounter,
        loop_thread: LoopThread,
        clock: Callable[[], int],
        manager: str,
        boot: bytes,
        rerun: bool,
        failed: Callable[[Exception], None],
        asked_inside: Callable[..., None],
        new_due: Callable[[datetime | timedelta | None], int],
        ids: Ids,
        wear: Wear | None,
        name: str,
        keeping: Keeping | None,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread: LoopThread = loop_thread
        self.identity: int = secrets.randbits(128)
        self.new_due: Callable[[datetime | timedelta | None], int] = new_due
        self.supervisor: Supervisor = Supervisor(worker, make, budget, self, name)
        self.shipper: HostShipper = shipper
        self.book: Book = Book(schedulers, timed, shipper.catalog.log)
        self._process: WorkerHandle | None = None  # the last one
        self._worker = worker
        self._timed = timed
        self._manager = manager
        self._failed = failed
        self._outbox = self.book.outbox
        self._counts = self.supervisor.counts
        self._ids = ids
        self._keeping = self.book.durables = keeping
        self._endings = Endings(
            *(worker, self, self.book, shipper, counter, self._counts, ids, keeping)
        )
        self._listeners = self._endings.listeners
        self._recovery = Recovery(worker, self.book, self._endings, rerun, self.supervisor)
        self._sender = Sender(self._outbox, boot)
        self.book.announcements.wake = self._sender.soon
        self._receiver = Receiver(
            *(schedulers, self.book, self._endings, shipper, clock, asked_inside),
            take_logs=ForwardedLogs(self.supervisor).take,
            wear=wear,
        )

    # ---- its life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Spawn the process.

        Raises:
            OSError: The system has no room for it.
        """
        self.loop = loop
        self._sender.start(loop)
        self.supervisor.start(loop)

    async def ready(self) -> None:
        """Wait until the first process is ready.

        Raises:
            WorkerStartError: It could not start.
        """
        await self.supervisor.ready()

    async def close(self, timeout: float | None) -> None:
        """End the process, by force if need be, and settle every task."""
        self.book.closing = True
        self._sender.now()
        self._sender.stop_updating()
        await self.supervisor.close(timeout, self._endings.describe_running)

    def kill(self, reason: Exception) -> None:
        """End the process at once: the manager has failed."""
        self.book.closing = True
        self._recovery.reason = reason
        self.supervisor.kill()

    # ---- reports of the supervisor (`occupant.Occupant`)

    def forgives(self) -> bool:
        """Whether only durable tasks had begun: the death counts as one of each's few losses.

        False if no task had begun: nothing would count, and processes be replaced for ever.
        """
        if self._keeping is None or self._process is None:
            return False
        announcements = self.book.announcements
        begun = set(self.book.ledger.running_numbers())
        for _, numbers in announcements.unconfirmed:
            begun.difference_update(numbers)
        for scheduler in range(self.book.schedulers):
            words = self._recovery.begun(self._process, scheduler)
            for _, unbegun in announcements.unbegun(scheduler, words) if words else ():
                begun.difference_update(unbegun or ())
        return self._keeping.all_durable(begun)

    def connect(self, process: WorkerHandle) -> None:
        """Send a new process everything: definitions, tasks, and then BOOT."""
        self._process = process
        for change in self.book.drop_asked():
            self._endings.report(change)
        self._sender.update(process, *self._outbox.restart())

    def receive(self, frame: wire.Frame) -> None:
        """Process a frame of the worker.

        Raises:
            Exception: It is not a frame that our workers write. The part before the fault has been
                processed.
        """
        assert self.loop is not None
        self._receiver.receive(frame, self.loop)
        if self._outbox.answers:
            self._sender.soon()

    def ended(self, end: End) -> None:
        """Sort out the tasks of a process: for the next one or, if there is none, for good."""
        recovery = self._recovery
        if end.then is Then.REPLACED:
            assert end.process is not None
            self._sender.disconnect()
            self._receiver.disconnect()
            fate, harmed = recovery.pass_on(end.process, end.exitcode)
            is_quiet = (end.planned or not end.is_said) and not harmed
            level = logging.DEBUG if is_quiet else logging.WARNING
            line, _, below = end.story.partition("\n")
            log.log(level, "%s; it is replaced: %s%s", line, fate, below and f"\n{below}")
            return
        recovery.reason = recovery.reason or end.reason
        try:
            if end.reason is not None:
                self._failed(end.reason)  # which ends the others
        finally:  # whatever that raises, no task is left open here
            self.settle_all(end.exitcode, lost=recovery.reason is not None)

    def settle_all(self, exitcode: int | None, lost: bool) -> None:
        """End every task, as there will be no further process. Never raises."""
        self._sender.end()
        self._receiver.disconnect()
        self._recovery.settle_all(exitcode, lost)

    # ---- tasks (`link.Link`)

    def schedule(self, scheduler: int, due: int, when: datetime | int, call: Call) -> Task[Any]:
        """Number a task, and put it into the next frame."""
        function, payload, record = call
        number = self._outbox.add(scheduler, due, function, payload, record)
        if self._sender.turn is None or self._outbox.full:  # saves the call
            self._sender.soon()
        label = function if record is None else self.shipper.label(function, record)
        return self._listeners.hand_out(scheduler, number, when, label)

    def schedule_many(
        self,
        outcomes: Outcomes,
        offset: int,
        scheduler: int,
        dues: int | list[int],
        function: int | bytes,
        payloads: list[Payload],
        record: Record,
    ) -> int:
        """Send calls of one function as one frame."""
        first = self._outbox.add_many(scheduler, dues, function, payloads, record)
        self._listeners.add(Part(outcomes, offset, self, scheduler, first, len(payloads), dues))
        self._sender.soon()
        return first

    def room(self) -> int:
        """Return how many calls `schedule_many` accepts at a time."""
        return PAGE

    def adopt(self, scheduler: int, due: int, call: Call, alias: int | None) -> int:
        """Accept a task without a handle; see `link.Link`."""
        if alias is None:
            number = self._outbox.add(scheduler, due, *call)
        else:
            number = self.book.adopt(scheduler, due, *call, alias)
        self._sender.soon()
        return number

    def adopt_many(
        self,
        scheduler: int,
        dues: list[int],
        function: int | bytes,
        payloads: list[Payload],
        record: Record,
    ) -> int:
        """Accept calls of one function without handles; see `link.Link`."""
        first = self._outbox.add_many(scheduler, dues, function, payloads, record)
        self._sender.soon()
        return first

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Return a handle on a task that has not ended, else None."""
        number = self.book.number_of(number)
        if self._outbox.scheduler(number) != scheduler:
            return None
        task = self._listeners.find(number)
        if task is None:
            entry = self.book.find(number)  # its page is read, which takes 0.1 ms
            assert entry is not None
            # By its name, as nothing keeps the function's number for a new handle.
            name = self._endings.name(number, entry)
            given = entry.given if self._timed else 0
            task = self._listeners.hand_out(scheduler, number, given, name)
            task._id = self._ids.of[self._worker].get(number)
            if self._keeping is not None:
                task._kept = self._keeping.kept.get(number)
        return task

    def cancel(self, scheduler: int, number: int) -> bool:
        """Ask for a task's cancellation; False if it is known to have ended."""
        number = self.book.number_of(number)
        return self._request(number, self.book.cancel(scheduler, number))

    def withdraw(self, scheduler: int, number: int) -> bool:
        """Ask that a task end before it begins; False if it is known to have begun or ended.

        Unlike a cancellation it never affects a task that has begun: a start on its way wins.
        """
        number = self.book.number_of(number)
        return self._request(number, self.book.withdraw(scheduler, number))

    def dispossess(self, scheduler: int, number: int) -> None:
        """Withdraw a task that loses its id to another; if it has begun it goes on without it."""
        task = self._listeners.handle_of(number)
        if task is not None:
            task._id = None
        running = self.book.state(number) is State.RUNNING
        if self._keeping is None or self._keeping.dispossess(number, running) is running:
            self.withdraw(scheduler, number)
        else:  # it was announced, and waits for CONFIRM
            self.cancel(scheduler, number)

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        """Ask that a timed task start at another time, in nanoseconds since the epoch.

        False if it is known to have begun or ended, or was asked to end. A start on its way wins.
        """
        asked = self.book.reschedule(scheduler, self.book.number_of(number), due)
        self._sender.soon()
        return asked

    def _request(self, number: int, change: Change | None) -> bool:
        if change is None:
            return False
        if change.waiting:  # no longer pending: its id is free
            self._ids.release(self._worker, number)
        if self._keeping is not None:
            self._keeping.withdrawn(number)
        self._endings.report(change)
        self._sender.soon()
        return True

    def infos(self, wanted: Wanted) -> Iterator[list[TaskInfo]]:
        """Yield information on unfinished tasks, a page at a time."""
        self._outbox.pack()
        name, ids = self._endings.name, self._ids.of[self._worker]
        return list_book(self.book, wanted, ids, name, self.ref, self._timed)

    async def flush(self) -> None:
        """Wait until the send buffer is short."""
        await self._sender.flush()

    def look_after(self, lag: float) -> None:
        """Do the regular work; called once a tick."""
        assert self.loop is not None
        self.supervisor.look_after()
        self._sender.now()  # which sends its results to the worker
        self._endings.look_after()
        self._receiver.history.expire(self.loop.time())

    def stats(self) -> LinkStats:
        """Return the figures for `Manager.stats()`."""
        supervisor = self.supervisor
        process = supervisor.process
        return LinkStats(
            supervisor.state,
            supervisor.avoided,
            process.pid if process is not None else None,
            self.book.ledger.running,
            self._counts,
            self._receiver.history,
            process.node if process is not None else None,
            process.usage if process is not None else None,
        )
