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
from functools import partial
from itertools import repeat
from typing import Any

from .._durable.group import Group, Kept
from .._durable.records import Opening, RepeatRow, Row, Store, StoreGone
from .._durable.writer import InlineWriter, Writer
from .._shipping.hostshipping import HostShipper
from ..errors import StoreError
from .asking import Asking
from .burials import Burials
from .commits import CLOSE_PATIENCE, Commits, explain
from .drafts import Draft, Drafts
from .functions import Functions
from .keeping import NOT_GIVEN, WITHDRAWN, Keeping
from .letters import Letters
from .marks import Marks
from .restoring import Admission, Early, Restoring, check_kind, tell_of_clock
from .storedcalls import LocalCalls, Notes, RemoteCalls
from .suspects import Suspects

log: logging.Logger = logging.getLogger("aioscheduler")


class Keeper:
    """The loop's side of a store.

    Args:
        store: The file.
        writer: In whose thread it is used.
        workers: How many places there are.
        timed: Whether tasks have due times.
        shipper: Makes payloads.
        calls: Makes what links take.
        notes: Reads and writes what goes with tasks.
        clock: Return the present in nanoseconds since the epoch.
        failed: Called when the store cannot be used, or not any more.

    Attributes:
        keepings: What is kept at each place.
        commits: Says what is on disk.
        group: What is to be written next.
        letters: Has the dead letters in the file.
        drafts: Makes what is to be entered.
        is_open: Whether the file has been opened, and all that is in it is known.
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
        self._left: dict[str, Kept] = {}  # what stays for the next host and has an id, by that
        self.commits: Commits = Commits(store, writer, self.group, self._marks.age, self._fail)
        self._burials = Burials(self.group, clock, self.commits.has)
        self.letters: Letters = Letters(
            store, self.group, self.commits, self._asking.ask, self.stored
        )
        self.keepings: list[Keeping] = [
            Keeping(
                *(self.group, self.commits, self._marks, self._suspects, timed, clock),
                *(self._burials.bury, self.stored, self._left),
            )
            for _ in range(workers)
        ]
        self._early: list[Early] = []  # scheduled before it was open
        self._early_ids: dict[str, Early] = {}  # the last of them with each id
        self._opened: asyncio.Future[None] | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._admission: Admission | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_open = False
        self._fed = 0  # pages
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
            then: Called when all of them have been given.
        """
        self._loop, self._admission = loop, admission
        self._opened = loop.create_future()
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())
        self._feeding = loop.create_task(self._open(then))

    async def ready(self) -> None:
        """Return when it is open, and everything in it is known.

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
            fed = -1
            while not self._feeding.done() and fed < self._fed:  # as long as it goes on
                fed = self._fed
                await asyncio.wait([self._feeding], timeout=CLOSE_PATIENCE)
            self._feeding.cancel()
        if self.is_open:
            with contextlib.suppress(StoreError):  # the manager has failed by it
                await self._asking.settle()  # a backup, maybe
                return await self.commits.finish()
        return False

    async def _open(self, then: Callable[[], None]) -> None:
        assert self._opened is not None
        assert self._loop is not None
        try:
            self._writer.start(self._loop)
            await self._feed(await self._asking.open())
            self.commits.start(self._loop)
            then()
        except BaseException as error:  # whatever it is, nothing can be kept
            if isinstance(error, asyncio.CancelledError):
                how = "it took too long for a close(), or all tasks of the loop were cancelled"
                error = StoreError(f"{self.store.path} was not opened: {how}")
            reason = explain(self.store.path, "used", error)
            self._opened.set_exception(reason)
            self._fail(reason)
            if not isinstance(error, Exception):
                raise
        else:
            self._opened.set_result(None)

    async def _feed(self, opening: Opening) -> None:
        """Give the tasks of the file to the links, and rows to what was scheduled meanwhile."""
        assert self._admission is not None
        now = self._clock()
        tell_of_clock(self.store.path, opening.heartbeat, now)
        self.group.next_row = opening.next_row
        self.commits.tasks, self.commits.letters = opening.tasks, opening.letters
        self._functions.read(opening.functions)
        self.repeats = opening.repeats
        self._restoring = restoring = Restoring(
            self._admission,
            self.group,
            self._burials,
            self._functions,
            self.keepings,
            self.calls,
            self.notes,
            opening,
            now,
        )
        pages = await self._asking.ask(self.store.read)
        while (page := await self._asking.ask(partial(next, pages, None))) is not None:
            self._fed += 1
            for row in page:
                check_kind(row, self._timed, self.store.path)
                restoring.take(row, self._early_ids)
        if self.store.complaint:
            log.error("%s", self.store.complaint)
        early, self._early, self._early_ids = self._early, [], {}
        self.is_open = True
        for kept, draft, worker, number, *_ in early:
            if self.keepings[worker].kept.get(number) is kept:  # else it has ended
                self._put(kept, self.drafts.row(self.group.new_row(), kept.due, draft))

    # ---- new tasks

    def know(self, id_: str | None) -> None:
        """See to it that who has an id is known, if a function was registered meanwhile."""
        if id_ is not None and self._restoring is not None:
            self._restoring.resolve(self._clock())

    def free(self, id_: str | None) -> None:
        """Free an id, if there is one, of a task whose function nobody has registered."""
        if id_ is not None and self._restoring is not None:
            self._restoring.claim(id_, self._clock())

    def leave(self, due: int, draft: Draft, replace: bool) -> None:
        """Put a task into the file that the next host is to run, for this one ends.

        If one with its id stays there already, it takes its place (`replace`), or is none.
        """
        before = None if draft.id is None else self._left.get(draft.id)
        if before is not None:
            if not replace:
                return
            self.group.strike(before)
        row = self.drafts.row(self.group.new_row(), due, draft)
        kept = Kept.of(row)
        self._put(kept, row)
        if draft.id is not None:
            self._left[draft.id] = kept

    def enter(
        self, worker: int, number: int, due: int, draft: Draft, replace: bool = False
    ) -> Kept:
        """Put a task that a link has accepted into the file."""
        if self.is_open:
            if draft.id in self._left:  # though this host goes on after all
                self.group.strike(self._left.pop(draft.id))
            row = self.drafts.row(self.group.new_row(), due, draft)
            kept = Kept.of(row)
            self._put(kept, row)
        else:
            kept = Kept.of(Row(NOT_GIVEN, due, 0, b"", draft.key, draft.id))
            before = None if draft.id is None else self._early_ids.get(draft.id)
            if before is not None:  # who had the id before has ended, or gives it up
                replace |= before.replace or before.kept.row == WITHDRAWN
            early = Early(kept, draft, worker, number, due, replace)
            self._early.append(early)
            if draft.id is not None:
                self._early_ids[draft.id] = early
        kept.once = draft.stored.function.once
        self.keepings[worker].kept[number] = kept
        return kept

    def enter_many(
        self,
        worker: int,
        first: int,
        dues: int | Sequence[int],
        payloads: Sequence[bytes],
        draft: Draft,
    ) -> None:
        """Put tasks that differ in their arguments, and maybe times, into the file."""
        if not self.is_open:
            each = repeat(dues) if isinstance(dues, int) else dues
            for number, (due, payload) in enumerate(zip(each, payloads, strict=False), first):
                own = draft._replace(stored=draft.stored._replace(payload=payload))
                self.enter(worker, number, due, own)
            return
        alike = self.drafts.row(NOT_GIVEN, 0, draft)
        made = self.group.put_many(alike, dues, payloads)
        if draft.stored.function.once:
            for kept in made:
                kept.once = True
        self.keepings[worker].kept.update(enumerate(made, first))
        self.commits.soon()

    def _put(self, kept: Kept, row: Row) -> None:
        kept.row = row.row
        self.group.put(kept, row)
        self.commits.soon()

    # ---- what users ask

    async def stored(self, kept: Kept | None) -> None:
        """Return when a task is on disk; None: everything so far is.

        Raises:
            StoreError: It never will be.
        """
        await self.ready()
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
        reason = explain(self.store.path, "used any more", error)
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
