"""The durable tasks of one manager: written in time, and read back when it starts.

    start ─► the file is opened, its tasks are passed to the links ─► the links start
    schedule ─► Drafts ─► a call for the link ─► Intake: a row of the file ─► Group ─► Commits
    an ending at a link ─► Keeping ─► Group
    close ─► the last batch ─► the file is closed, when no worker runs any more

A durable task is a task of its link like any other; what is kept of it besides is a `Kept`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from .._durable.group import Group, Kept
from .._durable.records import Opening, Store, StoreGone
from .._durable.repeatrecords import RepeatRow
from .._durable.writer import InlineWriter, Writer
from .._scheduling.loopthread import LoopThread
from .._shipping.hostshipping import HostShipper
from ..errors import StoreError
from .asking import Asking
from .burials import Burials
from .commits import CLOSE_PATIENCE, Commits, explain
from .drafts import Drafts
from .functions import Functions
from .intake import Intake
from .keeping import Keeping
from .letters import Letters
from .lookups import Lookups
from .marks import Marks
from .opened import check_kind, warn_of_clock
from .paging import Paging
from .restoring import Admission, Restoring
from .shelf import Shelf
from .shelflisting import ShelfListing
from .storedcalls import LocalCalls, Notes, RemoteCalls
from .suspects import Suspects
from .whereabouts import Whereabouts

log: logging.Logger = logging.getLogger("aioscheduler")


class Keeper:
    """The loop's side of a store.

    Args:
        store: The file.
        writer: The thread that uses it.
        workers: How many workers there are.
        timed: Whether tasks have due times.
        shipper: Makes payloads.
        calls: Makes calls for the links.
        notes: Reads and writes the notes of tasks.
        clock: Return the present in nanoseconds since the epoch.
        loop_thread: The thread in which calls are allowed.
        new_due: Return the due time for a reschedule.
        failed: Called when the store cannot be used, or not any more.

    Attributes:
        keepings: The durable tasks of each link.
        commits: Writes changes, and says what is on disk.
        group: The changes to be written next.
        letters: The dead letters in the file.
        drafts: Makes drafts of new tasks.
        where: Where each task is, and the horizon.
        shelf: The tasks that are only in the file.
        intake: Enters tasks that links have accepted.
        is_open: Whether the file is open, and the tasks due first are in memory.
        size: The size of the file in bytes, as last seen.
        repeats: The repeats of the file, from its opening until they are taken.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer | InlineWriter,
        workers: int,
        timed: bool,
        shipper: HostShipper,
        calls: RemoteCalls | LocalCalls,
        notes: Notes,
        clock: Callable[[], int],
        loop_thread: LoopThread,
        new_due: Callable[[datetime | timedelta | None], int],
        failed: Callable[[Exception], None],
    ) -> None:
        self.store = store
        self.group: Group = Group(0)
        self.size = 0
        self.repeats: Sequence[RepeatRow] = ()
        self.calls = calls
        self.notes = notes
        self._writer = writer
        self._asking = Asking(store, writer)
        self._clock = clock
        self._failed = failed
        self._timed = timed
        self._marks = Marks(self.group)
        self._functions = Functions(self.group)
        self.drafts: Drafts = Drafts(shipper, self._functions, notes)
        self._restoring: Restoring | None = None
        self._suspects = Suspects()
        left: dict[str, Kept] = {}  # tasks that stay for the next host, by id
        self.where: Whereabouts = Whereabouts(workers)
        self.commits: Commits = Commits(store, writer, self.group, self._marks.age, self._fail)
        self.commits.written = self.where.horizon.written
        self._lookups = Lookups(
            *(store, self._asking.ask, self.where, lambda: self.group.stamp),
            *(self.commits.soon, self._fail),
        )
        self.commits.until = self._lookups.until
        self._burials = Burials(self.group, clock, self.commits.has)
        self.letters: Letters = Letters(
            store, self.group, self.commits, self._asking.ask, self.stored
        )
        self.keepings: list[Keeping] = [
            Keeping(
                *(self.group, self.commits, self._marks, self._suspects, timed, clock),
                *(self._burials.bury, self.stored, left, self.where),
                self._lookups.when_known,
            )
            for _ in range(workers)
        ]
        self.shelf: Shelf = Shelf(
            *(timed, self.group, self.commits, self.where, self._lookups, self.drafts),
            *(self.stored, loop_thread, new_due),
            partial(ShelfListing, store, self._asking.ask, self.where, self.drafts, timed),
        )
        self.intake: Intake = Intake(
            *(self.group, self.commits, self.drafts, self.keepings, self.where, self._lookups),
            *(self.shelf.strike, self.shelf.claims.join, left),
        )
        self._paging: Paging | None = None
        self._opened: asyncio.Future[None] | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._admission: Admission | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_open = False
        self._reason: Exception | None = None  # why it cannot go on
        self._is_abandoned = self._ticking = False
        self._closing: asyncio.Task[None] | None = None

    # ---- its start

    def open(
        self, loop: asyncio.AbstractEventLoop, admission: Admission, then: Callable[[], None]
    ) -> None:
        """Open the store, and pass its tasks to the links.

        Args:
            loop: The running loop.
            admission: Passes tasks to the links.
            then: Called when the tasks due first have been passed.
        """
        self._loop, self._admission = loop, admission
        self._opened = loop.create_future()
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        self._feeding = loop.create_task(self._open(then))
        self._feeding.add_done_callback(self._was_opened)

    async def ready(self) -> None:
        """Wait until the store is open, and the tasks due first are in memory.

        Raises:
            StoreError: It cannot be opened.
            RuntimeError: `open` was not called.
        """
        if self._opened is None:
            raise RuntimeError("the store of a manager is opened by start(): call that first")
        await asyncio.shield(self._opened)

    async def settle(self) -> bool:
        """Write all changes, as far as possible; return whether all are in the file."""
        if self._feeding is not None:
            await asyncio.wait([self._feeding], timeout=CLOSE_PATIENCE)
            self._feeding.cancel()
        if self._paging is not None:
            await self._paging.stop()
        if self.is_open:
            with contextlib.suppress(TimeoutError):  # of lookups: the file does not answer
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await self._lookups.settle()
            with contextlib.suppress(StoreError):  # the manager has failed because of it
                await self._asking.settle()  # a backup, maybe
                return await self.commits.finish()
        return False

    async def _open(self, then: Callable[[], None]) -> None:
        assert self._loop is not None
        self._writer.start(self._loop)
        await self._feed(await self._asking.open())
        self.commits.start(self._loop)
        then()

    def _was_opened(self, opening: asyncio.Task[None]) -> None:
        """Report the result; a task cancelled before its first step could not do so itself."""
        assert self._opened is not None
        error: BaseException | None
        if opening.cancelled():
            how = "it took too long for a close(), or all tasks of the loop were cancelled"
            error = StoreError(f"{self.store.path} was not opened: {how}")
        else:
            error = opening.exception()
        if error is None:
            self._opened.set_result(None)
        else:  # whatever it is, nothing can be kept
            reason = explain(self.store.path, "used", error)
            self._opened.set_exception(reason)
            self._fail(reason)

    async def _feed(self, opening: Opening) -> None:
        """Pass the first tasks of the file to the links, and give rows to early tasks."""
        assert self._admission is not None
        assert self._loop is not None
        now = self._clock()
        warn_of_clock(self.store.path, opening.heartbeat, now)
        self.group.next_row = opening.next_row
        self.where.store = f"{opening.identity:032x}"
        self.commits.tasks, self.commits.letters = opening.tasks, opening.letters
        self._functions.read(opening.functions)
        self.repeats = opening.repeats
        self._restoring = restoring = Restoring(
            *(self._admission, self.group, self._burials, self._functions, self.keepings),
            self.calls,
            self.notes,
            opening,
            now,
            self.where,
            self.shelf,
        )
        self.shelf.open(self._loop, self._admission, restoring, opening.tasks)
        paging = Paging(
            *(self.store, self._asking.ask, self.where, self._timed, self._clock, self._held),
            lambda found: restoring.take_many(found, self.intake.early),
            *(
                self._lookups.settle,
                self._admission.flush,
                self.shelf.counter.take,
                self.shelf.recount,
                self._fail,
            ),
        )
        self.intake.open()
        check = partial(check_kind, timed=self._timed, path=self.store.path)
        await paging.open(self._loop, check)
        self._paging = paging
        self.is_open = True

    def _held(self) -> int:
        """Return how many tasks of the store are in memory."""
        waiting = 0 if self._restoring is None else self._restoring.waiting
        return waiting + sum(len(keeping.kept) for keeping in self.keepings)

    # ---- new tasks

    def know(self, id_: str | None) -> None:
        """Admit tasks whose functions were registered meanwhile, one of which may have the id."""
        if id_ is not None and self._restoring is not None:
            self._restoring.resolve(self._clock())

    def free(self, id_: str | None) -> None:
        """Free an id, if given, that a task of an unregistered function has."""
        if id_ is not None and self._restoring is not None:
            self._restoring.claim(id_, self._clock())

    def is_far(self, due: int) -> bool:
        """Whether a new task will be only in the file."""
        return self.intake.is_open and not self.where.horizon.is_near(due, self.group.next_row)

    # ---- called by users

    async def stored(self, kept: Kept | None) -> None:
        """Wait until a task is on disk; None: everything so far.

        Raises:
            StoreError: It never will be.
        """
        await self.ready()
        if kept is None or kept.row < 0:
            await self._lookups.settle()
        await self.commits.wait(self.group.stamp if kept is None else kept.stamp)
        if kept is not None and (why := self.commits.refused.get(kept.row)) is not None:
            raise why.with_traceback(None)

    async def backup(self, path: str) -> None:
        """Copy everything so far to a new file."""
        await self.stored(None)
        await self._asking.ask(partial(self.store.backup, path))

    def figures(self) -> dict[str, Any]:
        """Return the store's figures for `stats()`; any thread may ask."""
        return self.commits.figures() | {"store_bytes": self.size}

    # ---- once a tick

    def look_after(self) -> None:
        """Record that the host is alive, and do the regular work; called once a tick."""
        if not self.is_open or self._closing is not None:
            return
        now = self._clock()
        self._burials.log()
        self._suspects.look_after(now)
        self.shelf.held.forget_dropped()
        self._lookups.look_after()
        if self._paging is not None:
            self._paging.look()
        if self._restoring is not None and self._restoring.resolve(now):
            self.commits.soon()
        if self._marks:  # even if nothing else is written
            self.commits.soon()
        if not self._ticking:
            self._ticking = True
            try:
                self._writer.submit(partial(self._tick, now), self._ticked)
            except StoreError as error:  # the writer has stopped
                self._fail(error)

    def _tick(self, now: int) -> int:
        self.store.tick(now)
        return self.store.size()

    def _ticked(self, size: int | None, error: BaseException | None) -> None:
        self._ticking = False
        if error is None:
            self.size = size or 0
        elif self._closing is None and (
            isinstance(error, StoreGone) or not isinstance(error, StoreError)
        ):  # else the next batch reports it
            self._fail(error)

    # ---- its end

    def _fail(self, error: BaseException) -> None:
        reason = self._reason = explain(self.store.path, "used any more", error)
        self.commits.stop(reason)
        self._failed(reason)

    async def close(self) -> None:
        """Write what is left, and close the file; no worker runs any more."""
        if self._loop is None:
            return
        if self._closing is None or self._closing.cancelled():  # as when all tasks are cancelled
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        clean = await self.settle() and not self._is_in_doubt()
        self._lookups.stop()
        if lost := self.shelf.close(self._reason):
            log.error("%s new tasks are not in %s, and are lost", f"{lost:,}", self.store.path)
        self._burials.log()
        self.commits.stop(StoreError(f"{self.store.path} was closed with its manager"))
        try:
            async with asyncio.timeout(CLOSE_PATIENCE):
                await self._asking.ask(partial(self._asking.close, clean))
        except StoreError as error:
            if self._asking.has_file:
                log.error("%s", error)
        except TimeoutError:  # a disk that hangs, and the thread with it
            log.error("%s does not answer; it is closed when it does", self.store.path)
        self._writer.stop()
        self._writer.join(1.0)

    def _is_in_doubt(self) -> bool:
        """Whether suspects of an earlier host's end are left that were not cleared."""
        restoring = self._restoring
        left = restoring is not None and restoring.leaves_suspects
        return left or any(keeping.leaves_suspects for keeping in self.keepings)

    def abandon(self) -> None:
        """Write what can be written, and close: the loop is over, and maybe the program, too."""
        if self._loop is None or self._is_abandoned:
            return
        self._is_abandoned = True
        with contextlib.suppress(StoreError):  # the writer has stopped
            if self.is_open:
                self.commits.abandon()
            self._writer.submit(partial(self._asking.close, False), lambda *_: None)
        self._writer.stop()
        self.commits.stop(StoreError(f"the event loop of the manager of {self.store.path} is over"))
        # The program may end next, and no other thread would run then.
        patience = 0.0 if sys.is_finalizing() else CLOSE_PATIENCE
        with contextlib.suppress(RuntimeError):  # of the thread itself, which goes on
            if not self._writer.join(patience):
                log.error("%s does not answer: what was not stored may be lost", self.store.path)
