"""Host and workers in one thread, on virtual time, joined by pipes that delay and cut: simulated.

    python tests/support/simulate.py --seeds 5000          from 0 on
    python tests/support/simulate.py --seed 1234 --trace   one of them again, exactly

The host's side is the real `Manager` and the worker's side the real `Worker`; in between, instead
of processes and pipes, are `Life` and `SimulatedPipe`. A seed decides everything: how large a
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from typing import Any

from aioscheduler_workers.worker import Worker

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
from aioscheduler.incarnation import Ended, Receive
from aioscheduler.pipe import Pipe

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


class Channel:
    """Bytes under way in one direction."""

    def __init__(self, loop: asyncio.AbstractEventLoop, generator: random.Random) -> None:
        self._loop = loop
        self._random = generator
        self._capacity = generator.choice((1000, 20_000, 1 << 20))
        self._slowness = generator.choice((0.0, 0.001, 0.3))
        self.arrived = bytearray()
        self._under_way: deque[bytes] = deque()
        self._held = 0  # bytes written and not read
        self._frozen_until = 0.0
        self.closed = False
        self.reader: SimulatedPipe | None = None
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
            self.arrived += self._under_way.popleft()
            self.tell_reader()

    def arrive_at_once(self) -> None:
        """What was written survives its writer."""
        self.arrived += b"".join(self._under_way)
        self._under_way.clear()

    def tell_reader(self) -> None:
        if self.reader is not None and (self.arrived or self.closed):
            self.reader.context.run(self.reader.read_now)

    def read(self) -> bytes:
        if not self.arrived:
            if self.closed:
                return b""
            raise BlockingIOError
        count = len(self.arrived)
        if self._random.random() < 0.2:
            count = self._random.randint(1, count)
        self._held -= count
        data = bytes(self.arrived[:count])
        del self.arrived[:count]
        if self.writer is not None:
            self._loop.call_soon(self.writer.room_now, context=self.writer.context)
        if self.arrived:
            self._loop.call_soon(self.tell_reader)
        return data


class SimulatedPipe(Pipe):
    """The real framing over channels."""

    def __init__(
        self,
        receive: Receive,
        closed: Callable[[Exception | None], None],
        inward: Channel,
        outward: Channel,
        context: contextvars.Context,
    ) -> None:
        super().__init__(receive, closed)
        self.context = context
        self._inward, self._outward = inward, outward

    def open(self, loop: asyncio.AbstractEventLoop, reader: int, writer: int) -> None:
        self._loop = loop
        self.descriptors[:] = (1, 1)
        self._inward.reader = self._outward.writer = self
        loop.call_soon(self._inward.tell_reader)
        self.flush()

    def close(self) -> None:
        self.descriptors[:] = (-1, -1)
        self._inward.reader = self._outward.writer = None
        self._drop()

    def read_now(self) -> None:
        if self.descriptors[0] >= 0:
            self._readable()

    def room_now(self) -> None:
        if self._waits_for_room and self.descriptors[1] >= 0:
            self._waits_for_room = False
            self.flush()

    def _read(self) -> bytes:
        return self._inward.read()

    def _write(self, data: memoryview) -> int:
        return self._outward.write(data)

    def _wait_for_room(self, wait: bool) -> None:
        self._waits_for_room = wait

    def _stop_reading(self) -> None:
        self.descriptors[0] = -1


LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("LIFE")


class Life:
    """A worker process that is none."""

    def __init__(
        self, world: World, worker: int, number: int, receive: Receive, ended: Ended
    ) -> None:
        self.world = world
        self.dead = False
        self.pid = world.next_pid()
        self._ended = ended
        loop, generator = world.loop, world.random
        self._to_worker, self._to_host = Channel(loop, generator), Channel(loop, generator)
        host_context = contextvars.copy_context()
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)
        self.pipe = SimulatedPipe(
            receive, self._stream_ended, self._to_host, self._to_worker, host_context
        )
        layout = world.layout
        self._begun = [0] * layout[worker]
        order = world.cls.order
        self.worker = Worker(
            world.manager._id, worker, order, layout, True, [], number, self._begun, world.clock
        )
        self.worker._pipe = SimulatedPipe(
            self.worker._receive,
            self.worker._host_gone,
            self._to_worker,
            self._to_host,
            self.context,
        )
        self._serving: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.world.random.random() < 0.05:
            raise OSError("no room, says the seed")
        self.pipe.open(loop, 0, 0)
        loop.call_later(self.world.random.random(), self._begin)
        self.world.lives.append(self)

    def _begin(self) -> None:
        if not self.dead:
            loop = self.world.loop
            serving = self.worker.serve(loop, 0, 0)
            self._serving = self.context.run(loop.create_task, serving)
            self._serving.add_done_callback(lambda _: self._end(0))

    def begun(self, scheduler: int) -> int:
        return self._begun[scheduler]

    def freeze(self, seconds: float) -> None:
        self._to_worker.freeze(seconds)
        self._to_host.freeze(seconds)

    def kill(self) -> None:
        self._end(-9)

    def drain(self) -> None:
        if not self.dead and self._serving is not None:
            self.context.run(self.worker.drain)

    def _stream_ended(self, error: Exception | None) -> None:
        if error is not None:
            self.world.faults.append(f"the host could not read a frame: {error!r}")
            raise error

    def _end(self, exitcode: int) -> None:
        if self.dead:
            return
        self.dead = True
        worker = self.worker
        if self._serving is not None:
            for task in [worker._life, self._serving]:
                if task is not None:
                    task.cancel()
            worker._alarm.stop()
            if worker._ticker is not None:
                worker._ticker.cancel()
            if worker._turn is not None:
                worker._turn.cancel()
            for engine in worker._engines:
                engine.stop()
                for task, _ in list(engine.running.values()):
                    task.cancel()
        worker._pipe.close()
        self._to_host.closed = self._to_worker.closed = True
        self.world.loop.call_soon(self._reap, exitcode)

    def _reap(self, exitcode: int) -> None:
        self._to_host.arrive_at_once()
        self.pipe.read_rest()
        self.pipe.close()
        self._ended(exitcode, "")


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
        self.manager = Manager(
            schedulers,
            cls=self.cls,
            workers=workers,
            on_worker_loss="rerun" if self.rerun else "fail",
            max_restarts=(10**9, 1.0),
        )
        self.layout = [link._schedulers for link in self.manager._remotes]
        self.manager._router._clock = self.clock
        for worker, link in enumerate(self.manager._remotes):
            link.supervisor._clock = loop.time
            link.supervisor._launch = self.launcher(worker)

    def launcher(self, worker: int) -> Any:
        return lambda number, receive, ended: Life(self, worker, number, receive, ended)

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
            if not life.dead and (future := ready[life.worker._worker]) and future.done()
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
