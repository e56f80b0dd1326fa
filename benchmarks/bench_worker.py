"""Where a worker's time goes: the pieces of a no-op of `map`, each by itself.

A worker's core is driven in this process without a host: pieces of its work are called in loops,
and the fastest of seven is given, in microseconds a task. "all" is whole frames from their bytes
to the outcomes' bytes; the pieces do not add up to it exactly, for caches are warmer in loops.
"""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from aioscheduler_workers.worker import Worker
from common import parse, report, work

from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.engine import Engine
from aioscheduler._scheduling.order import Order
from aioscheduler._shipping.shipping import open_call
from aioscheduler._transport import wire
from aioscheduler._transport.wire import Kind, pack
from aioscheduler.inside import running

PAGE = 256


class Bench:
    """A worker that talks to nobody."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        config = WorkerConfig(manager="m", order=Order.TIMED, layout=(1,), prefer_utc=True, host=0)
        self.worker: Any = Worker(config, [], memoryview(array("Q", bytes(16))))
        self.worker._turn._end = loop.call_later(3600, print)  # what is written stays in the queue
        self.worker._receive([Kind.DEFINE, pack([0, 0, "common:work"]), True])
        self.worker._receive([Kind.DEFINE, pack([0, 1, "common:plain_work"]), True])
        self.engine: Engine[Any] = self.worker._engines[0]
        self.engine._loop = loop
        self.dues = list(range(PAGE))
        self.page = wire.encode([Kind.SCHEDULE, 0, 0, 1, 0, None, list(range(PAGE))])
        self.plain_page = wire.encode([Kind.SCHEDULE, 0, 0, 1, 1, None, list(range(PAGE))])

    async def read(self) -> None:
        list(wire.Decoder().feed(self.page))

    async def queue(self) -> None:
        engine = self.engine
        engine.add_many(range(PAGE), 1, zip([0] * PAGE, range(PAGE), [None] * PAGE, strict=True))
        self.take()
        engine._launched.clear()

    def take(self) -> tuple[list[int], list[int]]:
        engine = self.engine
        numbers, dues = engine._queue.pop_due(2, PAGE)
        engine._launched.update(zip(numbers, map(engine.waiting.pop, numbers), strict=True))
        return numbers, dues

    async def lateness(self) -> None:
        self.engine._recorder.record(self.dues, 3, 4)

    async def announce(self) -> None:
        wire.encode([Kind.ANNOUNCED, 0, list(range(PAGE))])

    async def open(self) -> None:
        for n in range(PAGE):
            open_call(self.worker._catalog, 0, n)

    async def variable(self) -> None:
        context = self.worker._runner._contexts[0]
        for n in range(PAGE):
            running.set((context, n, 1, 1))

    async def user(self) -> None:
        for n in range(PAGE):
            await work(n)

    async def task(self) -> None:
        for n in range(PAGE):
            self.engine.running.begin(n, None, work(n), self.loop, copy_context())  # type: ignore[arg-type]  # returns something
        await asyncio.sleep(0)

    async def outcome(self) -> None:
        encode, report = self.worker._catalog.encode, self.worker._turn.report
        for n in range(PAGE):
            report(0, n, wire.FINISHED, encode(n))
        self.worker._turn.pack()
        self.worker._pipe._frames.clear()

    async def all(self) -> None:
        await self.run(self.page)

    async def all_plain(self) -> None:
        await self.run(self.plain_page)

    async def run(self, page: bytes) -> None:
        self.worker._largest = -1
        for frame in wire.Decoder().feed(page):
            self.worker._receive(frame)
        numbers, dues = self.take()
        wire.encode([Kind.ANNOUNCED, 0, numbers])
        self.engine._slices += 1
        self.engine.run(numbers, dues)
        while self.engine._launched or self.engine._next_run:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.worker._turn.pack()
        assert self.worker._pipe._frames
        self.worker._pipe._frames.clear()


async def measure(pages: int) -> list[dict[str, object]]:
    made = Bench(asyncio.get_running_loop())
    pieces: dict[str, Callable[[], Awaitable[None]]] = {
        "reading a frame": made.read,
        "queueing, and taking what is due": made.queue,
        "announcing": made.announce,
        "lateness": made.lateness,
        "arguments and function": made.open,
        "current task": made.variable,
        "the user's coroutine": made.user,
        "the user's coroutine in an asyncio task": made.task,
        "outcome": made.outcome,
        "all": made.all,
        "all, of a plain function": made.all_plain,
    }
    rows: list[dict[str, object]] = []
    for name, piece in pieces.items():
        times = []
        for _ in range(7):
            begun = time.perf_counter()
            for _ in range(pages):
                await piece()
            times.append(time.perf_counter() - begun)
        rows.append({"piece": name, "us a task": min(times) / pages / PAGE * 1e6})
    return rows


def main() -> int:
    options = parse(__doc__, "tasks", 200 * PAGE, 4 * PAGE)
    report(asyncio.run(measure(-(-options.size // PAGE))), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
