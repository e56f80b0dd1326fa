"""A store and a writer that a test controls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from aioscheduler._durable.group import Group, Kept
from aioscheduler._durable.records import (
    FIRST,
    LAST,
    Batch,
    Function,
    Letter,
    Opening,
    Position,
    Row,
    Store,
    StoreGone,
    Unwritable,
)
from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler._routing.commits import Commits
from aioscheduler.errors import StoreError


def read_all(store: Store, most: int = 4096) -> list[list[Row]]:
    """Return all tasks of a store, read part by part."""
    pages: list[list[Row]] = []
    page = store.read(FIRST, LAST[0], most)
    while True:
        if page.rows:
            pages.append(page.rows)
        if page.behind is None:
            return pages
        page = store.read(page.reached, LAST[0], most)


def store_of(rows: list[Row]) -> SQLiteStore:
    """Return a store in memory that has these tasks."""
    store = SQLiteStore(":memory:")
    store.open()
    store.commit(Batch(puts=rows))
    return store


def positions(rows: list[Row]) -> list[Position]:
    """Return where tasks stand in the order in which they are read."""
    return [row.position for row in rows]


class TrickyStore(SQLiteStore):
    """A store in memory that may fail, or die with its host.

    Attributes:
        fails: The error that the next commits raise; None: they are written.
        batches: The batches committed.
        heartbeat: The last host's heartbeat in the next opening.
        dirty: Whether the last host has died, by the next opening.
        closed: Whether each close was clean.
        refused: Rows of tasks that can never be written.
    """

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.refused: set[int] = set()
        self.fails: Exception | None = None
        self.cannot_open: Exception | None = None
        self.tick_fails: Exception | None = None
        self.complains = ""
        self.batches: list[Batch] = []
        self.heartbeat = 0
        self.dirty = False
        self.closed: list[bool] = []

    @property
    def path(self) -> str:
        return "tasks.db"

    @property
    def complaint(self) -> str:
        return self.complains

    def open(self) -> Opening:
        if self.cannot_open is not None:
            raise self.cannot_open
        opening = super().open()
        if self.dirty:
            opening = opening._replace(clean=False)
        return opening._replace(heartbeat=self.heartbeat)

    def commit(self, batch: Batch) -> None:
        if self.fails is not None:
            raise self.fails
        if not self.refused.isdisjoint(put.row for put in batch.puts):
            raise Unwritable("a page is bad")
        super().commit(batch)
        self.batches.append(batch)

    def tick(self, now: int) -> None:
        if self.tick_fails is not None:
            raise self.tick_fails
        super().tick(now)

    def close(self, clean: bool) -> None:
        self.closed.append(clean)
        super().close(clean)

    # For a test, with or without a host.

    def rows(self) -> list[Row]:
        """Return the tasks in the file."""
        rows: list[Row] = self._look(lambda: [row for page in read_all(self) for row in page])
        return rows

    def dead(self) -> list[Letter]:
        """Return the dead letters."""
        letters: list[Letter] = self._look(lambda: self.letters(-1, 1000))
        return letters

    def write(self, batch: Batch) -> None:
        """Commit a batch, as an earlier host did."""
        self._look(lambda: SQLiteStore.commit(self, batch))

    def _look(self, call: Callable[[], Any]) -> Any:
        opened = self._connection is None
        if opened:
            SQLiteStore.open(self)
        try:
            return call()
        finally:
            if opened:
                SQLiteStore.close(self, clean=True)


FULL = StoreError("tasks.db cannot be written: the disk is full")
GONE = StoreGone("tasks.db was deleted")


class HandWriter:
    """A writer that makes calls when a test says so."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any, Any], object]]] = deque()
        self.stopped = False
        self.dead: StoreError | None = None
        self.hangs = False
        self.joined: list[float | None] = []  # the timeouts of `join`

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.dead is not None:
            raise self.dead

    def submit(self, call: Callable[[], Any], then: Callable[[Any, Any], object]) -> None:
        if self.dead is not None:
            raise self.dead
        self.jobs.append((call, then))

    def stop(self) -> None:
        self.stopped = True

    def join(self, timeout: float | None = None) -> bool:
        self.joined.append(timeout)
        return not self.hangs

    def work(self, most: int = 1000) -> int:
        """Make calls, and report their results; return how many there were."""
        count = 0
        while self.jobs and count < most:
            call, then = self.jobs.popleft()
            count += 1
            try:
                result = call()
            except Exception as error:  # noqa: BLE001  whatever it is
                then(None, error)
            else:
                then(result, None)
        return count


class HandLoop:
    """A loop whose turns and seconds pass by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready: deque[asyncio.Handle] = deque()
        self.timers: list[tuple[float, asyncio.Handle]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., object], *args: Any) -> asyncio.Handle:
        handle = asyncio.Handle(call, args, self)  # type: ignore[arg-type]
        self.ready.append(handle)
        return handle

    def call_later(self, delay: float, call: Callable[..., object], *args: Any) -> asyncio.Handle:
        handle = asyncio.Handle(call, args, self)  # type: ignore[arg-type]
        self.timers.append((self.now + delay, handle))
        return handle

    def turn(self) -> None:
        """Run the callbacks of a turn."""
        for _ in range(len(self.ready)):
            handle = self.ready.popleft()
            if not handle.cancelled():
                handle._run()

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        due = [handle for when, handle in self.timers if when <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        self.ready.extend(due)
        self.turn()

    # Called by an `asyncio.Handle` whose callback raises.

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise context["exception"]


class Rig:
    """A group and its commits, with turns by hand."""

    def __init__(self) -> None:
        self.store = TrickyStore()
        opening = self.store.open()
        self.loop, self.writer = HandLoop(), HandWriter()
        self.group = Group(opening.next_row)
        self.aged = 0
        self.failures: list[Exception] = []
        self.commits = Commits(
            *(self.store, self.writer, self.group, self.age, self.failures.append)  # type: ignore[arg-type]
        )
        self.told: list[Any] = []

    def age(self) -> None:
        self.aged += 1

    def start(self) -> None:
        loop: Any = self.loop
        self.commits.start(loop)

    def put(self, payload: bytes = b"") -> Kept:
        row = Row(self.group.new_row(), 5, 1, payload)
        kept = Kept.of(row)
        self.group.define(Function(1, "f", "m:f", False))
        self.group.put(kept, row)
        self.commits.soon()
        return kept

    def watch(self, stamp: int) -> None:
        self.commits.when(stamp, lambda error: self.told.append((stamp, error)))

    def turn(self) -> None:
        """Run a turn of the loop, and all jobs of the writer."""
        self.loop.turn()
        self.writer.work()
