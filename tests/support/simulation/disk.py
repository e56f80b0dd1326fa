"""The file of all hosts of a seed, and the thread that writes to it: slow, full now and then.

    Keeper ─► SlowWriter ═ some time later ═► Disk ─► SQLite, in memory
                  └─ some time later: the host hears    └─► Fates: is that right?

What a dying host has handed over is in the file up to some batch: a batch is written at one time,
and reported to the host at another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stores import read_all

from aioscheduler import SQLiteStore, StoreError
from aioscheduler._durable.records import Batch, Letter, Opening, Page, Position, Row
from aioscheduler._routing.asking import Asking

if TYPE_CHECKING:
    from .hosts import Host, HostWorld


IDENTITY = 51 << 64
"""The identity of each store: references appear in texts, and a seed must replay exactly."""


class Disk:
    """A store that outlives its hosts, and submits each batch to judgement.

    Args:
        world: Its world.

    Attributes:
        is_full: Whether nothing can be written for now.
        slowness: Seconds that a call takes, at most.
        heartbeat: When a host was last known to be alive, in nanoseconds.
    """

    def __init__(self, world: HostWorld) -> None:
        self.is_full = False
        self.slowness = 0.0
        self._world = world
        self._store = SQLiteStore(":memory:")
        self.heartbeat = 0
        self._is_open = False

    @property
    def path(self) -> str:
        return self._store.path

    @property
    def complaint(self) -> str:
        return self._store.complaint

    def open(self) -> Opening:
        if self._is_open:
            self._store.close(clean=False)  # that of the host that died
        opening = self._store.open()._replace(identity=IDENTITY)
        self._is_open = True
        rows = {row.row: row for page in read_all(self._store) for row in page}
        self._world.fates.opened(opening, rows)
        before, self.heartbeat = self.heartbeat, self._world.clock()
        return opening._replace(heartbeat=before)

    def read(self, after: Position, until: int, most: int) -> Page:
        return self._store.read(after, until, most)

    def find(self, ids: Sequence[str], rows: Sequence[Position]) -> list[Row]:
        return self._store.find(ids, rows)

    def scan(self, after: tuple[int, int], most: int) -> list[Row]:
        return self._store.scan(after, most)

    def scan_ids(self, prefix: str, after: str | None, most: int) -> list[Row]:
        return self._store.scan_ids(prefix, after, most)

    def commit(self, batch: Batch) -> None:
        if self.is_full:
            raise StoreError("the disk is full, says the seed")
        try:
            self._store.commit(batch)
        except StoreError as error:
            self._world.fates.fault(f"{batch} cannot be written: {error}")
            raise
        self._world.fates.committed(batch)

    def letters(self, after: int, most: int) -> list[Letter]:
        return self._store.letters(after, most)

    def letter(self, row: int) -> Letter | None:
        return self._store.letter(row)

    def tick(self, now: int) -> None:
        self._store.tick(now)
        self.heartbeat = now

    def size(self) -> int:
        return self._store.size()

    def backup(self, path: str) -> None:
        self._store.backup(path)

    def hand_over(self) -> None:
        return None

    def close(self, clean: bool) -> None:
        self._store.close(clean)
        self._is_open = False
        self._world.fates.closed(clean)


class SlowWriter:
    """A writer that makes calls one after another, each of which takes some time.

    Args:
        world: Its world, which decides how much.
        host: Its host: when that is dead, no more calls are made.
    """

    def __init__(self, world: HostWorld, host: Host) -> None:
        self._world = world
        self._host = host
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: deque[tuple[Callable[[], Any], Callable[..., Any]]] = deque()
        self._is_busy = False
        self._told_at = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def submit(self, call: Callable[[], Any], then: Callable[..., Any]) -> None:
        if self._loop is None:
            raise StoreError("the store is not open: its writer has ended, or was not started")
        if self._host.dead or self._loop.is_closed():
            return
        self._host.suffer()
        self._jobs.append((call, then))
        self._host.suffer()
        if not self._is_busy:
            self._is_busy = True
            self._make_next()

    def stop(self) -> None:
        self._loop = None

    def join(self, timeout: float | None = None) -> bool:
        return True

    def _draw(self) -> float:
        return self._world.random.random() * self._world.disk.slowness

    def _make_next(self) -> None:
        self._world.loop.call_later(self._draw(), self._make)

    def _make(self) -> None:
        loop = self._world.loop
        if self._host.dead:
            return
        call, then = self._jobs[0]
        # They hold the lock, too.
        opens = getattr(call, "__func__", None) is Asking._open
        if opens and any(life.apart for life in self._world.lives):
            loop.call_later(0.02, self._make)
            return
        self._jobs.popleft()
        result, error = None, None
        try:
            result = call()
        except Exception as raised:
            error = raised
        self._told_at = max(loop.time() + self._draw(), self._told_at + 1e-9)
        loop.call_at(self._told_at, partial(then, result, error))
        if self._jobs:
            self._make_next()
        else:
            self._is_busy = False
