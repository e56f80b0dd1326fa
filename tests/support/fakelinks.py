"""Links that accept everything and run nothing, and a router with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from aioscheduler._routing.placement import Placement
from aioscheduler._routing.router import Router
from aioscheduler._scheduling.loopthread import LoopThread
from aioscheduler._scheduling.order import Order
from aioscheduler.errors import NotShippable
from aioscheduler.outcomes import Outcomes, Part
from aioscheduler.task import State, Task, TaskRef


class FakeLink:
    """A link that accepts everything and runs nothing."""

    loop = None
    loop_thread = LoopThread("manager")
    identity = 1 << 64

    def __init__(self, room: int = 256) -> None:
        self.scheduled: list[tuple[Any, ...]] = []
        self.many: list[tuple[Any, ...]] = []
        self.records: list[Any] = []
        self.adopted: list[tuple[Any, ...]] = []
        self.cancelled: list[tuple[int, int]] = []
        self._room = room
        self._numbers = 0
        self.shipper = self

    def take_record(self, options: Any, captured: Any) -> Any:
        return options if captured is None else (options, captured)

    def take(self, awaitable: Awaitable[Any], record: Any) -> Any:
        if not asyncio.iscoroutine(awaitable):
            raise NotShippable("no coroutine")
        awaitable.close()
        return "call" if record is None else record

    def schedule(self, scheduler: int, due: int, when: Any, call: Any) -> Task[Any]:
        self.scheduled.append((scheduler, due, when, call))
        return Task(self, scheduler, len(self.scheduled), when)  # type: ignore[arg-type]

    def take_function(self, function: Any) -> Any:
        return function

    def take_plain(self, calls: list[Any]) -> None:
        return None

    def take_arguments(self, args: tuple[Any, ...]) -> bytes:
        if args == ("bad",):
            raise NotShippable("its argument is bad")
        size: int = args[0]
        return b"x" * size

    def schedule_many(
        self,
        outcomes: Outcomes,
        offset: int,
        scheduler: int,
        dues: Any,
        function: Any,
        calls: Any,
        record: Any,
    ) -> int:
        self.records.append(record)
        self.many.append((offset, scheduler, dues, len(calls)))
        Part(outcomes, offset, self, scheduler, self._numbers, len(calls), dues)  # type: ignore[arg-type]
        self._numbers += len(calls)
        return self._numbers - len(calls)

    def room(self) -> int:
        return self._room

    def cancel(self, scheduler: int, number: int) -> bool:
        self.cancelled.append((scheduler, number))
        return True

    def state(self, number: int) -> State:
        return State.PENDING

    def ref(self, scheduler: int, number: int, kept: object = None) -> TaskRef:
        return TaskRef("m", 0, scheduler, number)

    def adopt(self, scheduler: int, due: int, call: Any, alias: int) -> int:
        self.adopted.append((scheduler, due, call, alias))
        return len(self.adopted)


def make(
    layout: list[int], order: Order = Order.TIMED, **limits: Any
) -> tuple[Router, list[FakeLink]]:
    links = [FakeLink() for _ in layout]
    placement = Placement(layout, order is Order.TIMED, **limits)
    router = Router("m", order, True, placement, LoopThread("manager"))
    router.links = links  # type: ignore[assignment]
    return router, links
