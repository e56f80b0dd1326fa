"""A link to schedulers in this loop for its tests, and coroutines for it to run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from aioscheduler._routing.local import LocalLink
from aioscheduler._routing.placement import Placement
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.order import Order, new_due_time
from aioscheduler._shipping.propagation import Propagation
from aioscheduler.options import Options
from aioscheduler.task import ENDED, State, Task

NOW = 100 * SECOND


class Upstream:
    """An upstream that accepts nothing: it only lets tasks know their manager."""


class Rig:
    """A link whose clock stands still unless set, and the counts that it reports."""

    def __init__(
        self,
        order: Order = Order.TIMED,
        schedulers: int = 2,
        boot: Any = None,
        propagation: Propagation | None = None,
    ) -> None:
        self.now = NOW
        self.placement = Placement([schedulers], by_worker=True)
        self.failures: list[Exception] = []
        loop_thread = LoopThread("manager")
        upstream: Any = Upstream()
        self.link = LocalLink(
            order,
            schedulers,
            self.placement,
            loop_thread,
            lambda when: new_due_time(order, when, self.now, prefer_utc=True),
            lambda: self.now,
            "ab",
            boot,
            upstream,
            self.failures.append,
            propagation=propagation,
        )

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.link.loop_thread.enter(loop)
        self.link.start(loop)

    def schedule(
        self,
        awaitable: Awaitable[Any],
        due: int = 0,
        scheduler: int = 0,
        options: Options | None = None,
    ) -> Task[Any]:
        shipper = self.link.shipper
        record = None if options is None else shipper.take_record(options)
        call = shipper.take(awaitable, record)
        self.placement.added(scheduler)
        return self.link.schedule(scheduler, due, due, call)

    @property
    def counts(self) -> tuple[int, int]:
        """Return the pending and the unended tasks; check those of each scheduler, too."""
        waiting, loads = self.placement.waiting, self.placement.loads
        assert all(0 <= w <= load for w, load in zip(waiting, loads, strict=True))
        return self.placement.all_waiting, self.placement.all_loads

    def ends(self) -> dict[State, int]:
        counts = self.link.stats().counts
        return {state: counts[state.value] for state in ENDED if counts[state.value]}


async def give(value: Any) -> Any:
    return value


async def fail(error: BaseException) -> None:
    raise error


async def forever() -> None:
    await asyncio.get_running_loop().create_future()
