"""Simulated worker processes, which suffer what the seed decides."""

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
    """A life that can end in every way, reported or not.

    Attributes:
        born: Its number among all lives, from 1.
        apart: Whether it goes on, although its end was reported to the host.
        told_to_go: Whether it drains.
        gone: Whether the host has taken its end.
        blamed: Scheduler and number of the task that has blocked it, by its last words.
        said: Numbers that it has announced; those of `written` are announced in the pipe, and the
            host has read the announcements of `heard`.
        withdrawn: Numbers withdrawn before it had announced them.
        cancelled: Numbers cancelled before it had announced them.
        told: Scheduler and due time, by number, of the tasks that it has not announced yet, without
            those whose payloads come later.
        latest: The number of the last task that has begun, by scheduler and due time.
        begun_now: The tasks that have begun and not ended, by scheduler.
        waiting: The head that waits for its next attempt, by scheduler.
        ran: How many tasks have run there, to the host's knowledge; `may_have_run` are uncertain.
        sizes: The sizes that it has reported to the host.
        is_large: Whether it was too large from the beginning.
        is_recycled: Whether the host has told it to go.
        goes_since: When the host has told it to go, or has heard that it goes; None: neither.
        is_through: Whether the host has heard since that it is done.
        is_given_up: Whether the host has killed it, though not for anything it did.
        exitcode: Its exit code.
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

    # ---- violence

    def suffer(self, probability: float) -> None:
        """Raise if the seed is spiteful, but not before the slot has been ready once."""
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
        """End by the host's kill."""
        self.is_given_up = self.is_given_up or not cause
        super().kill(cause)

    def die(self) -> None:
        """End as by a kill of unknown cause."""
        super().kill()

    def block(self, scheduler: int, number: int) -> None:
        """End because a task has blocked the loop for too long, and name it."""
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
        """Be given up by the host, without knowing, and go on for a while."""
        if self.dead or self._serving is None:
            return
        self.dead = self.apart = True
        self.to_host.lose()
        loop, chance = self.world.loop, self.world.random
        loop.call_soon(self._reap, -signal.SIGKILL, context=self.pipe.context)
        loop.call_later(chance.random() * chance.choice((0.1, 8)), self.to_worker.lose)
        loop.call_later(chance.random() * 8, self._notice)

    def _notice(self) -> None:
        """Learn that it was given up, and end."""
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

    # ---- for the model

    def is_told(self, frame: list[Any]) -> None:
        """Note a frame that the worker reads."""
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
        """Note an announcement that the worker sends, or takes back."""
        if kind == Kind.RETRY:
            for known in (self.said, self.written, self.heard):
                known.difference_update(numbers)
        else:
            self.said.update(numbers)
            for number in numbers:
                if (place := self.told.pop(number, None)) is not None:
                    self.world.model.is_announced(number, place, self)

    def has_written(self, numbers: list[int], then: Callable[[], None] | None) -> None:
        """Note that an announcement is in the pipe."""
        self.written.update(numbers)
        if then is not None:
            then()
