"""Everything that a seed decides."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    QueuedScheduler,
    Task,
    TimedScheduler,
    WorkerStartError,
)
from aioscheduler._processes.draining import DRAIN_TIME
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._routing.assembly import Seams
from aioscheduler._scheduling.clock import SECOND

from .acts import MAKERS, act, fail
from .confirming import confirm_late, confirm_some
from .judge import judge
from .lives import Life
from .model import Model, Story
from .propagating import CONTEXT, Setter
from .recycling import Recycled
from .retrying import Drawn, draw_retry
from .spite import NO_TIMES, ODD, spoil
from .stage import Stage
from .virtual import Spite, VirtualLoop

PAYLOADS = (0, 100, 3_000, 20_000, 40_000, 64_000, 200_000)  # bytes, at most
LONGEST = 10_000.0  # virtual seconds in which everything must have ended


class SimulatedManager(Manager):
    def __init__(self, world: World, *args: Any, **kwargs: Any) -> None:
        seams = Seams(world.clock, lambda config, *_: partial(Life, world, world.configure(config)))
        super().__init__(*args, **kwargs | {"_seams": seams})


class World(Stage):
    """Everything that a seed decides of one host.

    Attributes:
        confirmed: Whether the tasks of all workers wait for CONFIRM.
        max_running: How many timed tasks may run at a time on each scheduler.
        propagates: Whether the host's context goes with each task.
        contexts: The source of changes of that context.
        recycled: The limits of recycling, and its model.
    """

    model: Model
    recycled: Recycled

    def __init__(self, seed: int, loop: VirtualLoop, trace: bool) -> None:
        super().__init__(seed, loop, trace)
        self.handles: list[Task[Any]] = []
        self.model = Model(self)
        chance = self.random.random
        self.cls = self.random.choice(
            (TimedScheduler, TimedScheduler, QueuedScheduler, LifoQueuedScheduler)
        )
        self.rerun = chance() < 0.4
        self.spiteful = chance() < 0.5
        self.confirmed = chance() < 0.3
        self.lossy = self.confirmed and chance() < 0.7
        some_confirmed = chance() < 0.2
        self.grinding = chance() < 0.4
        self.long_naps = chance() < 0.3
        self.limiting = 0.3 if chance() < 0.4 else 0.0  # the share of tasks with a limit of time
        self.naming = 0.3 if chance() < 0.4 else 0.0  # the share of tasks with ids
        workers = self.random.randint(1, 3)
        schedulers = workers * self.random.randint(1, 2)
        self.max_running: int | None = None
        limits = random.Random(f"limits of {seed}")
        if self.cls is TimedScheduler and limits.random() < 0.3:
            self.max_running = limits.randint(1, 4)
        self.propagates = limits.random() < 0.5
        self.contexts = Setter(seed, self.propagates)
        self.context: Any = None  # the values that the next task must see
        self.recycled = Recycled(self, seed)
        # Spite must hit the worker's own work, not that of its tasks. A task that runs again, and
        # schedules again, would have its worker recycled for ever.
        endless = self.rerun and self.recycled.max_tasks is not None
        self.may_follow = self.propagates and not self.spiteful and not endless
        self.manager = SimulatedManager(
            self,
            schedulers,
            cls=self.cls,
            workers=workers,
            on_worker_loss="rerun" if self.rerun else "fail",
            max_restarts=(10**9, 1.0),
            max_running=self.max_running,
            context=CONTEXT if self.propagates else (),
            max_tasks_per_worker=self.recycled.max_tasks,
            max_rss_per_worker=self.recycled.max_rss,
        )
        self.recycled.watch(self.manager._remotes[0].supervisor._budget)
        self._places = {id(link): place for place, link in enumerate(self.manager._remotes)}
        self._confirms: Callable[[Task[Any]], int] = lambda task: int(self.confirmed)
        if some_confirmed and not self.confirmed:
            self._confirms = confirm_some(self.manager, self.random)
        self.has_word: Callable[[Task[Any]], bool] = lambda task: True
        words = random.Random(f"words of {seed}")
        self.late = words.random() < 0.8
        if self.late:
            self.has_word = confirm_late(self.manager, loop, words)

    def configure(self, config: WorkerConfig) -> WorkerConfig:
        return replace(config, confirmed=self.confirmed)

    def left(self) -> list[int]:
        return list(self.model.open)

    def suffer_handler(self) -> None:
        if self.spiteful and self.random.random() < 0.05:
            raise Spite("a callback raises")

    # ---- scheduling

    def delay(self) -> timedelta | None:
        if self.cls is not TimedScheduler:
            return None
        return timedelta(seconds=self.random.choice((0.0, self.random.random() * 5)))

    def due(self, delay: timedelta | None) -> int:
        if self.cls is not TimedScheduler:
            return 0
        return self.clock() + (int(delay / timedelta(microseconds=1)) * 1000 if delay else 0)

    def padding(self) -> bytes:
        most = self.random.choices(PAYLOADS, (70, 10, 8, 6, 3, 2, 1))[0]
        return bytes(self.random.randint(0, most))

    def nap(self) -> float:
        if self.long_naps and self.random.random() < 0.2:  # longer than a drain
            return self.random.random() * 30
        return self.random.choice((0.0, 0.0, self.random.random()))

    def deed(self, nap: float = 0.0) -> str:
        if nap > DRAIN_TIME and self.random.random() < 0.3:
            return "swallow: 9"
        if self.random.random() < 0.1:
            return f"again: {self.random.randint(1, 4)}"
        if self.random.random() < 0.05:
            return self.random.choice(("swallow: 1", "swallow: 9", "dies", "blocks"))
        if not self.spiteful or self.random.random() < 0.8:
            return ""
        where = self.random.choice(("raise", "read an argument", "write a result", "read a result"))
        return f"{where}: {self.random.choice(tuple(ODD))}"

    def watch(
        self, task: Task[Any], due: int, size: int, deed: str = "", retry: Drawn | None = None
    ) -> None:
        self.handles.append(task)
        place, confirmed = self._places[id(task._home)], self._confirms(task)
        self.model.watch(
            task,
            place,
            due,
            size=size,
            deed=deed,
            confirmed=confirmed,
            retry=retry,
            context=self.context,
            follows=self.may_follow and self.contexts.follows(),
        )

    def schedule(self) -> None:
        self.change_context()
        ident, delay = len(self.handles), self.delay()
        due = self.due(delay)
        nap, key = self.nap(), self.random.choice((None, "a", "b"))
        deed = self.deed(nap)
        function, padding = self.random.choice(MAKERS)(ident), self.padding()
        coro = function(ident, nap, padding, spoil(deed, "read an argument"), deed)
        id_ = self.random.choice("abc") if self.random.random() < self.naming else None
        replace = id_ is not None and self.random.random() < 0.5
        known = None if id_ is None else self.model.has_id(id_)
        state = None if known is None else self.handles[known].state
        drawn = draw_retry(self.random, 0.8 if deed.startswith(("again", "raise")) else 0.1)
        retry = drawn and drawn.retry
        timeout, late = self.limits()
        task = self.manager.schedule(
            coro,
            delay,
            key=key,
            id=id_,
            replace=replace,
            retry=retry,
            timeout=timeout,
            max_lateness=late,
        )
        self.say("schedule", ident, delay, nap, deed, id_, replace, task.ref)
        if known is not None and not replace:
            self.model.was_taken(known, task)
            return
        self.watch(task, due, len(padding) + 1000, deed, drawn)
        if known is not None and state is not None:
            self.model.was_replaced(known, state)
        story = self.model.stories[ident]
        story.id_, story.nap, story.timeout = id_, nap, timeout
        story.max_lateness = None if late is None else int(late * SECOND)

    def limits(self) -> tuple[float | None, float | None]:
        """Draw limits of a task's running time and lateness, in seconds."""
        if self.random.random() >= self.limiting:
            return None, None
        late = self.random.choice((None, 0.0, 0.5, 3.0))
        timeout = self.random.choice((None, 0.02, 0.4, 12.0))
        return timeout, late if self.cls is TimedScheduler else None

    def bulk(self) -> None:
        """Schedule many at once, large and small, due now and later: pages half done later."""
        self.change_context()
        most = self.random.choice(PAYLOADS[2:5])
        delays = (self.delay(), self.delay())
        self.say("bulk", len(self.handles), most, *delays)
        for _ in range(self.random.randint(30, 300)):
            ident, delay = len(self.handles), self.random.choice(delays)
            due = self.due(delay)
            payload = bytes(self.random.randint(0, most))
            task = self.manager.schedule(act(ident, 0.0, payload), delay)
            self.watch(task, due, len(payload) + 1000)

    def map(self) -> None:
        self.change_context()
        first, count, delay = len(self.handles), self.random.randint(1, 40), self.delay()
        due = self.due(delay)
        drawn = draw_retry(self.random, 0.3)
        deed = f"again: {self.random.randint(1, 3)}" if drawn is not None else ""
        calls = [(first + n, 0.0, self.padding(), None, deed) for n in range(count)]
        function = self.random.choice(MAKERS)(first)
        batch = self.manager.starmap(function, calls, delay, retry=drawn and drawn.retry)
        for n in range(count):
            self.watch(batch[n], due, len(calls[n][2]) + 1000, deed, drawn)
        self.say("map", first, count, delay)

    def change_context(self) -> None:
        """Change the context for the next tasks."""
        self.context = self.contexts.change()

    def drop(self) -> None:
        """Schedule a failure that nobody will await."""
        deed = self.deed()
        if deed.startswith(("raise", "write")):
            self.manager.schedule(fail(spoil(deed, "raise"), spoil(deed, "write a result")))
            self.model.unheard += 1

    def odd_time(self) -> None:
        if self.cls is TimedScheduler:
            coro = act(-1, 0.0, b"")
            try:
                self.manager.schedule(coro, self.random.choice(NO_TIMES))
            except (ValueError, TypeError):
                return
            self.model.fault("a time that is none was accepted")

    # ---- requests

    def choose(self) -> tuple[int, Task[Any], Story] | None:
        """Choose a task, mostly one that has not ended."""
        if not self.handles:
            return None
        ident = self.random.randrange(len(self.handles))
        if self.model.open and self.random.random() < 0.7:
            ident = self.random.choice(tuple(self.model.open))
        return ident, self.handles[ident], self.model.stories[ident]

    def cancel(self) -> None:
        if chosen := self.choose():
            ident, task, _ = chosen
            state = task.state
            asked = task.cancel()
            self.model.asked_to_cancel(ident, asked, state)
            self.say("cancel", ident, asked)

    def withdraw(self) -> None:
        if chosen := self.choose():
            ident, task, story = chosen
            state = task.state
            asked = story.link.withdraw(story.scheduler, story.number)
            self.model.asked_to_withdraw(ident, asked, state)
            self.say("withdraw", ident, asked)

    def reschedule(self) -> None:
        if self.cls is TimedScheduler and (chosen := self.choose()):
            ident, task, story = chosen
            if story.withdrawn is None:
                state, due = task.state, self.due(self.delay())
                unsent = story.number in story.link.book.outbox.loose
                asked = story.link.reschedule(story.scheduler, story.number, due)
                self.model.asked_to_move(ident, due, asked, state, unsent)
                self.say("reschedule", ident, due - self.clock(), asked)

    # ---- what goes wrong

    def hurt(self) -> None:
        if alive := self.alive():
            life = self.random.choice(alive)
            worst = "part" if self.lossy else "kill"
            deed = self.random.choice(("kill", worst, "freeze", "drain", "block"))
            self.say(deed, life.pid)
            if deed == "kill":
                life.die()
            elif deed == "block":
                self.block(life)
            elif deed == "part":
                life.part()
            elif deed == "drain":
                life.drain()
            else:
                life.freeze(self.random.random() * 5)

    def block(self, life: Life) -> None:
        """Blame a task for blocking a life; or one that is not there, or does not run."""
        model, choose = self.model, self.random.choice
        here = [n for n in model.open if model.stories[n].place == life.place]
        begun = [n for n in here if model.runs(n, life)]
        if not here:
            life.block(self.random.randrange(3), self.random.randrange(1 << 64))
        elif begun and self.random.random() < 0.8:
            model.blocks(choose(begun), life)
        else:
            model.blocks(choose(here), life)

    def collect(self) -> None:
        """Collect classes made for a call now, and not at some other time."""
        gc.collect(1)  # objects that this seed has made
        self.say("garbage is collected")

    # ---- the whole story

    async def run(self) -> None:
        """Live through the seed's story, and judge it."""
        manager = self.manager
        early = self.random.random() < 0.3
        if early:
            self.schedule()
        try:
            manager.start()
        except WorkerStartError:  # the seed refused it: that is reported, and the end
            await manager.close()
            return
        deeds = (
            *(self.schedule, self.map, self.cancel, self.withdraw, self.reschedule, self.hurt),
            *(self.set_clock, self.bulk, self.drop, self.odd_time, self.collect),
        )
        worst = self.random.choice((0.2, 1, 3))
        weights = (10, 2, 4, 3, 3, worst, 0.3, 0.1, 1, 0.3, 0.1)
        for count in range(self.random.randint(5, 150)):
            self.random.choices(deeds, weights)[0]()
            self.model.check_counts(thorough=count % 8 == 0)
            if self.random.random() < 0.5:
                await asyncio.sleep(self.random.choice((0, 0.001, 0.1, 2)) * self.random.random())
        closed = self.random.random() < 0.5
        async with asyncio.timeout(LONGEST):
            if closed:
                self.say("close")
                self.model.closing = True
                await manager.close(self.random.random() * 2)
            else:
                await manager.join()
                self.model.closing = True
                await manager.close()
        await asyncio.sleep(0)
        judge(self, closed)
