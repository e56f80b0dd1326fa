"""Writes changes batch after batch, and notifies those who wait for them.

    a turn of the loop ─► Group ─► take ─► the writer's thread: Store.commit ─┐
              ▲                                                               ▼
              └───────── changes gathered meanwhile are the next ◄──── reached: waiters

One batch is written at a time while the next one gathers: a group commit. A batch that cannot be
written is retried unchanged for as long as the manager lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .._durable.group import Group
from .._durable.records import Batch, Store, StoreGone, Unwritable
from .._durable.writer import InlineWriter, Writer
from ..errors import StoreError

log: logging.Logger = logging.getLogger("aioscheduler")

FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0  # seconds
REPORT_AGAIN = 60.0  # seconds between two reports of the same trouble
MOST_UNSAVED = 200_000  # changes kept while the store cannot write
MOST_UNSAVED_BYTES = 64 << 20
MUCH_UNSAVED = 50_000  # above it `flush` waits for the store
CLOSE_PATIENCE = 10.0  # seconds without progress after which a close stops waiting
_MOST_LOGGED = 10  # unwritable changes that are logged one by one; the others are counted
_TIMES = 1024  # commits whose times are kept


class Commits:
    """Writes the changes of durable tasks.

    Args:
        store: The store to write to.
        writer: The thread that writes.
        group: The changes that have not been handed to it.
        before: Called before a batch is made.
        failed: Called when nothing can be written any more.

    Attributes:
        reached: The stamp up to which everything is on disk.
        tasks: How many tasks are in the file.
        letters: How many dead letters there are, less those whose removal is not written yet
            (`Letters.drop` subtracts them).
        times: How long the last commits took, in seconds.
        refused: Rows that can never be written, and why.
        written: Called with `reached` when it may have changed.
        until: Return the stamp of the last change that may be written; None: all may be.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer | InlineWriter,
        group: Group,
        before: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.reached = 0
        self.tasks = 0
        self.letters = 0
        self.times: deque[float] = deque(maxlen=_TIMES)
        self.refused: dict[int, Unwritable] = {}
        self.written: Callable[[int], object] = lambda stamp: None
        self.until: Callable[[], int | None] = lambda: None
        self._store = store
        self._writer = writer
        self._group = group
        self._before = before
        self._failed = failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._again: Callable[[], None] = lambda: None
        self._failed_batch = Batch()  # to be retried
        self._finishing = False
        self._given_up = False  # a close has waited in vain
        self._under_way = 0  # changes being written
        self._waiters: deque[tuple[int, Callable[[StoreError | None], None]]] = deque()
        self._trouble: StoreError | None = None
        self._tries = 0
        self._reported = -REPORT_AGAIN
        self._over: StoreError | None = None

    @property
    def unsaved(self) -> int:
        """How many changes are not on disk yet."""
        return self._group.unsaved + self._under_way

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start writing."""
        self._loop = loop
        self.soon()

    def soon(self) -> None:
        """Have the changes written at the end of this turn of the loop."""
        if self._turn is None and not self._under_way and self._loop and not self._over:
            self._turn = self._loop.call_soon(self._hand_out)

    def when(self, stamp: int, notify: Callable[[StoreError | None], None]) -> None:
        """Call back once everything up to a stamp is on disk, or with why it never will be."""
        is_gone = isinstance(self._over, StoreGone)  # even what was on disk may be gone
        if stamp <= self.reached and not is_gone:
            notify(None)
        elif self._over is not None:
            notify(self._over)
        else:
            self._waiters.append((stamp, notify))
            self.soon()

    def has(self, stamp: int) -> bool:
        """Whether everything up to a stamp is on disk, or may yet be written."""
        return stamp <= self.reached or (self._over is None and not self._given_up)

    async def wait(self, stamp: int) -> None:
        """Wait until everything up to a stamp is on disk.

        Raises:
            StoreError: It never will be.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def notify(error: StoreError | None) -> None:
            if not waiter.done():
                waiter.set_result(None) if error is None else waiter.set_exception(error)

        self.when(stamp, notify)
        await waiter

    def check_room(self) -> None:
        """Refuse new changes while the store cannot write and too many are in memory.

        Raises:
            StoreError: There is no room for more, or nothing can be written any more.
        """
        if self._over is not None:
            raise self._over
        if self._trouble is not None and (
            self.unsaved > MOST_UNSAVED or self._group.unsaved_bytes > MOST_UNSAVED_BYTES
        ):
            raise StoreError(
                f"{self.unsaved:,} changes of durable tasks wait for {self._store.path}, which "
                f"cannot be written: {self._trouble}; nothing is lost, and writing is retried"
            ) from self._trouble

    async def finish(self) -> bool:
        """Write all changes as long as there is progress; return whether all are on disk.

        A close calls it twice: before tasks end as kept, and when they have ended. If the first
        wait was in vain, there is no second.

        Raises:
            StoreError: Nothing can be written any more.
        """
        self._finishing = True
        if self._retry is not None:  # the trouble may be over
            self._retry.cancel()
            self._again()
        stamp = self._group.stamp
        while stamp > self.reached and not self._given_up:
            reached = self.reached
            try:
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await self.wait(stamp)
            except TimeoutError:
                if self.reached > reached:
                    continue
                self._given_up = True
                log.error(
                    "%s cannot be written: %s changes of durable tasks are lost, unless it can be "
                    "before this manager has closed; tasks that had ended may run once more",
                    self._store.path,
                    f"{self.unsaved:,}",
                )
        return stamp <= self.reached

    def abandon(self) -> None:
        """Have all remaining changes written, with no loop to report to.

        Raises:
            StoreError: The writer has stopped.
        """
        if self._over is not None:
            return
        batches = [] if self._retry is None else [self._failed_batch]
        while (taken := self._group.take()) is not None:
            batches.append(taken[0])
        if batches:
            self._writer.submit(partial(_write_all, self._store, batches), lambda *_: None)

    def figures(self) -> dict[str, Any]:
        """Return the figures for `stats()`; any thread may ask."""
        times = sorted(self.times.copy())
        p50, p99 = (times[int(len(times) * part)] if times else 0.0 for part in (0.5, 0.99))
        return {
            "stored": self.tasks,
            "dead_letters": self.letters,
            "unsaved": self.unsaved,
            "commit_p50": p50,
            "commit_p99": p99,
        }

    async def settle(self) -> None:
        """Wait while over `MUCH_UNSAVED` changes are unsaved, unless the store cannot write."""
        while self.unsaved > MUCH_UNSAVED and self._trouble is None and self._over is None:
            await self.wait(self._group.stamp)

    def _hand_out(self) -> None:
        self._turn = None
        if self._under_way or self._over is not None:
            return
        self._before()
        until = self.until()
        taken = self._group.take(until=until)
        if taken is None:
            self._reach(self._group.stamp if until is None else min(until, self._group.stamp))
            return
        batch, stamp = taken
        self._under_way = sum(map(len, batch[:-1]))
        self._submit(batch, stamp)

    def _submit(self, batch: Batch, stamp: int) -> None:
        assert self._loop is not None
        self._retry = None
        write = partial(_write, self._store, batch)
        try:
            self._writer.submit(write, partial(self._committed, batch, stamp, self._loop.time()))
        except StoreError as error:  # the writer has stopped
            self._fail(error)

    def _committed(
        self,
        batch: Batch,
        stamp: int,
        began: float,
        left_out: list[tuple[Batch, Unwritable]] | None,
        error: BaseException | None,
    ) -> None:
        assert self._loop is not None
        if self._over is not None:
            return
        now = self._loop.time()
        if error is not None:
            self._take_error(batch, stamp, error, now)
            return
        self.times.append(now - began)
        left = left_out or []
        for part, why in left[:_MOST_LOGGED]:
            log.error("%s; this change of a durable task is left out: %s", why, _describe(part))
        if len(left) > _MOST_LOGGED:
            log.error(
                "%s; %s more changes are left out", left[-1][1], f"{len(left) - _MOST_LOGGED:,}"
            )
        for part, why in left:
            self.refused.update((row.row, why) for row in part.puts)
            self.tasks -= len(part.puts) - len(part.strikes) - len(part.burials)
            still = len(part.discards) + len(part.requeues)  # letters that remain
            self.letters -= len(part.burials) - still
        if self._trouble is not None:
            log.warning("%s can be written again; nothing was lost", self._store.path)
            self._trouble, self._tries, self._reported = None, 0, -REPORT_AGAIN
        strikes, burials = len(batch.strikes), len(batch.burials)
        if self.refused:  # rows that were never written cannot go
            strikes -= sum(row in self.refused for _, row in batch.strikes)
            burials -= sum(burial.row in self.refused for burial in batch.burials)
        self.tasks += len(batch.puts) - strikes - burials
        self.letters += burials
        self._under_way = 0
        self._reach(stamp)
        if self._group.unsaved or self._waiters:
            self.soon()

    def _take_error(self, batch: Batch, stamp: int, error: BaseException, now: float) -> None:
        assert self._loop is not None
        if not isinstance(error, StoreError) or isinstance(error, StoreGone):
            self._fail(error)
            return
        self._trouble = error
        # The disk may be full for days: the power of two must not grow without bound.
        delay = min(FIRST_RETRY * 2 ** min(self._tries, 16), LONGEST_RETRY)
        if self._finishing:  # little time is left
            delay = FIRST_RETRY
        self._tries += 1
        if now - self._reported >= REPORT_AGAIN:
            self._reported = now
            log.error(
                "%s; %s changes of durable tasks wait for it; tasks go on, and writing is retried",
                *(error, f"{self.unsaved:,}"),
            )
        self._failed_batch = batch
        self._again = partial(self._submit, batch, stamp)
        self._retry = self._loop.call_later(delay, self._again)

    def _fail(self, error: BaseException) -> None:
        reason = explain(self._store.path, "written", error)
        self.stop(reason)
        self._failed(reason)

    def stop(self, reason: StoreError) -> None:
        """Stop writing, and tell the waiters why."""
        if self._over is not None:
            return
        self._over = reason
        for timer in (self._turn, self._retry):
            if timer is not None:
                timer.cancel()
        waiters, self._waiters = self._waiters, deque()
        for _, notify in waiters:
            notify(reason)

    def _reach(self, stamp: int) -> None:
        self.reached = max(self.reached, stamp)
        self.written(self.reached)
        waiting = self._waiters
        # Briefly, waiters for a lower stamp may be behind waiters for a higher one.
        for _ in range(len(waiting)):
            wanted, notify = waiting.popleft()
            if wanted <= self.reached:
                notify(None)
            else:
                waiting.append((wanted, notify))


def _describe(part: Batch) -> str:
    """Describe a batch of one change, but not its contents, which may be large."""
    field, changes = next((f, c) for f, c in zip(part._fields, part[:-1], strict=False) if c)
    row = changes[0] if field == "discards" else getattr(changes[0], "row", None)
    if not part.requeues:
        return f"{field} of row {row}"
    return f"the requeueing of dead letter {part.requeues[0][0]}, which stays one"


def explain(path: str, what: str, error: BaseException) -> StoreError:
    """Return an exception as the error of a store that cannot be `what`."""
    if isinstance(error, StoreError):
        return error
    reason = StoreError(f"{path} cannot be {what}: {error!r}")
    reason.__cause__ = error
    return reason


def _write(store: Store, batch: Batch) -> list[tuple[Batch, Unwritable]]:
    """Write a batch, without those of its changes that can never be written.

    Returns:
        The changes left out, and why.
    """
    try:
        store.commit(batch)
    except Unwritable:
        left_out = []
        for part in _split(batch):
            try:
                store.commit(part)
            except Unwritable as error:
                left_out.append((part, error))
        return left_out
    return []


def _write_all(store: Store, batches: list[Batch]) -> None:
    """Write batches up to the first that cannot be written; report only to the log."""
    for number, batch in enumerate(batches):
        try:
            _write(store, batch)
        except Exception as error:  # noqa: BLE001  whatever it is, nobody else can report it
            lost = sum(sum(map(len, left[:-1])) for left in batches[number:])
            log.error(
                "%s; the event loop is over, and %s changes of durable tasks are lost",
                *(explain(store.path, "written", error), f"{lost:,}"),
            )
            return


def _split(batch: Batch) -> Iterator[Batch]:
    """Yield batches of a single change each, in the order in which they are written.

    A requeued letter and the task that replaces it are one change.
    """
    nothing: Any = Batch(next_row=batch.next_row)
    requeues = {task: (letter, task) for letter, task in batch.requeues}
    change: Any
    for field, changes in zip(Batch._fields[:-1], batch[:-1], strict=True):
        for change in requeues.values() if field == "requeues" else changes:
            part = nothing._replace(**{field: [change]})
            if field == "puts" and change.row in requeues:
                part = part._replace(requeues=[requeues.pop(change.row)])
            yield part
