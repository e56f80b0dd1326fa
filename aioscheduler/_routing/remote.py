"""The host's end of one worker's place: its tasks, whatever process is there.

       host loop                                           │ process border
                                                           │
    schedule ─► outbox ─(a turn of the loop, or enough)─► SCHEDULE frame ══► worker
                  │                                        │
                ledger ◄──────────── STARTED, FINISHED frames ◄═════════════ worker
                  │                                        │
    handles (weak), batches ◄── outcomes                   │

Whatever raises here in telling a process, in sending or in taking what it sent, ends that process,
and nothing can raise between a change of the ledger and the handles that it concerns: `_settle` is
the one way to them.

The host is dull: it runs no user code here, leaves results as bytes until somebody asks, and
never waits for a worker. Numbers are given in `schedule`, so a task can be addressed before it
has been sent.

When a process has died (`cut`), what it had announced as started is lost, or runs again; the rest
is what the ledger holds, and the next process is sent it before anything else (`connect`), with
the numbers, times and order it had.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from .._processes.incarnation import Launch, Life
from .._processes.supervisor import RestartBudget, Supervisor
from .._scheduling.lateness import BOUNDS, History
from .._scheduling.loopthread import LoopThread
from .._scheduling.unheard import report
from .._shipping.payloads import NAMING, names_in
from .._shipping.shipping import Call, HostShipper
from .._transport import wire
from .._transport.definitionlog import leased
from .._transport.ledger import PAGE, end_of_row
from .._transport.outbox import Outbox
from .._transport.pipe import HIGH_WATER
from .._transport.wire import Kind, Payload
from ..batch import Decode, Outcomes, Part
from ..errors import RemoteError, WorkerLost
from ..options import Options
from ..task import State, Task, TaskRef
from .holders import Holders
from .link import Tally, Vitals

log: logging.Logger = logging.getLogger("aioscheduler")

_ENDINGS = {wire.RETURNED: State.FINISHED, wire.RAISED: State.FAILED, wire.DROPPED: State.CANCELLED}
_NAMED = 5  # tasks that a message about a death names
_UNHEARD_NAMED = 10  # failed tasks of dropped handles that are named, between two ticks
_REMEMBERED = 1024  # announced tasks, of each scheduler, that may turn out not to have begun


class RemoteLink:
    """One worker's place with its schedulers; keeps the contract of `link.Link`.

    Args:
        worker: The place, from 0.
        schedulers: How many schedulers it has.
        launch: Makes its processes.
        budget: For replacements, of the whole manager.
        shipper: Shared by all workers of the manager.
        tally: Told of every start and end.
        loop_thread: Where calls are right.
        manager: The manager's id.
        boot: The payload of the initializer's call, or None.
        rerun: Whether tasks that had started run again when their worker has died.
        failed: Called with the reason when the place cannot be filled.
        asked_inside: Called with the fields of each request that a task makes of its manager.

    Attributes:
        supervisor: Keeps a process in the place.
    """

    def __init__(
        self,
        worker: int,
        schedulers: int,
        launch: Launch,
        budget: RestartBudget,
        shipper: HostShipper,
        tally: Tally,
        loop_thread: LoopThread,
        manager: str,
        boot: bytes | None,
        rerun: bool,
        failed: Callable[[Exception], None],
        asked_inside: Callable[..., None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.loop_thread: LoopThread = loop_thread
        self.identity: int = secrets.randbits(128)
        self.supervisor: Supervisor = Supervisor(worker, launch, budget, self, failed)
        self._worker = worker
        self._schedulers = schedulers
        self._shipper = shipper
        self._tally = tally
        self._manager = manager
        self._boot = boot
        self._rerun = rerun
        self._asked_inside = asked_inside

        self.outbox: Outbox = Outbox(shipper.catalog.log)
        self._life: Life | None = None  # the process that has been told everything
        self._telling: asyncio.Task[None] | None = None
        self._connected: asyncio.Future[None] | None = None  # while a process is to be told
        self._turn: asyncio.Handle | None = None
        self._decodes: tuple[Decode, Decode, None] = (
            shipper.catalog.decode_result,
            shipper.catalog.decode_failure,
            None,
        )
        self._asked: set[int] = set()  # tasks that were asked to cancel
        self._announced: list[deque[int]] = [
            deque(maxlen=_REMEMBERED) for _ in range(schedulers)
        ]  # the last tasks that were, of each scheduler, in order
        # Large outcomes, ahead of their FINISHED; None: there was no memory for it.
        self._blobs: dict[int, bytes | None] = {}
        self._inside = b""  # the parts of a request so far
        self._holders = Holders(self)
        self._unheard: dict[int, str] = {}  # names of tasks whose failure nobody will be told of
        self._may_name = _UNHEARD_NAMED
        self._reason: Exception | None = None  # why the manager has failed
        self._counts = self.supervisor.counts
        self._history = History()
        self._numbers: dict[int, int] = {}  # of tasks that were scheduled inside, by alias
        self._aliases: dict[int, int] = {}  # the other way round

    # ---- life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Spawns the process.

        Raises:
            OSError: The system has no room for it.
        """
        self.loop = loop
        self._connected = loop.create_future()
        self.supervisor.start(loop)

    async def ready(self) -> None:
        """Returns when the first process answers.

        Raises:
            WorkerStartError: It could not begin.
        """
        await self.supervisor.ready()

    async def close(self, timeout: float | None) -> None:
        """Ends the process: politely, then not; settles every task."""
        self._send()
        self._stop_telling()
        await self.supervisor.close(timeout)

    def kill(self, reason: Exception) -> None:
        """Ends the process at once: the manager has failed."""
        self._reason = reason
        self.supervisor.fail()

    # ---- from one process to the next

    def connect(self, life: Life) -> None:
        """Tells a new process everything: definitions, tasks, and then to begin."""
        assert self.loop is not None
        self._drop_asked()
        self._telling = self.loop.create_task(self._tell(life, *self.outbox.restart()))

    async def _tell(
        self, life: Life, frames: Iterator[bytes], blobs: list[tuple[int, bytes]]
    ) -> None:
        """Sends the frames of what has not ended, as fast as they are read."""
        try:
            for frame in frames:
                life.pipe.send(frame)
                if life.pipe.waiting > HIGH_WATER:
                    life.pipe.flush()
                    await life.pipe.drain(HIGH_WATER)
            for number, payload in blobs:
                life.pipe.send_blob(number, payload)
            for part, last in wire.cut(self._boot or b""):
                life.pipe.send(wire.encode([Kind.BOOT, part, last]))
        except Exception as error:  # noqa: BLE001  whatever it is, this process knows too little
            life.kill(f"it cannot be told its tasks: {error!r}")
            return
        self._life, self._telling = life, None
        self._release()
        self._send()

    def _release(self) -> None:
        """Has `flush` go on."""
        if self._connected is not None and not self._connected.done():
            self._connected.set_result(None)

    # ---- tasks

    def take_options(self, options: Options) -> int:
        """Turns the options of tasks into what travels of them."""
        return self._shipper.take_options(options)

    def take(self, awaitable: Awaitable[Any], options: int | None) -> Call:
        """Takes a coroutine apart.

        Raises:
            NotShippable: It cannot travel.
        """
        return self._shipper.take(awaitable, options)

    def schedule(self, scheduler: int, due: int, when: datetime | int, call: Call) -> Task[Any]:
        """Gives a task its number and puts it into the next frame."""
        function, payload, options = call
        number = self.outbox.add(scheduler, due, function, payload, options)
        if self._turn is None or self.outbox.full:
            self._send_soon()
        label = function if options is None else self._label(function, options)
        return self._holders.hand_out(scheduler, number, when, label)

    def take_function(self, function: Callable[..., Any]) -> int | bytes:
        """Turns what `map` calls into what travels of it."""
        return self._shipper.take_function(function)

    def take_arguments(self, args: tuple[Any, ...]) -> Payload:
        """Turns the arguments of one call into what travels of them."""
        return self._shipper.take_arguments(args)

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
        """Sends calls of one function as one frame."""
        first = self.outbox.add_many(scheduler, dues, function, payloads, options)
        self._holders.add(Part(outcomes, offset, self, scheduler, first, len(payloads), dues))
        self._send_soon()

    def room(self) -> int:
        """How many calls `schedule_many` takes at a time."""
        return PAGE

    def adopt(self, scheduler: int, due: int, call: Call, alias: int) -> None:
        """Takes a task that was scheduled inside a worker, which gave it a number: its alias."""
        function, payload, options = call
        record = wire.make_record(options, alias)
        number = self.outbox.add(scheduler, due, function, payload, record)
        self._numbers[alias] = number
        self._aliases[number] = alias
        self._send_soon()

    def find(self, scheduler: int, number: int) -> Task[Any] | None:
        """Gives a handle on a task that has not ended, else None."""
        number = self._numbers.get(number, number)
        self.outbox.pack()
        found = self.outbox.ledger.find(number)
        if found is None or found[0] != scheduler:
            return None
        task = self._holders.find(number)
        if task is None:
            _, due, function, record = found
            # By its name, as nothing keeps the function's number for this handle.
            task = self._holders.hand_out(scheduler, number, due, self._name(function, record))
        return task

    def cancel(self, scheduler: int, number: int) -> bool:
        """Sends the request, if the task is not known to have ended."""
        number = self._numbers.get(number, number)
        if number not in self.outbox:
            return False
        if number not in self._asked:
            self._asked.add(number)
            if not self.outbox.ledger.has_started(number):
                self._tally.started(self._worker, scheduler, 1)
        self.outbox.cancel(scheduler, number)
        self._send_soon()
        return True

    def state(self, number: int) -> State:
        """PENDING or RUNNING: a task that has ended has told its handle."""
        return State.RUNNING if self.outbox.ledger.has_started(number) else State.PENDING

    def ref(self, scheduler: int, number: int) -> TaskRef:
        alias = self._aliases.get(number, number)
        return TaskRef(self._manager, self._worker, scheduler, alias)

    def due(self, scheduler: int, number: int) -> int | None:
        self.outbox.pack()
        found = self.outbox.ledger.find(number)
        return None if found is None or self.outbox.ledger.has_started(number) else found[1] or None

    def _label(self, function: int | bytes, record: wire.Record) -> object:
        """What a handle is given as its label: its name, or the function's number."""
        options, *_ = wire.read_record(record)
        named = None if options is None else self._shipper.catalog.options[options].name
        return named or function

    def _name(self, function: int | bytes, record: wire.Record) -> str:
        """The name of a task that has no handle."""
        label = self._label(function, record)
        return label if isinstance(label, str) else self.name_of(label)

    def name_of(self, label: Any) -> str:
        return self._shipper.catalog.names.get(label, "")

    def hold(self, task: Task[Any]) -> None:
        self._holders.hold(task)

    def release(self, task: Task[Any]) -> None:
        self._holders.release(task)

    async def flush(self) -> None:
        """Returns when less than `pipe.HIGH_WATER` bytes wait to be written.

        While a process is replaced, that is when the next has been told everything.
        """
        self._send()
        if self._life is None and self._connected is not None and self.outbox.size > HIGH_WATER:
            await asyncio.shield(self._connected)
        if self._life is not None:
            await self._life.pipe.drain(HIGH_WATER)

    def look_after(self, lag: float) -> None:
        """Is called once a tick."""
        assert self.loop is not None
        self.supervisor.look_after()
        self._shipper.catalog.forget_namespaces()
        self._shipper.catalog.forget_unused()
        self._send()  # which tells the worker of it
        self._holders.forget_dropped()
        self._history.expire(self.loop.time())
        self._may_name = _UNHEARD_NAMED

    def vitals(self) -> Vitals:
        """Gives what `Manager.stats()` needs to know."""
        supervisor = self.supervisor
        life = supervisor.life
        return Vitals(
            supervisor.state,
            supervisor.avoided,
            life.pid if life is not None else None,
            self.outbox.ledger.running,
            self._counts,
            self._history,
        )

    # ---- sending

    def _send_soon(self) -> None:
        """Sends at the end of this turn of the loop, or now if there is enough for a write."""
        if self.outbox.full:
            self._send()
        elif self._turn is None and self.loop is not None:
            self._turn = self.loop.call_soon(self._send)

    def _send(self) -> None:
        """Sends what has been collected, in one write."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._life is None:
            return
        pipe = self._life.pipe
        try:
            frames, blobs = self.outbox.take()
            for frame in frames:
                pipe.send(frame)
            for number, payload in blobs:
                pipe.send_blob(number, payload)
            pipe.flush()
        except Exception as error:  # noqa: BLE001  the next process is told all of it again
            life, self._life = self._life, None
            life.kill(f"it cannot be sent its tasks: {error!r}")

    # ---- receiving

    def receive(self, frame: wire.Frame) -> None:
        """Takes a frame of the worker's.

        Raises:
            Exception: It is none that a worker of ours writes. All that it said up to what is
                wrong has been taken.
        """
        kind, *fields = frame
        if kind == Kind.FINISHED:
            self._finished(*fields)
        elif kind == Kind.STARTED:
            self._started(*fields)
        elif kind == Kind.BLOB:
            self._blobs[fields[0]] = fields[1]
        elif kind == Kind.INSIDE:
            self._take_inside(*fields)
        elif kind == Kind.UNSTARTED:
            self._unstarted(*fields)
        elif kind == Kind.TICK:
            self._tick(*fields)
        else:
            raise wire.WireError(f"a worker does not send {Kind(kind).name}")

    def _started(self, scheduler: int, numbers: list[int]) -> None:
        self._check(scheduler, numbers)
        known = self.outbox.ledger.start(numbers)
        count = known
        if self._asked:  # these do not count as waiting any more
            count -= len(self._asked.intersection(numbers[:known]))
        self._announced[scheduler].extend(numbers[:known])
        self._tally.started(self._worker, scheduler, count)
        _check_all(numbers, known)

    def _tick(self, lag: float, most: int, total: int, counts: list[int], forgotten: int) -> None:
        """Takes what the worker tells once a tick of its lateness."""
        assert self.loop is not None
        numbers = (most, total, forgotten, *counts)
        if (
            not (type(lag) is float and 0 <= lag < math.inf)
            or len(counts) > len(BOUNDS)
            or not all(type(number) is int and number >= 0 for number in numbers)
        ):
            raise wire.WireError(f"no report of a worker: {lag!r}, {numbers!r:.80}")
        self._history.add(self.loop.time(), lag, (most, total, counts))
        self.outbox.definitions.confirm(forgotten)

    def _unstarted(self, scheduler: int, numbers: list[int]) -> None:
        """Has tasks wait again that were announced."""
        self._check(scheduler, numbers)
        known = self.outbox.ledger.unstart(numbers)
        waiting = known - len(self._asked.intersection(numbers[:known]))
        self._tally.started(self._worker, scheduler, -waiting)
        _check_all(numbers, known)

    def _check(self, scheduler: int, numbers: list[int]) -> None:
        """Looks whether a frame can be taken, before anything is changed by it."""
        if not 0 <= scheduler < self._schedulers or set(map(type, numbers)) - {int}:
            raise wire.WireError(f"no frame of a worker: {scheduler!r}, {numbers!r:.80}")

    def _finished(
        self,
        scheduler: int,
        numbers: list[int],
        ending: int,
        payloads: list[Payload],
    ) -> None:
        self._check(scheduler, numbers)
        state, decode = _ENDINGS[ending], self._decodes[ending]
        if len(payloads) != len(numbers):
            raise wire.WireError(f"{len(payloads)} outcomes of {len(numbers)} tasks")
        has_blobs = wire.IN_BLOB in payloads
        if has_blobs:
            self._check_blobs(numbers, payloads)
        if self._shipper.catalog.log.leased and ending != wire.DROPPED:
            payloads = self._keep_leases(numbers, payloads)
        if state is State.FAILED:
            self._name_unheard(numbers)
        if ending == wire.DROPPED:
            known = self._end_dropped(scheduler, numbers)
        else:
            known = self.outbox.ledger.end_started(numbers)
        in_rows = ending == wire.RETURNED and self._holders.has_batches and not has_blobs
        self._counts[state.value] += known
        self._settle_some(scheduler, numbers[:known], state, payloads[:known], decode, in_rows)
        self._tally.ended(self._worker, scheduler, known)
        _check_all(numbers, known)

    def _check_blobs(self, numbers: list[int], payloads: list[Payload]) -> None:
        for number, payload in zip(numbers, payloads, strict=True):
            if isinstance(payload, list) and number not in self._blobs:
                raise wire.WireError(f"the outcome of task {number} did not come")

    def _keep_leases(self, numbers: list[int], payloads: list[Payload]) -> list[Payload]:
        """Return outcomes with the leases of what they name."""
        if bytes not in map(type, payloads) and not self._blobs:
            return payloads
        lease = self._shipper.catalog.log.lease
        kept: list[Payload] = []
        for number, payload in zip(numbers, payloads, strict=True):
            if isinstance(payload, list) and (blob := self._blobs[number]) is not None:
                self._blobs[number] = leased(blob, map(lease, names_in(blob)))
            elif isinstance(payload, bytes) and payload[0] == NAMING:
                kept.append(leased(payload, map(lease, names_in(payload))))
                continue
            kept.append(payload)
        return kept

    def _name_unheard(self, numbers: list[int]) -> None:
        """Looks up the names of tasks that nobody has a handle on, while the ledger has them.

        A few of them: it takes 0.1 ms each, and a million may fail.
        """
        self._unheard.clear()
        for number in numbers:
            if not self._may_name:
                break
            if number not in self._holders:
                self._may_name -= 1
                found = self.outbox.ledger.find(number)
                if found is not None:
                    self._unheard[number] = self._name(found[2], found[3])

    def _end_dropped(self, scheduler: int, numbers: list[int]) -> int:
        """Strikes out cancelled tasks, started or not; gives how many of them are known."""
        known = waited = 0
        for number in numbers:
            started = self.outbox.ledger.end(number)
            if started is None:
                break
            waited += not started and number not in self._asked
            known += 1
        self._tally.started(self._worker, scheduler, waited)
        return known

    def _settle_some(
        self,
        scheduler: int,
        numbers: list[int],
        state: State,
        payloads: list[Payload],
        decode: Decode | None,
        in_rows: bool,
    ) -> None:
        start = 0
        while start < len(numbers):
            stop = end_of_row(numbers, start) if in_rows else start + 1
            if stop - start == 1 or not self._settle_row(numbers[start], payloads[start:stop]):
                for number, payload in zip(numbers[start:stop], payloads[start:stop], strict=True):
                    if not isinstance(payload, list):
                        self._settle(scheduler, number, state, payload, decode)
                    elif (outcome := self._blobs.pop(number)) is not None:
                        self._settle(scheduler, number, state, outcome, decode)
                    else:
                        self._settle(scheduler, number, State.FAILED, _no_memory(state), None)
            start = stop

    def _settle_row(self, first: int, payloads: list[Payload]) -> bool:
        """Settles results with numbers in a row, if they are of one batch."""
        decode = self._shipper.catalog.decode_result
        return not self._asked and self._holders.settle_row(first, payloads, State.FINISHED, decode)

    def _settle(
        self, scheduler: int, number: int, state: State, value: Any, decode: Decode | None
    ) -> None:
        """Tells a task's end to whoever holds it, and forgets the task. Never raises."""
        told = self._holders.settle(number, state, value, decode)
        if not told and state is State.FAILED:
            name = self._unheard.pop(number, "")
            who = f"{name} {self.ref(scheduler, number)}".lstrip()
            report(self.loop, f"task {who}", value, decode)
        self._asked.discard(number)
        if self._aliases and number in self._aliases:
            del self._numbers[self._aliases.pop(number)]

    def _take_inside(self, part: bytes, last: bool) -> None:
        """Collects a request that a task made of its manager."""
        self._inside += part
        if last:
            request, self._inside = wire.unpack(self._inside), b""
            self._asked_inside(*request)

    # ---- the end

    def cut(self, life: Life, exitcode: int | None) -> str:
        """Sorts out what the dead process leaves: what had started, and what waits.

        Returns:
            What becomes of it, in words.
        """
        assert self.loop is not None
        self._disconnect()
        self._release()
        self._connected = self.loop.create_future()
        self._return_unbegun(life)
        self._drop_asked()
        ledger = self.outbox.ledger
        waiting, started = len(ledger) - ledger.running, ledger.running
        names = self.describe_running()
        for scheduler, numbers in ledger.by_scheduler(ledger.started()).items():
            if self._rerun:
                ledger.rerun(numbers)
                self._tally.started(self._worker, scheduler, -len(numbers))
                continue
            ledger.end_started(numbers)
            self._counts[State.LOST.value] += len(numbers)
            for number in numbers:
                error = self._lost(exitcode, True, self._holders.handle_of(number))
                self._settle(scheduler, number, State.LOST, error, None)
            self._tally.ended(self._worker, scheduler, len(numbers))
        fate = f"{waiting:,} pending tasks go to the next process"
        if started:
            then = "started, to run again" if self._rerun else "started, and lost"
            fate += f"; {then}: {started:,} ({names})"
        return fate

    def describe_running(self) -> str:
        """Names tasks that have started and not ended; at most a few."""
        ledger, names = self.outbox.ledger, []
        for number in islice(ledger.started(), _NAMED):
            found = ledger.find(number)
            assert found is not None
            task = self._holders.find(number)
            name = self._name(found[2], found[3]) if task is None else task.name
            names.append(f"{name and name + ' '}{self.ref(found[0], number)}")
        more = f" and {ledger.running - _NAMED:,} more" if ledger.running > _NAMED else ""
        return ", ".join(names) + more

    def settle_all(self, exitcode: int | None, lost: bool) -> None:
        """Ends every task for which no outcome came; what has not started as lost or cancelled."""
        self._disconnect()
        self._release()
        try:
            self.outbox.pack()
        except Exception:
            log.exception("what was scheduled last could not be put into a frame")
        ledger = self.outbox.ledger
        state = State.LOST if lost else State.CANCELLED
        for row in list(ledger.pending_rows()):  # millions, maybe: a tenth of the cost
            if self._asked.isdisjoint(row):
                error = self._lost(exitcode, False) if lost else None
                ledger.end_pending(list(row))
                self._counts[state.value] += len(row)
                self._holders.settle_alike(row, state, error)
        for number in [*ledger, *self.outbox.loose]:
            started = ledger.end(number)
            if number in self._asked or not (started or lost):
                self._counts[State.CANCELLED.value] += 1
                self._settle(0, number, State.CANCELLED, None, None)
            else:
                self._counts[State.LOST.value] += 1
                error = self._lost(exitcode, bool(started), self._holders.handle_of(number))
                self._settle(0, number, State.LOST, error, None)
        self._numbers.clear()
        self._aliases.clear()
        self._tally.emptied(self._worker)

    def _lost(
        self, exitcode: int | None, started: bool, task: Task[Any] | None = None
    ) -> WorkerLost:
        why = self._reason
        text = "" if why is None else getattr(why, "__notes__", [str(why)])[0]
        error = WorkerLost(self._worker, exitcode, started, text, self.supervisor.cause)
        error.__cause__ = why
        if task is not None:
            error.add_note(task._note)
        return error

    def _disconnect(self) -> None:
        """Forgets what was under way between the two processes."""
        self._stop_telling()
        self._life = None
        self._blobs.clear()
        self._inside = b""

    def _stop_telling(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    def _return_unbegun(self, life: Life) -> None:
        """Has tasks wait again that were announced and, by the black box, never begun.

        A task that has begun and was not announced says that announcements were lost: then all
        that was announced may have begun.
        """
        for scheduler, announced in enumerate(self._announced):
            try:
                begun = life.begun(scheduler) - 1
            except Exception:
                log.exception("the black box of worker %d cannot be read", self._worker)
                announced.clear()
                continue
            ledger = self.outbox.ledger
            if begun in announced or begun < 0:
                last = announced.index(begun) if begun >= 0 else -1
                after = islice(announced, last + 1, None)
                self._unstarted(scheduler, list(filter(ledger.has_started, after)))
            elif begun in ledger and not ledger.has_started(begun):
                self._started(scheduler, [begun])
            announced.clear()

    def _drop_asked(self) -> None:
        """Ends what was asked to cancel and has no process to confirm it."""
        self.outbox.pack()
        ledger = self.outbox.ledger
        for scheduler, numbers in ledger.by_scheduler(self._asked).items():
            self._counts[State.CANCELLED.value] += len(numbers)
            for number in numbers:
                ledger.end(number)
                self._settle(scheduler, number, State.CANCELLED, None, None)
            self._tally.ended(self._worker, scheduler, len(numbers))


def _no_memory(state: State) -> Exception:
    return RemoteError(
        "MemoryError",
        f"the task has {state.value}, and this process has no memory for its outcome",
        "",
    )


def _check_all(numbers: list[int], known: int) -> None:
    if known < len(numbers):
        raise wire.WireError(f"task {numbers[known]} was never sent, or was told of twice")
