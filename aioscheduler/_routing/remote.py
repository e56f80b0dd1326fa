"""The host's end of one worker's place, whatever process is there.

       host loop                                              │ process border
                                                              │
    schedule ─► Book: outbox, ledger ─► Sender ─► SCHEDULE ═══╪══► worker
                  ▲                                           │
                  └────── Receiver ◄── STARTED, FINISHED ◄════╪═══ worker
                            └─► Endings: handles, counters    │

The link has no rules of its own: what may follow on what is the book's to say (`book`). It keeps
the contract of `link.Link` to the manager, and that of `occupant.Occupant` to the supervisor.

The host does as little as it can: it runs no user code here, leaves results as bytes until
somebody asks, and never waits for a worker. Numbers are given in `schedule`, so a task can be
addressed before it has been sent.

When a process has ended, what it had announced as started is lost, or runs again; the rest is what
the ledger holds, and the next process is sent it before anything else (`connect`), with the
numbers, times and order it had.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from .._processes.budget import RestartBudget
from .._processes.incarnation import Launch, Life
from .._processes.occupant import End, Then
from .._processes.supervisor import Supervisor
from .._scheduling.loopthread import LoopThread
from .._scheduling.states import State
from .._shipping.shipping import Call, HostShipper
from .._transport import wire
from .._transport.ledger import PAGE
from .._transport.wire import Payload
from ..batch import Outcomes, Part
from ..errors import WorkerLost
from ..task import Task, TaskRef
from .book import Book, Change
from .endings import Endings
from .link import LoadCounter, Vitals
from .receiving import Receiver
from .sending import Sender

log: logging.Logger = logging.getLogger("aioscheduler")


class RemoteLink:
    """One worker's place with its schedulers; keeps the contract of `link.Link`.

    Args:
        worker: The place, from 0.
        schedulers: How many schedulers it has.
        timed: Whether they are timed; else they are queues.
        launch: Makes its processes.
        budget: For replacements, of the whole manager.
        shipper: Shared by all workers of the manager.
        counter: Told of every start and end.
        loop_thread: Where calls are right.
        clock: Returns the present in nanoseconds since the epoch.
        manager: The manager's id.
        boot: The payload of the initializer's call, or None.
        rerun: Whether tasks that had started run again when their worker has died.
        failed: Called with the reason when the place cannot be filled.
        asked_inside: Called with the fields of each request that a task makes of its manager.

    Attributes:
        supervisor: Keeps a process in the place.
        book: Has the tasks that have not ended.
        shipper: Turns what users call into what travels.
    """

    def __init__(
        self,
        worker: int,
        schedulers: int,
        timed: bool,
        launch: Launch,
        budget: RestartBudget,
        shipper: HostShipper,
        counter: LoadCounter,
        loop_thread: LoopThread,
        clock: Callable[[], int],
        manager: str,
        boot: bytes | None,
        rerun: bool,
        failed: Callable[[Exception], None],
        asked_inside: Callable[..., None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread: LoopThread = loop_thread
        self.identity: int = secrets.randbits(128)
        self.supervisor: Supervisor = Supervisor(worker, launch, budget, self)
        self.shipper: HostShipper = shipper
        self.book: Book = Book(schedulers, timed, shipper.catalog.log)
        self._worker = worker
        self._manager = manager
        self._rerun = rerun
        self._failed = failed
        self._reason: Exception | None = None  # why the manager has failed
        self._outbox = self.book.outbox
        self._counts = self.supervisor.counts
        self._endings = Endings(worker, self, self.book, shipper, counter, self._counts)
        self._holders = self._endings.holders
        self._sender = Sender(self._outbox, boot)
        self._receiver = Receiver(
            schedulers, self.book, self._endings, shipper, clock, asked_inside
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
        """Return when the first process answers.

        Raises:
            WorkerStartError: It could not begin.
        """
        await self.supervisor.ready()

    async def close(self, timeout: float | None) -> None:
        """End the process: politely, then not; settle every task."""
        self._sender.now()
        self._sender.stop_telling()
        await self.supervisor.close(timeout, self._endings.describe_running)

    def kill(self, reason: Exception) -> None:
        """End the process at once: the manager has failed."""
        self._reason = reason
        self.supervisor.kill()

    # ---- what the supervisor reports (`occupant.Occupant`)

    def connect(self, life: Life) -> None:
        """Tell a new process everything: definitions, tasks, and then to begin."""
        for change in self.book.drop_asked():
            self._endings.tell(change)
        self._sender.tell(life, *self._outbox.restart())

    def receive(self, frame: wire.Frame) -> None:
        """Take a frame of the worker's.

        Raises:
            Exception: It is none that a worker of ours writes. All that it said up to what is
                wrong has been taken.
        """
        assert self.loop is not None
        self._receiver.receive(frame, self.loop)
        if self._outbox.answers:
            self._sender.soon()

    def ended(self, end: End) -> None:
        """Sort out what a process leaves: for the next, or, if there is none, for good."""
        if end.then is Then.REPLACED:
            assert end.life is not None
            fate = self._cut(end.life, end.exitcode)
            log.warning("%s; it is replaced: %s", end.story, fate)
            return
        self._reason = self._reason or end.reason
        try:
            if end.reason is not None:
                self._failed(end.reason)  # which ends the others
        finally:  # whatever comes of that, no task is left open here
            self.settle_all(end.exitcode, lost=self._reason is not None)

    def _cut(self, life: Life, exitcode: int | None) -> str:
        """Return in words what becomes of the tasks of a process that is replaced."""
        self._sender.disconnect()
        self._receiver.disconnect()
        book = self.book
        for change in book.died([_begun(self._worker, life, n) for n in range(book.schedulers)]):
            self._endings.tell(change)
        waiting, running = len(book.ledger) - book.ledger.running, book.ledger.running
        fate = f"{waiting:,} pending tasks go to the next process"
        if running:
            then = "started, to run again" if self._rerun else "started, and lost"
            fate += f"; {then}: {running:,} ({self._endings.describe_running()})"
        for change in book.rerun_running() if self._rerun else book.lose_running():
            errors = [self._lost(exitcode, True, number) for number in change.ended]
            self._endings.tell(change, errors)
        return fate

    def settle_all(self, exitcode: int | None, lost: bool) -> None:
        """End every task: no process will come any more. Never raises."""
        self._sender.end()
        self._receiver.disconnect()
        try:
            self._outbox.pack()
        except Exception:
            log.exception("what was scheduled last could not be put into a frame")
        self._endings.settle_all(self._close_book(exitcode, lost))

    def _close_book(
        self, exitcode: int | None, lost: bool
    ) -> Iterator[tuple[Sequence[int], State, WorkerLost | None]]:
        """Yield the ends of all tasks: those that ended alike, how, and with what."""
        for numbers, state, started in self.book.close(lost):
            error = None
            if state is State.LOST:
                one = numbers[0] if len(numbers) == 1 else None
                error = self._lost(exitcode, started, one)
            yield numbers, state, error

    def _lost(self, exitcode: int | None, started: bool, number: int | None) -> WorkerLost:
        """Return what a task ends with that was lost; for many of them, without a number."""
        why = self._reason
        text = "" if why is None else getattr(why, "__notes__", [str(why)])[0]
        error = WorkerLost(self._worker, exitcode, started, text, self.supervisor.cause)
        error.__cause__ = why
        task = None if number is None else self._holders.handle_of(number)
        if task is not None:
            error.add_note(task._note)
        return error

    # ---- tasks (`link.Link`)

    def schedule(self, scheduler: int, due: int, when: datetime | int, call: Call) -> Task[Any]:
        """Give a task its number and put it into the next frame."""
        function, payload, options = call
        number = self._outbox.add(scheduler, due, function, payload, options)
        if self._sender.turn is None or self._outbox.full:  # else the call is spared
            self._sender.soon()
        label = function if options is None else self.shipper.label(function, options)
        return self._holders.hand_out(scheduler, number, when, label)

    def schedule_many(
        self,
        outcomes: Outcomes,
        offset: int,
        scheduler: int,
        dues: int | list[int],
        function: int | bytes,
        payloads: list[Payload],
        options: int | None,
    ) -> None:
        """Send calls of one function as one frame."""
        first = self._outbox.add_many(scheduler, dues, function, payloads, options)
        self._holders.add(Part(outcomes, offset, self, scheduler, first, len(payloads), dues))
        self._sender.soon()

    def room(self) -> int:
        """How many calls `schedule_many` takes at a time."""
        return PAGE

    def adopt(self, scheduler: int, due: int, call: Call, alias: int) -> None:
        """Accept a task that was scheduled inside a worker, which gave it a number: its alias."""
        self.book.adopt(scheduler, due, *call, alias)
        self._sender.soon()

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Return a handle on a task that has not ended, else None."""
        number = self.book.number_of(number)
        entry = self.book.find(number)
        if entry is None or entry.scheduler != scheduler:
            return None
        # By its name, as nothing keeps the function's number for a new handle.
        return self._holders.find(number) or self._holders.hand_out(
            scheduler, number, entry.due, self._endings.name(entry)
        )

    def cancel(self, scheduler: int, number: int) -> bool:
        """Ask for a task's cancellation; False if it is known to have ended."""
        return self._request(self.book.cancel(scheduler, self.book.number_of(number)))

    def withdraw(self, scheduler: int, number: int) -> bool:
        """Ask that a task end before it begins; False if it is known that it has, or has ended.

        Unlike a cancellation it never touches what has begun: a start on its way wins.
        """
        return self._request(self.book.withdraw(scheduler, self.book.number_of(number)))

    def reschedule(self, scheduler: int, number: int, due: int) -> bool:
        """Ask that a timed task start at another time, in nanoseconds since the epoch.

        False if it is known to have begun, to have ended, or that it is to end. A start on its
        way wins.
        """
        asked = self.book.reschedule(scheduler, self.book.number_of(number), due)
        self._sender.soon()
        return asked

    def _request(self, change: Change | None) -> bool:
        if change is None:
            return False
        self._endings.tell(change)
        self._sender.soon()
        return True

    async def flush(self) -> None:
        """Return when little enough waits to be written."""
        await self._sender.flush()

    def look_after(self, lag: float) -> None:
        """Is called once a tick."""
        assert self.loop is not None
        self.supervisor.look_after()
        self._sender.now()  # which tells the worker of it
        self._endings.look_after()
        self._receiver.history.expire(self.loop.time())

    def vitals(self) -> Vitals:
        """Return what `Manager.stats()` needs to know."""
        supervisor = self.supervisor
        life = supervisor.life
        return Vitals(
            supervisor.state,
            supervisor.avoided,
            life.pid if life is not None else None,
            self.book.ledger.running,
            self._counts,
            self._receiver.history,
        )

    # ---- the home of handles (`task.Home`)

    def state(self, number: int) -> State:
        """PENDING or RUNNING: a task that has ended has told its handle."""
        return self.book.state(number)

    def ref(self, scheduler: int, number: int) -> TaskRef:
        return TaskRef(self._manager, self._worker, scheduler, self.book.alias_of(number))

    def due(self, scheduler: int, number: int) -> int | None:
        if self.book.state(number) is State.RUNNING:
            return None
        entry = self.book.find(number)
        return None if entry is None else entry.due or None

    def name_of(self, label: Any) -> str:
        return self.shipper.name_of(label)

    def hold(self, task: Task[Any]) -> None:
        self._holders.hold(task)

    def release(self, task: Task[Any]) -> None:
        self._holders.release(task)


def _begun(worker: int, life: Life, scheduler: int) -> int | None:
    """Return what the black box says, None if it cannot be read."""
    try:
        return life.begun(scheduler)
    except Exception:
        log.exception("the black box of worker %d cannot be read", worker)
        return None
