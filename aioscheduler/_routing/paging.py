"""Reads the tasks of the file into memory: a while before they are due, and never too many.

    an alarm, or a tick ─ is there room, and the horizon near? ─► Store.read
                                                                    │
                        take ◄─ a few hundred a turn of the loop ◄──┘

Tasks that became due while no host was running, or at one instant, are read in parts, in order of
due times: those behind the horizon wait in the file for their turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from .._durable.group import Kept
from .._durable.records import BUCKET_SHIFT, LAST, Page, Row, Store
from .._scheduling.alarm import Alarm
from .._scheduling.clock import SECOND
from ..errors import StoreError
from .whereabouts import Whereabouts

log: logging.Logger = logging.getLogger("aioscheduler")

AHEAD = 60 * SECOND
"""How long before its beginning a bucket is read, in nanoseconds."""

MOST = 250_000
"""Unfinished tasks of the store in memory, above which no more are read."""

PART = 1 << 16
"""Tasks read at a time."""

SLICE = 256
"""Tasks taken in a turn of the loop."""

PLAIN_SLICE = 1024
"""The same for plain tasks, at a quarter of the cost."""

_REPORT_AGAIN = 60.0  # seconds between two reports of the same trouble


class Paging:
    """Reads the file for one keeper, in its loop.

    Args:
        store: The store to read.
        ask: Run a call in the writer's thread.
        where: Where tasks are, and the horizon.
        timed: Whether tasks have due times.
        clock: Return the present in nanoseconds since the epoch.
        count: Return how many tasks of the store are in memory.
        take: Accept rows, with what is kept of each, if anything.
        settle: Wait until the holders of new tasks' ids are known, which keep their positions.
        flush: Wait until the links have room.
        taken: Called with the number of tasks taken.
        whole: Called when there are no more behind the horizon.
        failed: Called when reading cannot go on.
    """

    def __init__(
        self,
        store: Store,
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        where: Whereabouts,
        timed: bool,
        clock: Callable[[], int],
        count: Callable[[], int],
        take: Callable[[list[tuple[Row, Kept | None]]], object],
        settle: Callable[[], Awaitable[None]],
        flush: Callable[[], Awaitable[None]],
        taken: Callable[[int], object],
        whole: Callable[[], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._store = store
        self._ask: Callable[[Callable[[], Any]], Awaitable[Any]] = ask
        self._where = where
        self._timed = timed
        self._clock = clock
        self._count = count
        self._take: Callable[[list[tuple[Row, Kept | None]]], object] = take
        self._settle: Callable[[], Awaitable[None]] = settle
        self._flush: Callable[[], Awaitable[None]] = flush
        self._taken = taken
        self._whole = whole
        self._failed = failed
        self._alarm: Alarm | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = False
        self._complaint = ""
        self._reported_at = -_REPORT_AGAIN

    @property
    def _until(self) -> int:
        """The due time up to which tasks should be in memory: at least the rest of a bucket."""
        if not self._timed:
            return 0
        return ((self._clock() + AHEAD >> BUCKET_SHIFT) + 1 << BUCKET_SHIFT) - 1

    @property
    def _room(self) -> int:
        return MOST - self._count()

    def is_wanted(self) -> bool:
        """Whether tasks should be read, and there is room for them."""
        reached = self._where.horizon.reached
        return reached < (self._until, LAST[1]) and self._room > 0

    def look(self) -> None:
        """Start reading if tasks are wanted; called once a tick, too, as the clock may be set."""
        self._complain(self._store.complaint)
        # A task cancelled before its first step has not unset it.
        is_reading = self._task is not None and not self._task.done()
        if not is_reading and not self._is_over and self.is_wanted():
            self._task = asyncio.get_running_loop().create_task(self._read_all())

    async def open(self, loop: asyncio.AbstractEventLoop, check: Callable[[Page], None]) -> None:
        """Read the first part, and set the alarm for the next.

        Args:
            loop: The running loop.
            check: Called with the first part; may raise.

        Raises:
            StoreError: It cannot be read.
        """
        await self._read(check)
        self._alarm = Alarm(loop, self._clock)
        self._where.horizon.on_earlier = self._set_alarm
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None and self._timed:
            due = self._where.horizon.next
            self._alarm.set(self.look, None if due is None else due - AHEAD)

    async def stop(self) -> None:
        """Stop reading, even within a part."""
        self._is_over = True
        if self._alarm is not None:
            self._alarm.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _read_all(self) -> None:
        try:
            while self.is_wanted():
                await self._read()
        except StoreError as error:  # it is retried
            self._complain(str(error))
        except Exception as error:  # noqa: BLE001  whatever it is, nothing more can be read
            self._failed(error)
        finally:
            self._task = None

    async def _read(self, check: Callable[[Page], None] = lambda page: None) -> None:
        """Read a part, and pass its tasks on."""
        horizon = self._where.horizon
        begun = horizon.begin()
        try:
            most = max(1, min(self._room, PART))  # at least one, for the first part
            read = partial(self._store.read, horizon.reached, self._until, most)
            page: Page = await self._ask(read)
            check(page)
            rows = page.rows
            start = 0
            while start < max(len(rows), 1):
                some = rows[start : start + PLAIN_SLICE]
                if not all(row.is_plain for row in some):
                    del some[SLICE:]
                start += max(len(some), 1)
                reached = page.reached if start >= len(rows) else some[-1].position
                await self._settle()
                found = horizon.take(some, reached)
                self._take(found)
                self._taken(len(found))
                await self._flush()
            horizon.expect(page.behind)
            if horizon.is_whole:
                self._whole()
            self._set_alarm()
            self._complain(self._store.complaint)
        finally:
            horizon.end(begun)

    def _complain(self, complaint: str) -> None:
        """Log what is wrong with the file, once a minute."""
        now = asyncio.get_running_loop().time()
        if complaint and (complaint != self._complaint or now - self._reported_at >= _REPORT_AGAIN):
            log.error("%s", complaint)
            self._complaint, self._reported_at = complaint, now
