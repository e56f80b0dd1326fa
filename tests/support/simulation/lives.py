"""Worker processes that are none, and suffer what the seed says."""

from __future__ import annotations

import asyncio
import contextvars
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from aioscheduler._processes.paired import PairedWorkerHandle
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._processes.workerhandle import Ended
from aioscheduler._transport.pipe import Receive
from aioscheduler._transport.wire import Kind
from aioscheduler.errors import EXIT_OF_BLOCKED

from .pipes import SimulatedChannel, SimulatedPipe
from .spite import IN_WORKER
from .virtual import Spite

if TYPE_CHECKING:
    from .stage import Stage

BLOCKED = "a task has blocked it"

LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("LIFE")


class Life(PairedWorkerHandle):
    """A life that ends in every way, told or untold.

    Attributes:
        born: Which of all lives it is, from 1.
        apart: Whether it goes on, though the host has been told its end.
        told_to_go: Whether it drains.
        gone: Whether the host has taken its end.
        blamed: Scheduler and number of the task that has blocked it, as it says in its last words.
        said: Numbers that it has announced; `written` are those of which that is in the pipe, and
            `heard` those of which the host has read it.
        withdrawn: Numbers that it was asked to withdraw before it had announced them.
        cancelled: Numbers that it was asked to cancel before it had announced them.
        told: Scheduler and due time, by number, of the tasks that it has and has not announced;
            those left out whose payloads come later.
        latest: By scheduler and due time, the number of the task that has begun last.
        begun_now: By scheduler, the tasks that have begun and not ended.
        waiting: By scheduler, the task at the head that waits for its next attempt.
        ran: How many tasks have run there, to the host; of `may_have_run` that is not known.
        sizes: What the host has heard of its size.
        is_large: Whether it was too large when it began.
        is_recycled: Whether the host has told it to go.
        goes_since: When the host has told it to go, or has heard that it goes; None: neither.
        is_through: Whether the host has heard since that it has gone.
        is_given_up: Whether the host has killed it, and not for what it did.
        exitcode: How it has ended.
    """

    _pipe_class = SimulatedPipe

    def __init__(
        self, world: Stage, config: WorkerConfig, number: int, receive: Receive, ended: Ended
    ) -> None:
        self.world = world
        self.place = config.worker
        self.number = number
        self.born = world.next_pid()
        self.apart = self.told_to_go = self.gone = False
        self.blamed: tuple[int, int] | None = None
        self.said: set[int] = set()
        self.written: set[int] = set()
        self.heard: set[int] = set()
        self.withdrawn: set[int] = set()
        self.cancelled: set[int] = set()
        self.told: dict[int, tuple[int, int]] = {}
        self.latest: dict[tuple[int, int], int] = {}
        self.begun_now: Counter[int] = Counter()
        self.waiting: dict[int, int] = {}
        self.ran = self.may_have_run = self.size = 0
        self.sizes: list[int] = []
        self.is_large = self.is_recycled = self.is_through = self.is_given_up = False
        self.goes_since: float | None = None
        self.exitcode = 0
        self.to_worker = SimulatedChannel(self, world.loop, world.random)
        self.to_host = SimulatedChannel(self, world.loop, world.random)
        self._channels = [self.to_host, self.to_worker]  # to be popped
        super().__init__(config, self.clock, number, receive, ended)
        self.pid = self.born
        if config.measured:
            self.worker._lifecycle._measure = partial(world.recycled.measure, self)
        self.context.run(LIFE.set, self)
        self.context.run(IN_WORKER.set, True)

    def _make_channel(self) -> SimulatedChannel:
        return self._channels.pop()

    # ---- what it suffers

    def suffer(self, probability: float) -> None:
        """Raises, if the seed is spiteful, but not before the place has been ready once."""
        world = self.world
        if world.spiteful and world.may_die(self) and world.random.random() < probability:
            world.say("spite in", self.pid)
            raise Spite(f"the seed says so, in {self.pid}")

    def clock(self) -> int:
        self.suffer(0.0005)
        self.world.grind()
        return self.world.clock()

    def begun(self, scheduler: int) -> Any:
        if self.world.spiteful and self.world.random.random() < 0.05:
            raise Spite("the black box cannot be read")
        return None if self.world.lossy else super().begun(scheduler)

    def blocked(self) -> Any:
        if self.world.spiteful and self.world.random.random() < 0.05:
            self.world.model.is_forgiven(self)
            raise Spite("the black box cannot be read")
        return self.blamed

    def kill(self, cause: str = "") -> None:
        """The host ends it."""
        self.is_given_up = self.is_given_up or not cause
        super().kill(cause)

    def die(self) -> None:
        """It ends as by a kill, of which nobody knows why."""
        super().kill()

    def block(self, scheduler: int, number: int) -> None:
        """A task has kept its loop busy for too long: it ends, and says who it was."""
        self.blamed, self._cause = (scheduler, number), BLOCKED
        self._end(EXIT_OF_BLOCKED)

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
        for channel in (self.to_worker, self.to_host):
            channel.freeze(seconds)

    def drain(self) -> None:
        if not self.dead and self._serving is not None:
            self.told_to_go = True
            self.context.run(self.worker.drain)

    def part(self) -> None:
        """The host gives it up; it does not know, and goes on for a while."""
        if self.dead or self._serving is None:
            return
        self.dead = self.apart = True
        self.to_host.lose()
        loop, chance = self.world.loop, self.world.random
        loop.call_soon(self._reap, -signal.SIGKILL, context=self.pipe.context)
        loop.call_later(chance.random() * chance.choice((0.1, 8)), self.to_worker.lose)
        loop.call_later(chance.random() * 8, self._notice)

    def _notice(self) -> None:
        """It hears that it was given up, and ends."""
        assert self._serving is not None
        self.apart = False
        self._serving.cancel()
        self.worker.halt()

    def _stream_ended(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, Spite):
            self.world.model.fault(f"the host could not read a frame: {error!r}")
        super()._stream_ended(error)

    def _reap(self, exitcode: int) -> None:
        if self.world.lossy and exitcode and self.world.random.random() < 0.7:
            self.to_host.lose()
        self.to_host.arrive_at_once()
        self.exitcode = exitcode
        super()._reap(exitcode)
        self.world.model.life_ended(self)

    # ---- what the model hears

    def is_told(self, frame: list[Any]) -> None:
        """The worker reads a frame."""
        kind, *fields = frame
        if kind == Kind.WITHDRAW:
            self.withdrawn.update(set(fields[1]) - self.said)
            self._forget(fields[1])
        elif kind == Kind.CANCEL:
            self.cancelled.update(set(fields[1]) - self.said)
            self._forget(fields[1])
        elif kind == Kind.SCHEDULE:
            first, schedulers, dues, *_, payloads = fields
            count = len(payloads)
            numbers = first if isinstance(first, list) else range(first, first + count)
            self.said.difference_update(numbers)
            self.withdrawn.difference_update(numbers)
            columns = [c if isinstance(c, list) else [c] * count for c in (schedulers, dues)]
            for number, payload, *place in zip(numbers, payloads, *columns, strict=True):
                if not isinstance(payload, list):
                    self.told[number] = place[0], place[1]

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            self.told.pop(number, None)

    def tells(self, kind: int, numbers: list[int]) -> None:
        """The worker sends an announcement, or takes one back."""
        if kind == Kind.RETRY:
            for known in (self.said, self.written, self.heard):
                known.difference_update(numbers)
        else:
            self.said.update(numbers)
            for number in numbers:
                if (place := self.told.pop(number, None)) is not None:
                    self.world.model.is_announced(number, place, self)

    def has_written(self, numbers: list[int], then: Callable[[], None] | None) -> None:
        """An announcement is in the pipe."""
        self.written.update(numbers)
        if then is not None:
            then()
