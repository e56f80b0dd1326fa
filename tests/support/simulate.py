"""Host and workers in one thread, on virtual time, joined by pipes that delay and cut: simulated.

    python tests/support/simulate.py --seeds 5000          from 0 on
    python tests/support/simulate.py --seed 1234 --trace   one of them again, exactly

The host's side is the real `Manager` and the worker's side the real `Worker`; in between, instead
of processes and pipes, are `Life` and `SimulatedPipe`, which add what goes wrong to those of
`aioscheduler._processes.paired`. A seed decides everything: how large a
pipe is, how long bytes are under way, where a write is cut, and what happens: schedule, map,
cancel, let time pass, set the clock, kill, freeze, tell to go, close. Payloads have 0 to 64 KiB,
many at a time, so that pages of the ledger are half done when a worker dies. Functions are of
every kind that has a way of its own. And there is spite: arguments, results and exceptions whose
pickling or reading raises, frames that the reader refuses, a pipe, a clock, a black box or a start
that raises at any point, handlers that raise, times that are none.

Each task tells a small model of its beginning and end; at last the model is compared with what the
handles say. Time is virtual: an hour passes when nothing is left to do before it, and if nothing
will ever happen and something is awaited, that is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import functools
import gc
import logging
import random
import selectors
import sys
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import import_module
from typing import Any

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    RemoteError,
    State,
    Task,
    TimedScheduler,
    WorkerLost,
    WorkerStartError,
)
from aioscheduler._processes.incarnation import Ended
from aioscheduler._processes.paired import Channel, PairedLife, PairedPipe
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._routing.fleet import Seams
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._transport.pipe import Closed, Receive
from aioscheduler._transport.wire import Kind

EPOCH = 1_700_000_000 * SECOND
PAYLOADS = (0, 100, 3_000, 20_000, 40_000, 64_000)  # bytes, at most
SLICE_PATIENCE = 30.0  # virtual seconds from being due to the start, at most
LONGEST = 10_000.0  # virtual seconds in which everything must have ended


class VirtualSelector(selectors.DefaultSelector):
    """Does not wait: it tells how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("nothing will ever happen")
            self.passed += max(timeout, 0.0)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.passed


class Spite(Exception):
    """Raised in the middle of something, because the seed says so."""


class SimulatedChannel(Channel):
    """Bytes that take their time."""

    def __init__(
        self, life: Life, loop: asyncio.AbstractEventLoop, generator: random.Random
    ) -> None:
        super().__init__()
        self.life = life
        self._loop = loop
        self._random = generator
        self._capacity = generator.choice((1000, 20_000, 1 << 20))
        self._slowness = generator.choice((0.0, 0.001, 0.3))
        self._under_way: deque[bytes] = deque()
        self._held = 0  # bytes written and not read
        self._frozen_until = 0.0
        self.writer: SimulatedPipe | None = None

    def write(self, data: memoryview) -> int:
        if self.closed:
            raise BrokenPipeError
        room = self._capacity - self._held
        if room < min(len(data), self._capacity // 4):  # as a real one, else bytes come singly
            raise BlockingIOError
        count = min(room, len(data))
        if self._random.random() < 0.2:
            count = self._random.randint(1, count)
        self._under_way.append(bytes(data[:count]))
        self._held += count
        self._loop.call_later(self._random.random() * self._slowness, self._arrive)
        return count

    def freeze(self, seconds: float) -> None:
        self._frozen_until = self._loop.time() + seconds

    def _arrive(self) -> None:
        left = self._frozen_until - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._arrive)
        elif self._under_way:
            self._arrived += self._under_way.popleft()
            self.tell_reader()

    def arrive_at_once(self) -> None:
        """What was written survives its writer."""
        self._arrived += b"".join(self._under_way)
        self._under_way.clear()

    def read(self) -> bytes:
        data = super().read()
        if self._random.random() < 0.2:
            count = self._random.randint(1, len(data))
            data, self._arrived[:0] = data[:count], data[count:]
            self.tell_reader()
        self._held -= len(data)
        if self.writer is not None:
            self._loop.call_soon(self.writer.room_now, context=self.writer.context)
        return data


class SimulatedPipe(PairedPipe):
    """One that has to wait for room."""

    def __init__(
        self,
        inward: SimulatedChannel,
        outward: SimulatedChannel,
        context: contextvars.Context,
        receive: Receive,
        closed: Closed,
    ) -> None:
        super().__init__(inward, outward, context, self._receive_or_refuse, closed)
        outward.writer = self
        self._life = inward.life
        self._take = receive

    def _receive_or_refuse(self, frame: list[Any]) -> None:
        if frame[0] == Kind.STARTED:  # what is said there must be taken, or nothing holds
            self._take(frame)
        self._life.suffer(0.002)
        if frame[0] != Kind.STARTED:
            self._take(frame)

    def send(self, frame: bytes, written: Callable[[], None] | None = None) -> None:
        self._life.suffer(0.001)
        super().send(frame, written)

    def room_now(self) -> None:
        if self._waits_for_room and self.descriptors[1] >= 0:
            self._waits_for_room = False
            self.flush()

    def _wait_for_room(self, wait: bool) -> None:
        self._waits_for_room = wait


LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("LIFE")


class Life(PairedLife):
    """A worker process that is none, and suffers what the seed says."""

    _pipe_class = SimulatedPipe

    def __init__(
        self, world: World, config: WorkerConfig, number: int, receive: Receive, ended: Ended
    ) -> None:
        self.world = world
        self.place = config.worker
        self.channels: list[SimulatedChannel] = []  # to the worker, to the host
        super().__init__(config, self.clock, number, receive, ended)
        self.number = number
        self.pid = world.next_pid()
        self.context.run(LIFE.set, self)

    def _make_channel(self) -> SimulatedChannel:
        self.channels.append(SimulatedChannel(self, self.world.loop, self.world.random))
        return self.channels[-1]

    def suffer(self, probability: float) -> None:
        """Raises, if the seed is spiteful, but not before the place has been ready once."""
        world = self.world
        if world.spiteful and world.may_die(self) and world.random.random() < probability:
            world.say("spite in", self.pid)
            raise Spite(f"the seed says so, in {self.pid}")

    def clock(self) -> int:
        self.suffer(0.0005)
        return self.world.clock()

    def begun(self, scheduler: int) -> int:
        if self.world.spiteful and self.world.random.random() < 0.05:
            raise Spite("the black box cannot be read")
        return super().begun(scheduler)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.world.random.random() < 0.05:
            raise OSError("no room, says the seed")
        if self.number and self.world.spiteful and self.world.random.random() < 0.05:
            raise Spite("it cannot be started")
        super().start(loop)
        self.world.lives.append(self)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(self.world.random.random(), self._serve_late, loop)

    def _serve_late(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self.dead:
            super()._serve(loop)

    def freeze(self, seconds: float) -> None:
        for channel in self.channels:
            channel.freeze(seconds)

    def drain(self) -> None:
        if not self.dead and self._serving is not None:
            self.context.run(self.worker.drain)

    def _stream_ended(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, Spite):
            self.world.faults.append(f"the host could not read a frame: {error!r}")
        super()._stream_ended(error)

    def _reap(self, exitcode: int) -> None:
        self.channels[1].arrive_at_once()
        super()._reap(exitcode)


class SimulatedManager(Manager):
    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        seams = Seams(world.clock, lambda config, *_: partial(Life, world, config))
        super().__init__(*args, **kwargs | {"_seams": seams})


@dataclass
class Story:
    """What the model knows of a task."""

    due: int
    deed: str = ""  # "" for one that returns; else where it raises, and what
    asked: bool = False
    starts: list[Life] = field(default_factory=list)
    cancels: int = 0  # CancelledErrors seen inside
    ends: list[State] = field(default_factory=list)
    error: BaseException | None = None


class World:
    """Everything that a seed decides."""

    def __init__(self, seed: int, loop: VirtualLoop, trace: bool) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.loop = loop
        self.trace = trace
        self.offset = 0
        self.jumps: list[tuple[float, int]] = []  # when the clock was set, and what it said before
        self.lives: list[Life] = []
        self.faults: list[str] = []
        self.stories: list[Story] = []
        self.handles: list[Task[int]] = []
        self.order: list[int] = []  # of first starts
        self.cls = self.random.choice(
            (TimedScheduler, TimedScheduler, QueuedScheduler, LifoQueuedScheduler)
        )
        self.rerun = self.random.random() < 0.4
        self.spiteful = self.random.random() < 0.5
        self.unheard = 0  # tasks whose handles were dropped at once
        workers = self.random.randint(1, 3)
        schedulers = workers * self.random.randint(1, 2)
        self._pids = 0
        self.manager = SimulatedManager(
            self,
            schedulers,
            cls=self.cls,
            workers=workers,
            on_worker_loss="rerun" if self.rerun else "fail",
            max_restarts=(10**9, 1.0),
        )
        self.layout = [link.book.schedulers for link in self.manager._remotes]

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def clock(self) -> int:
        return EPOCH + self.offset + int(self.loop.time() * SECOND)

    def say(self, *words: object) -> None:
        if self.trace:
            print(f"{self.loop.time():10.4f}", *words)

    # ---- what happens

    def delay(self) -> timedelta | None:
        if self.cls is not TimedScheduler:
            return None
        return timedelta(seconds=self.random.choice((0.0, self.random.random() * 5)))

    def due(self, delay: timedelta | None) -> int:
        return self.clock() + (int(delay / timedelta(microseconds=1)) * 1000 if delay else 0)

    def padding(self) -> bytes:
        most = self.random.choices(PAYLOADS, (70, 10, 8, 6, 3, 3))[0]
        return bytes(self.random.randint(0, most))

    def schedule(self) -> None:
        ident, delay = len(self.stories), self.delay()
        due = self.due(delay)
        nap = self.random.choice((0.0, 0.0, self.random.random()))
        key = self.random.choice((None, "a", "b"))
        deed = self.deed()
        function = self.random.choice(
            (act, act, act, decorated, Heir().act, captured(ident), made_for(ident))
        )
        coro = function(ident, nap, self.padding(), spoil(deed, "read an argument"), deed)
        task = self.manager.schedule(coro, delay, key=key)
        self.watch(ident, task, due, deed)
        self.say("schedule", ident, delay, nap, deed, task.ref)

    def deed(self) -> str:
        if not self.spiteful or self.random.random() < 0.8:
            return ""
        where = self.random.choice(("raise", "read an argument", "write a result", "read a result"))
        return f"{where}: {self.random.choice(tuple(ODD))}"

    def bulk(self) -> None:
        """Many at once, large and small, due now and later: pages that will be half done."""
        most = self.random.choice(PAYLOADS[2:5])
        delays = (self.delay(), self.delay())
        self.say("bulk", len(self.stories), most, *delays)
        for _ in range(self.random.randint(30, 300)):
            ident, delay = len(self.stories), self.random.choice(delays)
            due = self.due(delay)
            payload = bytes(self.random.randint(0, most))
            self.watch(ident, self.manager.schedule(act(ident, 0.0, payload), delay), due)

    def map(self) -> None:
        first, count, delay = len(self.stories), self.random.randint(1, 40), self.delay()
        due = self.due(delay)
        calls = [(first + n, 0.0, self.padding()) for n in range(count)]
        function = self.random.choice(
            (act, decorated, Heir().act, captured(first), made_for(first))
        )
        batch = self.manager.starmap(function, calls, delay)
        for n in range(count):
            self.watch(first + n, batch[n], due)
        self.say("map", first, count, delay)

    def drop(self) -> None:
        """A failure that nobody will ask for."""
        deed = self.deed()
        if deed.startswith(("raise", "write")):
            self.manager.schedule(fail(spoil(deed, "raise"), spoil(deed, "write a result")))
            self.unheard += 1

    def odd_time(self) -> None:
        if self.cls is TimedScheduler:
            coro = act(-1, 0.0, b"")
            try:
                self.manager.schedule(coro, self.random.choice(NO_TIMES))
            except (ValueError, TypeError):
                return
            self.faults.append("a time that is none was accepted")

    def watch(self, ident: int, task: Task[int], due: int, deed: str = "") -> None:
        story = Story(due, deed)
        self.stories.append(story)
        self.handles.append(task)

        def ended(task: Task[int]) -> None:
            story.ends.append(task.state)
            try:
                story.error = task.exception()
            except BaseException as error:  # noqa: BLE001  it is judged later
                story.error = error
            self.say("end", ident, task.state, type(story.error).__name__)
            if self.spiteful and self.random.random() < 0.05:
                raise Spite("a callback raises")

        task.add_done_callback(ended)

    def cancel(self) -> None:
        if self.handles:
            ident = self.random.randrange(len(self.handles))
            done = self.handles[ident].done()
            asked = self.handles[ident].cancel()
            if asked is done:
                self.faults.append(f"cancel of {ident} said {asked}, and it was done: {done}")
            self.stories[ident].asked |= asked
            self.say("cancel", ident, asked)

    def may_die(self, life: Life) -> bool:
        """Whether a life may be hurt: one that dies before a first READY is the end of all."""
        ready = self.manager._remotes[life.place].supervisor._ready
        return not life.dead and ready is not None and ready.done()

    def alive(self) -> list[Life]:
        return [life for life in self.lives if self.may_die(life)]

    def hurt(self) -> None:
        if self.alive():
            life = self.random.choice(self.alive())
            deed = self.random.choice(("kill", "kill", "freeze", "drain"))
            self.say(deed, life.pid)
            if deed == "kill":
                life.kill()
            elif deed == "drain":
                life.drain()
            else:
                life.freeze(self.random.random() * 5)

    def set_clock(self) -> None:
        self.jumps.append((self.loop.time(), self.clock()))
        self.offset += int((self.random.random() - 0.5) * 20 * SECOND)
        self.say("the clock is set", self.offset)

    def collect(self) -> None:
        """Classes that were made for a call are gone from here on, and not at some other time."""
        gc.collect(1)  # what this seed has made
        self.say("garbage is collected")

    async def run(self) -> None:
        """Lives through the seed's story and judges it."""
        manager = self.manager
        early = self.random.random() < 0.3
        if early:
            self.schedule()
        try:
            manager.start()
        except WorkerStartError:  # the seed refused it: that is told, and the end
            await manager.close()
            return
        deeds = (
            *(self.schedule, self.map, self.cancel, self.hurt, self.set_clock),
            *(self.bulk, self.drop, self.odd_time, self.collect),
        )
        weights = (10, 2, 6, self.random.choice((0.2, 1, 3)), 0.3, 0.1, 1, 0.3, 0.1)
        for _ in range(self.random.randint(5, 150)):
            self.random.choices(deeds, weights)[0]()
            if self.random.random() < 0.5:
                await asyncio.sleep(self.random.choice((0, 0.001, 0.1, 2)) * self.random.random())
        closed = self.random.random() < 0.5
        async with asyncio.timeout(LONGEST):
            if closed:
                self.say("close")
                await manager.close(self.random.random() * 2)
            else:
                await manager.join()
                await manager.close()
        await asyncio.sleep(0)
        self.judge(closed)

    # ---- judgement

    def judge(self, closed: bool) -> None:
        for ident, story in enumerate(self.stories):
            self.judge_one(ident, story, closed)
        if len(self.manager) or self.manager._router.placement.all_loads:
            self.faults.append(f"{self.manager!r} counts {len(self.manager)} after all has ended")
        if any(self.manager._router.placement.waiting + self.manager._router.placement.loads):
            self.faults.append("places are not empty")
        if (
            self.cls is QueuedScheduler
            and sum(self.layout) == 1
            and self.order != sorted(self.order)
        ):
            self.faults.append(f"a queue ran out of order: {self.order}")

        stats = self.manager.stats()
        ends = Counter(end for story in self.stories for end in story.ends)
        told = (stats.pending, stats.running, stats.finished)
        seen = (0, 0, ends[State.FINISHED])
        others = stats.failed + stats.cancelled + stats.lost - self.unheard
        if told != seen or others != ends[State.FAILED] + ends[State.CANCELLED] + ends[State.LOST]:
            self.faults.append(f"stats say {stats} and not {ends}, {self.unheard} unheard")

    def judge_one(self, ident: int, story: Story, closed: bool) -> None:
        def check(good: object, what: str) -> None:
            if not good:
                self.faults.append(f"task {ident} {what}: {story}")

        check(len(story.ends) == 1, "has not exactly one end")
        end = story.ends[0] if story.ends else None
        check(len(story.starts) <= 1 or self.rerun, "started twice")
        for life in story.starts[:-1]:
            check(life.dead, "ran in two processes at once")
        odd = story.deed.partition(": ")[2]
        if end is State.FINISHED:
            check(story.starts, "finished and never started")
            if story.deed:
                check(story.deed.startswith("read a result"), "finished, though it raised")
                check(self.read_again(ident) == self.read_again(ident), "changed its outcome")
            else:
                check(self.handles[ident].result() == ident, "has another's result")
        if end is State.LOST:
            check(isinstance(story.error, WorkerLost), "is lost without a word")
            check(getattr(story.error, "started", False), "was pending and is lost")
            check(closed or not self.rerun, "is lost in spite of rerun")
            check(not story.asked or closed, "was asked to cancel and is lost")
        if end is State.CANCELLED:
            check(story.asked or closed or odd == "cancelled", "was cancelled by nobody")
            check(
                odd == "cancelled"
                or not story.starts
                or story.cancels
                or any(life.dead for life in story.starts),
                "started and ended cancelled without hearing of it",
            )
        if end is State.FAILED:
            # Spite in a worker that takes a frame fails the tasks of the frame.
            check(story.deed or isinstance(story.error, Spite), f"failed: {story.error!r}")
            if story.deed.startswith("raise") and not isinstance(story.error, Spite):
                want = RemoteError if odd.startswith("unpicklable") else type(ODD[odd]())
                check(type(story.error) is want, f"arrived as {story.error!r}")

    def read_again(self, ident: int) -> str:
        """What somebody gets who asks for a result that cannot be read."""
        try:
            return f"returned {self.handles[ident].result()!r:.80}"
        except BaseException as error:  # noqa: BLE001  it may be anything
            return f"raised {error!r}"


# ---- what tasks do


WORLD: list[World] = []


async def act(
    ident: int, nap: float, padding: bytes, argument: object = None, deed: str = ""
) -> Any:
    """What every task does."""
    world, life = WORLD[-1], LIFE.get()
    if life.dead:  # cannot be: only our way to kill lets it come here
        return -1
    story = world.stories[ident]
    world.say("start", ident, "in", life.pid)
    # What has been taken from its queue starts, though the clock is set back in between.
    recent = [reached for at, reached in world.jumps if at > world.loop.time() - SLICE_PATIENCE]
    if max(world.clock(), *recent, 0) < story.due:
        world.faults.append(f"task {ident} is early: {world.clock() - story.due}")
    if not story.starts:
        world.order.append(ident)
    story.starts.append(life)
    try:
        if nap:
            await asyncio.sleep(nap)
    except asyncio.CancelledError:
        story.cancels += not life.dead
        raise
    if deed.startswith("raise"):
        raise ODD[deed.partition(": ")[2]]()
    return spoil(deed, "write a result") or spoil(deed, "read a result") or ident


def traced(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def outer(*args: Any) -> Any:
        return await function(*args)

    return outer


@traced
async def decorated(*args: Any) -> Any:
    return await act(*args)


class Base:
    async def act(self, *args: Any) -> Any:
        return await act(*args)


class Heir(Base):
    async def act(self, *args: Any) -> Any:
        return await super().act(*args)


def captured(number: int) -> Callable[..., Any]:
    """A function that goes by value, with a closure."""

    async def inner(*args: Any, least: int = 0) -> Any:
        assert args[0] >= number >= least
        return await act(*args)

    return inner


MADE = """
class Made(int):
    twice = property(lambda self: 2 * self)

async def made(ident, *args, of):
    assert of.twice == 2 * of
    result = await act(ident, *args)
    return type(of)(ident) if type(result) is int else result
"""


def made_for(number: int) -> Callable[..., Any]:
    """A function and a class that no other call has; both are garbage before it ends."""
    scope: dict[str, Any] = {}
    exec(MADE, globals(), scope)
    return functools.partial(scope["made"], of=scope["Made"](number))


async def fail(error: Spiteful | None, result: Spiteful | None) -> object:
    if error is not None:
        raise ODD[error.kind]()
    return result


class Spiteful:
    """Raises when it is pickled, or when it is read."""

    def __init__(self, where: str, kind: str) -> None:
        self.where = where
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        if self.where == "write a result" and LIFE.get(None) is not None:
            raise ODD[self.kind]()
        return (
            (Spiteful, (self.where, self.kind))
            if self.where == "raise"
            else (_read, (self.where, self.kind))
        )


def _read(where: str, kind: str) -> Spiteful:
    if where.startswith("read") and (where == "read a result") is (LIFE.get(None) is None):
        raise ODD[kind]()
    return Spiteful(where, kind)


def spoil(deed: str, where: str) -> Spiteful | None:
    """What is spiteful there, if that is the deed."""
    return Spiteful(where, deed.partition(": ")[2]) if deed.startswith(where) else None


class Detailed(Exception):
    """As those of httpx, aiohttp and discord: more arguments than `args`."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class OddBase(BaseException):
    """What is no Exception."""


class Unpicklable(Exception):
    """Whose pickling raises what is no Exception, or what is one."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        raise self.kind


ODD: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: ValueError("plain"),
    "detailed": lambda: Detailed("no such page", status=404),
    "base": lambda: OddBase("base"),
    "exit": lambda: SystemExit(7),
    "interrupt": lambda: KeyboardInterrupt(),
    "cancelled": lambda: asyncio.CancelledError(),
    "memory": lambda: MemoryError(),
    "unpicklable": lambda: Unpicklable(ValueError),
    "unpicklable, exit": lambda: Unpicklable(SystemExit),
    "unpicklable, cancelled": lambda: Unpicklable(asyncio.CancelledError),
}


class NotATime(datetime):
    """As pandas' NaT: a datetime by its class, it differs from itself and has no fields."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = datetime.__hash__

    def __sub__(self, other: object) -> Any:
        return self

    __rsub__ = __sub__

    def __lt__(self, other: object) -> bool:
        return False

    __gt__ = __le__ = __ge__ = __lt__

    @property
    def year(self) -> Any:
        return float("nan")

    month = day = hour = minute = second = microsecond = year
    days = seconds = microseconds = year


NO_TIMES: tuple[Any, ...] = (
    NotATime(2100, 1, 1),
    NotATime(2100, 1, 1, tzinfo=UTC),
    float("nan"),
    "soon",
)


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The loop's exception handler, which may raise itself."""
    world = WORLD[-1]
    if world.spiteful and world.random.random() < 0.1:
        raise Spite("a handler raises")


def simulate(seed: int, trace: bool = False) -> list[str]:
    """Lives through a seed; gives what went wrong, in words."""
    gc.disable()  # what goes with a collection is told to workers: a seed says when
    loop = VirtualLoop()
    loop.set_exception_handler(_hear)
    asyncio.set_event_loop(loop)
    with _quiet():
        world = World(seed, loop, trace)
        WORLD.append(world)
        try:
            loop.run_until_complete(world.run())
        except BaseException as error:  # noqa: BLE001  whatever it is, the seed is to be told
            open_ends = [n for n, story in enumerate(world.stories) if not story.ends]
            states = [link.supervisor.state.value for link in world.manager._remotes]
            world.faults.append(f"{error!r}; no end: {open_ends[:10]}; workers: {states}")
        finally:
            WORLD.clear()
            rest = asyncio.all_tasks(loop)
            for task in rest:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            asyncio.set_event_loop(None)
            loop.close()
            gc.enable()
    return world.faults


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args()
    if options.seed is not None:
        options.first, options.seeds = options.seed, 1
    bad: Counter[bool] = Counter()
    for seed in range(options.first, options.first + options.seeds):
        faults = simulate(seed, options.trace)
        bad[bool(faults)] += 1
        for fault in faults[:3]:
            print(f"seed {seed}: {fault[:600]}")
        if seed % 100 == 0:
            gc.collect()
    print(f"{bad[False]:,} seeds held, {bad[True]:,} did not")
    return 1 if bad[True] else 0


if __name__ == "__main__":
    # By its name, so that its functions are found by name.
    sys.exit(import_module("simulate").main())
