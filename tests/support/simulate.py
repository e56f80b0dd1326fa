"""Host and workers in one thread, on virtual time, joined by pipes that delay and cut: simulated.

    python tests/support/simulate.py --seeds 5000          from 0 on
    python tests/support/simulate.py --seed 1234 --trace   one of them again, exactly

The host's side is the real `Manager` and the worker's side the real `Worker`; in between, instead
of processes and pipes, are `Life` and `SimulatedPipe`, which add to `aioscheduler.paired` what goes
wrong. A seed decides everything: how large a
pipe is, how long bytes are under way, where a write is cut, and what happens: schedule, map,
cancel, let time pass, set the clock, kill, freeze, tell to go, close. Each task tells a small
model of its beginning and end; at last the model is compared with what the handles say. Time is
virtual: an hour passes when nothing is left to do before it, and if nothing will ever happen and
something is awaited, that is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import gc
import logging
import random
import selectors
import sys
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    State,
    Task,
    TimedScheduler,
    WorkerLost,
    WorkerStartError,
)
from aioscheduler.clock import SECOND
from aioscheduler.incarnation import Ended, Launch
from aioscheduler.paired import Channel, PairedLife, PairedPipe
from aioscheduler.pipe import Closed, Receive

EPOCH = 1_700_000_000 * SECOND
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


class SimulatedChannel(Channel):
    """Bytes that take their time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, generator: random.Random) -> None:
        super().__init__()
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
        if room <= 0:
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
        super().__init__(inward, outward, context, receive, closed)
        outward.writer = self

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
        self, world: World, config: dict[str, Any], number: int, receive: Receive, ended: Ended
    ) -> None:
        self.world = world
        self.place = config["worker"]
        self.channels: list[SimulatedChannel] = []  # to the worker, to the host
        super().__init__(config, world.clock, number, receive, ended)
        self.pid = world.next_pid()
        self.context.run(LIFE.set, self)

    def _make_channel(self) -> SimulatedChannel:
        self.channels.append(SimulatedChannel(self.world.loop, self.world.random))
        return self.channels[-1]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.world.random.random() < 0.05:
            raise OSError("no room, says the seed")
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
        if error is not None:
            self.world.faults.append(f"the host could not read a frame: {error!r}")
            raise error

    def _reap(self, exitcode: int) -> None:
        self.channels[1].arrive_at_once()
        super()._reap(exitcode)


class SimulatedManager(Manager):
    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        self._world = world
        self._clock = world.clock
        super().__init__(*args, **kwargs)

    def _launcher(self, config: dict[str, Any], loop_initializer: Any) -> Launch:
        return partial(Life, self._world, config)


@dataclass
class Story:
    """What the model knows of a task."""

    due: int
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
        self.layout = [link._schedulers for link in self.manager._remotes]

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

    def schedule(self) -> None:
        ident, delay = len(self.stories), self.delay()
        due = self.clock() + (int(delay / timedelta(microseconds=1)) * 1000 if delay else 0)
        nap = self.random.choice((0.0, 0.0, self.random.random()))
        padding = b"x" * self.random.choices((0, 100, 40_000), (77, 17, 6))[0]
        key = self.random.choice((None, "a", "b"))
        task = self.manager.schedule(act(ident, nap, padding), delay, key=key)
        self.watch(ident, task, due)
        self.say("schedule", ident, delay, nap, task.ref)

    def map(self) -> None:
        first, count, delay = len(self.stories), self.random.randint(1, 40), self.delay()
        due = self.clock() + (int(delay / timedelta(microseconds=1)) * 1000 if delay else 0)
        calls = [(first + n, 0.0, b"") for n in range(count)]
        batch = self.manager.starmap(act, calls, delay)
        for n in range(count):
            self.watch(first + n, batch[n], due)
        self.say("map", first, count, delay)

    def watch(self, ident: int, task: Task[int], due: int) -> None:
        story = Story(due)
        self.stories.append(story)
        self.handles.append(task)

        def ended(task: Task[int]) -> None:
            story.ends.append(task.state)
            if not task.cancelled():
                story.error = task.exception()
            self.say("end", ident, task.state, story.error)

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

    def alive(self) -> list[Life]:
        """The lives that may be hurt: one that dies before a first READY is the end of all."""
        ready = [link.supervisor._ready for link in self.manager._remotes]
        return [
            life
            for life in self.lives
            if not life.dead and (future := ready[life.place]) and future.done()
        ]

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
        deeds = (self.schedule, self.map, self.cancel, self.hurt, self.set_clock)
        weights = (10, 2, 6, self.random.choice((0.2, 1, 3)), 0.3)
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
        told = (stats.pending, stats.running, stats.finished, stats.cancelled, stats.lost)
        ends = Counter(end for story in self.stories for end in story.ends)
        seen = (0, 0, ends[State.FINISHED], ends[State.CANCELLED], ends[State.LOST])
        if told != seen:
            self.faults.append(f"stats say {told} and not {seen}")

    def judge_one(self, ident: int, story: Story, closed: bool) -> None:
        def check(good: object, what: str) -> None:
            if not good:
                self.faults.append(f"task {ident} {what}: {story}")

        check(len(story.ends) == 1, "has not exactly one end")
        end = story.ends[0] if story.ends else None
        check(len(story.starts) <= 1 or self.rerun, "started twice")
        for life in story.starts[:-1]:
            check(life.dead, "ran in two processes at once")
        if end is State.FINISHED:
            check(story.starts, "finished and never started")
            check(self.handles[ident].result() == ident, "has another's result")
        if end is State.LOST:
            check(isinstance(story.error, WorkerLost), "is lost without a word")
            check(getattr(story.error, "started", False), "was pending and is lost")
            check(closed or not self.rerun, "is lost in spite of rerun")
            check(not story.asked or closed, "was asked to cancel and is lost")
        if end is State.CANCELLED:
            check(story.asked or closed, "was cancelled by nobody")
            check(
                not story.starts or story.cancels or any(life.dead for life in story.starts),
                "started and ended cancelled without hearing of it",
            )
        check(end is not State.FAILED, f"failed: {story.error!r}")


WORLD: list[World] = []


async def act(ident: int, nap: float, padding: bytes) -> int:
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
    return ident


@contextmanager
def _quiet() -> Iterator[None]:
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def simulate(seed: int, trace: bool = False) -> list[str]:
    """Lives through a seed; gives what went wrong, in words."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda loop, context: None)
    asyncio.set_event_loop(loop)
    with _quiet():
        world = World(seed, loop, trace)
        WORLD.append(world)
        try:
            loop.run_until_complete(world.run())
        except Exception as error:  # noqa: BLE001  whatever it is, the seed is to be told
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
