"""The model of recycling: the reasons, the turns, and the costs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from aioscheduler._processes.draining import DRAIN_TIME, KILL_AFTER
from aioscheduler._transport.wire import FAILED, FINISHED, Kind

from .lives import Life

if TYPE_CHECKING:
    from .world import World

GROWING = 600.0  # seconds of virtual time in which processes grow
SIZE = 1000  # bytes above which processes are recycled, in some seeds


class Recycled:
    """The workers that are recycled, and those that must be.

    Args:
        world: The world of the manager.
        seed: The seed of the limits, and of the sizes of processes.

    Attributes:
        max_tasks: The number of tasks after which a process is recycled; None: never.
        max_rss: The bytes above which a process is recycled; None: never.
        count: How many processes were told to go.
        gone: How many of them have gone in order, as far as that is known.
        died: How many of them have died instead, as far as that is known.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(f"recycling in {seed}")
        chance = self._random.random
        self.max_tasks = self._random.choice((1, 3, 20)) if chance() < 0.3 else None
        self.max_rss = SIZE if chance() < 0.2 else None
        self.count = self.gone = self.died = 0
        self._leaving: dict[int, Life] = {}  # by slot, until the next process is READY
        self._spent = self._checked = 0

    @property
    def is_used(self) -> bool:
        return self.max_tasks is not None or self.max_rss is not None

    def watch(self, budget: Any) -> None:
        """Return how much of the budget of restarts is spent."""
        spend = budget.spend

        def counted(now: float, cause: object) -> bool:
            self._spent += 1
            return bool(spend(now, cause))

        budget.spend = counted

    # ---- from processes

    def measure(self, life: Life) -> int:
        """Return the size of a process: some are large from the beginning, most grow.

        They do not grow for ever: a task longer than a drain would begin again and again.
        """
        if self._world.loop.time() > GROWING:
            return life.size
        drawn = self._random.randint(0, 2 * SIZE) if self._random.random() < 0.2 else SIZE // 2
        life.size = max(life.size, drawn)
        return life.size

    # ---- from the pipes

    def host_hears(self, life: Life, frame: list[Any]) -> None:
        """Note a frame that the host reads."""
        kind, *fields = frame
        if kind == Kind.READY:
            self._leaving.pop(life.place, None)
        elif kind == Kind.TICK:
            if not life.sizes:
                life.is_large = fields[-1] > SIZE
            life.sizes.append(fields[-1])
        elif kind == Kind.DRAINING:
            self._goes(life)
        elif kind == Kind.DRAINED:
            life.is_through = life.goes_since is not None
        elif kind == Kind.RETRY:
            life.ran += len(fields[1])
        elif kind == Kind.ENDED:
            known = [n for n in fields[1] if n in life.heard]  # the others have not begun
            if fields[2] not in (FINISHED, FAILED):
                life.may_have_run += len(known)
            else:
                life.ran += len(known)

    def tells_to_go(self, life: Life) -> None:
        """Judge that the host may recycle a worker."""
        model = self._world.model
        life.told_to_go = life.is_recycled = True
        self._goes(life)
        self.count += 1
        others = [other.pid for other in self._leaving.values()]
        if others:
            model.fault(f"{life.pid} is recycled while {others} are")
        self._leaving[life.place] = life
        worn = self.max_tasks is not None and life.ran + life.may_have_run >= self.max_tasks
        grown = self.max_rss is not None and not life.is_large and life.sizes[-1] > SIZE
        if not (worn or grown):
            model.fault(f"{life.pid} is recycled, and has run {life.ran}, sizes {life.sizes}")

    def life_ended(self, life: Life) -> None:
        """Note that the host has taken a life's end: if told to go, it has gone or died."""
        fault, since = self._world.model.fault, life.goes_since
        spent, self._checked = self._spent > self._checked, self._spent
        if since is None or self._world.manager._router.closed is not None:
            return
        if life.is_given_up and self._world.loop.time() < since + DRAIN_TIME + KILL_AFTER:
            fault(f"{life.born} goes since {since}, and was given up")
        went = life.is_given_up or (life.is_through and life.exitcode == 0)
        self.gone += went and life.is_recycled
        self.died += not went and life.is_recycled
        if went and spent:
            fault(f"{life.born} was to go, and that was taken for a death")
        if not (went or spent):
            fault(f"{life.born} died while it was to go, and that was not taken for a death")

    def _goes(self, life: Life) -> None:
        if life.goes_since is None:
            life.goes_since = self._world.loop.time()

    # ---- between any two deeds

    def check(self) -> None:
        """Judge that a worker with a reason goes, unless it is another's turn."""
        if self.max_tasks is None or self._leaving or self._world.spiteful:
            return
        for life in self._world.lives:
            if life.dead or life.told_to_go or self._world.model.closing:
                continue
            if life.ran >= self.max_tasks:
                self._world.model.fault(f"{life.pid} has run {life.ran}, and stays")
