"""The durable tasks of one manager: written before it is too late, and read back at its start.

    start ─► the file is opened, its tasks are given to the links ─► the links start
    schedule ─► take ─► a call for the link ─► enter: a row of the file ─► Group ─► Commits
    a link's end of a task ─► Keeping ─► Group
    close ─► the last batch ─► the file is let go, when no worker runs any more

A durable task is a task of its link as any other; what is kept of it besides is `Kept`.
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
from .opened import check_kind, tell_of_clock
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
        writer: In whose thread it is used.
        workers: How many workers there are.
        timed: Whether tasks have due times.
        shipper: Makes payloads.
        calls: Makes what links take.
        notes: Reads and writes what goes with tasks.
        clock: Return the present in nanoseconds since the epoch.
        loop_thread: Where calls are right.
        new_due: Reads the time to which a task is rescheduled.
        failed: Called when the store cannot be used, or not any more.

    Attributes:
        keepings: What is kept at each link.
        commits: Says what is on disk.
        group: What is to be written next.
        letters: Has the dead letters in the file.
        drafts: Makes what is to be entered.
        where: Where each task is, and where memory ends.
        shelf: Those who hold a task that is only in the file.
        intake: Takes what links have accepted.
        is_open: Whether the file has been opened, and what is due first is in memory.
        size: The bytes of the file, as last seen.
        repeats: Those of the file, once it is open, until they are taken from here.
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
        left: dict[str, Kept] = {}  # what stays for the next host and has an id, by that
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
        """Open the store, and give its tasks to the links.

        Args:
            loop: The running one.
            admission: Takes the tasks.
            then: Called when those that are due first have been given.
        """
        self._loop, self._admission = loop, admission
        self._opened = loop.create_future()
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        self._feeding = loop.create_task(self._open(then))
        self._feeding.add_done_callback(self._was_opened)

    async def ready(self) -> None:
        """Return when it is open, and what is due first is in memory.

        Raises:
            StoreError: It cannot be opened.
            RuntimeError: Nobody has opened it.
        """
        if self._opened is None:
            raise RuntimeError("the store of a manager is opened by start(), which comes first")
        await asyncio.shield(self._opened)

    async def settle(self) -> bool:
        """Write all that there is, as far as it can be; return whether all of it is in the file."""
        if self._feeding is not None:
            await asyncio.wait([self._feeding], timeout=CLOSE_PATIENCE)
            self._feeding.cancel()
        if self._paging is not None:
            await self._paging.stop()
        if self.is_open:
            with contextlib.suppress(TimeoutError):  # of who has an id: the file does not answer
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await self._lookups.settle()
            with contextlib.suppress(StoreError):  # the manager has failed by it
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
        """Say how it went; a task that is cancelled before its first step could not do so."""
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
        """Give the first tasks of the file to the links, and rows to what was scheduled."""
        assert self._admission is not None
        assert self._loop is not None
        now = self._clock()
        tell_of_clock(self.store.path, opening.heartbeat, now)
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
                self.shelf.tally.take,
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
        """See to it that who has an id is known, if a function was registered meanwhile."""
        if id_ is not None and self._restoring is not None:
            self._restoring.resolve(self._clock())

    def free(self, id_: str | None) -> None:
        """Free an id, if there is one, of a task whose function nobody has registered."""
        if id_ is not None and self._restoring is not None:
            self._restoring.claim(id_, self._clock())

    def is_far(self, due: int) -> bool:
        """Whether a new task is to be only in the file."""
        return self.intake.is_open and not self.where.horizon.is_near(due, self.group.next_row)

    # ---- what users ask

    async def stored(self, kept: Kept | None) -> None:
        """Return when a task is on disk; None: everything so far is.

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
        """Return what `stats()` tells of the store; any thread may ask."""
        return self.commits.figures() | {"store_bytes": self.size}

    # ---- once a tick

    def look_after(self) -> None:
        """Is called once a tick: says that the host lives, and looks after what waits."""
        if not self.is_open or self._closing is not None:
            return
        now = self._clock()
        self._burials.tell()
        self._suspects.look_after(now)
        self.shelf.held.forget_dropped()
        self._lookups.look_after()
        if self._paging is not None:
            self._paging.look()
        if self._restoring is not None and self._restoring.resolve(now):
            self.commits.soon()
        if self._marks:  # though nothing else be written
            self.commits.soon()
        if not self._ticking:
            self._ticking = True
            try:
                self._writer.submit(partial(self._tick, now), self._ticked)
            except StoreError as error:  # there is no writer any more
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
        ):  # else the next batch tells what is wrong
            self._fail(error)

    # ---- its end

    def _fail(self, error: BaseException) -> None:
        reason = self._reason = explain(self.store.path, "used any more", error)
        self.commits.stop(reason)
        self._failed(reason)

    async def close(self) -> None:
        """Write what is left, and let go of the file: no worker runs any more."""
        if self._loop is None:
            return
        if self._closing is None or self._closing.cancelled():  # as by who cancels all tasks
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        clean = await self.settle() and not self._is_in_doubt()
        self._lookups.stop()
        if lost := self.shelf.close(self._reason):
            log.error("%s new tasks are not in %s, and are lost", f"{lost:,}", self.store.path)
        self._burials.tell()
        self.commits.stop(StoreError(f"{self.store.path} was closed with its manager"))
        try:
            async with asyncio.timeout(CLOSE_PATIENCE):
                await self._asking.ask(partial(self._asking.close, clean))
        except StoreError as error:
            if self._asking.has_file:
                log.error("%s", error)
        except TimeoutError:  # a disk that hangs, and a thread with it
            log.error("%s does not answer, and is let go when it does", self.store.path)
        self._writer.stop()
        self._writer.join(1.0)

    def _is_in_doubt(self) -> bool:
        """Whether tasks are left that may have ended an earlier host, and were not cleared."""
        restoring = self._restoring
        left = restoring is not None and restoring.leaves_suspects
        return left or any(keeping.leaves_suspects for keeping in self.keepings)

    def abandon(self) -> None:
        """Write what can be written, and let go: the loop is over, and maybe the program, too."""
        if self._loop is None or self._is_abandoned:
            return
        self._is_abandoned = True
        with contextlib.suppress(StoreError):  # it was let go before
            if self.is_open:
                self.commits.abandon()
            self._writer.submit(partial(self._asking.close, False), lambda *_: None)
        self._writer.stop()
        self.commits.stop(StoreError(f"the event loop of the manager of {self.store.path} is over"))
        # The program may end next, and then no other thread runs any more.
        patience = 0.0 if sys.is_finalizing() else CLOSE_PATIENCE
        with contextlib.suppress(RuntimeError):  # of the thread itself, which goes on
            if not self._writer.join(patience):
                log.error("%s does not answer: what was not stored may be lost", self.store.path)
