"""What lives and pipes require of their world, with one host or many."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from aioscheduler import Manager
from aioscheduler._scheduling.clock import SECOND

from .virtual import VirtualLoop

if TYPE_CHECKING:
    from .lives import Life

EPOCH = 1_700_000_000 * SECOND


class Witness(Protocol):
    """The observer that judges what happens (a world's `model`).

    Attributes:
        faults: In words.
    """

    faults: list[str]

    def fault(self, what: str) -> None: ...
    def host_is_told(self, life: Life, frame: list[Any]) -> None: ...
    def is_announced(self, number: int, place: tuple[int, int], life: Life) -> None: ...
    def is_forgiven(self, life: Life) -> None: ...
    def life_ended(self, life: Life) -> None: ...


class Recycler(Protocol):
    """The model of recycling, which decides the sizes of processes (a world's `recycled`)."""

    def measure(self, life: Life) -> int: ...
    def tells_to_go(self, life: Life) -> None: ...


class Stage:
    """Time, chance, and the lives of all workers.

    Args:
        seed: Decides everything.
        loop: The loop, whose time is the world's.
        trace: Whether to print what happens.

    Attributes:
        manager: The present manager.
        born: How many lives have begun so far.
        jumps: When the clock was set, and what it said before.
        spiteful: Whether pipes, clocks and handlers raise now and then.
        grinding: Whether time passes while a worker works.
        lossy: Whether lives lose what was under way at their end, and what had begun there.
    """

    manager: Manager
    model: Witness
    recycled: Recycler

    def __init__(self, seed: int, loop: VirtualLoop, trace: bool) -> None:
        self.random = random.Random(seed)
        self.loop = loop
        self.trace = trace
        self.offset = 0
        self._ground = 0
        self.jumps: list[tuple[float, int]] = []
        self.lives: list[Life] = []
        self.born = 0
        self.spiteful = self.lossy = self.grinding = False

    def left(self) -> Sequence[object]:
        """Return the tasks that have not ended."""
        raise NotImplementedError

    def next_pid(self) -> int:
        self.born += 1
        return self.born

    def clock(self) -> int:
        return EPOCH + self.offset + int(self.loop.time() * SECOND)

    def grind(self) -> None:
        """Let time pass in a worker, in some seeds, so that slices are done in parts."""
        if self.grinding and self.random.random() < 0.3:
            spent = self.random.randint(1, SECOND // 300)
            self.offset += spent
            self._ground += spent

    def elapsed(self) -> int:
        """Return the elapsed nanoseconds, by a clock that is never set."""
        return self._ground + int(self.loop.time() * SECOND)

    def set_clock(self) -> None:
        self.jumps.append((self.loop.time(), self.clock()))
        self.offset += int((self.random.random() - 0.5) * 20 * SECOND)
        self.say("the clock is set", self.offset)

    def say(self, *words: object) -> None:
        if self.trace:
            print(f"{self.loop.time():10.4f}", *words)

    def may_die(self, life: Life) -> bool:
        """Return whether a life may be hurt: a death before the first READY fails the manager."""
        ready = self.manager._remotes[life.place].supervisor._ready
        return not life.dead and ready is not None and ready.done()

    def alive(self) -> list[Life]:
        return [life for life in self.lives if self.may_die(life)]
