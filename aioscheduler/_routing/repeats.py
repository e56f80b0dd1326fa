"""The repeats of one manager: looked at when it is time, their runs entered as tasks.

    repeat ─► Repeat ─► a heap, by when to look ─► one alarm
                                                     │ rings
           its runs' ends ─► look (policy) ◄─────────┘
                              └─► runs ─► Router.schedule_as and, if it is durable, its file

`policy` decides which times are run, skipped or wait; `runs` makes the runs. Of 100,000 repeats
only those whose time has come are looked at, some in each turn of the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from contextvars import copy_context
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Protocol, TypeVar

from .._repeating.policy import Progress, Run, begin, look, pause, resume, wake_of
from .._repeating.terms import Terms, read_terms
from .._scheduling.clock import SECOND
from .._scheduling.coroutines import check_awaitable, close_unstarted
from .._scheduling.order import Order
from .._shipping.failures import describe
from ..options import TaskOptions, read_text
from ..repeat import Repeat
from ..rules import Rule
from .agenda import Agenda
from .drafts import Draft
from .repeatreports import RepeatReports
from .router import Router
from .runs import Work, sharing, take_work
from .underway import UnderWay

log: logging.Logger = logging.getLogger("aioscheduler")

_T = TypeVar("_T")
_SKIPPED_AT_ONCE = 16  # times, which take about as long as a run
_LATER = SECOND  # until a repeat whose runs cannot be entered now is looked at again


class File(Protocol):
    """Keeps the repeats of durable functions."""

    def enter(self, repeat: Repeat) -> None:
        """Keep a repeat that is new or has changed; drop it if its function is not durable."""

    @property
    def is_read(self) -> bool:
        """Whether all repeats of the file are known."""

    def restore(self, repeats: Repeats) -> Iterator[None]:
        """Have the repeats of the file adopted; yield to give the loop its turn."""

    def takes(self, repeat: Repeat, now: int) -> bool:
        """Whether runs of a repeat can be entered now; else they will be late."""

    def advance(self, repeat: Repeat) -> None:
        """Record the progress of a repeat."""

    def whole(self) -> AbstractContextManager[None]:
        """Return a context in which all changes are written together, or not at all."""

    def drop(self, repeat: Repeat) -> None:
        """Stop keeping a repeat."""

    async def ready(self) -> None:
        """Wait until the file is open."""

    async def stored(self) -> None:
        """Wait until everything so far is on disk."""


class Repeats:
    """The repeats of one manager (`repeat.Owner`).

    Args:
        router: Schedules the runs.
        order: The order of its schedulers.
        clock: Return the present in nanoseconds since the epoch.

    Attributes:
        file: Keeps the repeats of durable functions; None: there is no store.
        under_way: Knows the runs that have not ended.
    """

    def __init__(self, router: Router, order: Order, clock: Callable[[], int]) -> None:
        self.file: File | None = None
        self._router = router
        self._order = order
        self._clock = clock
        self._all: dict[str, Repeat] = {}
        self._context = copy_context()  # of no user's call
        self._agenda = Agenda(clock, self._look_safely, self._context)
        self.under_way = UnderWay(router, clock, self._all.get, self._agenda.set, self._context)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read: asyncio.Future[None] | None = None  # the whole file
        self._steps: Iterator[None] = iter(())
        self._finding: asyncio.Task[None] | None = None  # finds runs that are only in the file
        self._is_over = False
        self._reports = RepeatReports()
        self._share: Callable[[_T], _T] = sharing()

    def __iter__(self) -> Iterator[Repeat]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    # ---- its life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look, once the file has been read; the links have started."""
        self._agenda.watched = self._clock()
        self._loop, self._read = loop, loop.create_future()
        rows = () if self.file is None else self.file.restore(self)
        self._steps = chain(rows, self.under_way.begin())
        self._restore()

    def _restore(self) -> None:
        """Read on in the file for one turn of the loop; begin to look when it is read."""
        if self._loop is None or self._read is None or self._read.done():
            return
        try:
            for _ in self._steps:
                self._loop.call_soon(self._restore, context=self._context)
                return
        except Exception as error:  # noqa: BLE001  whatever it is, `ready` raises it
            self._read.set_exception(error)
            return
        self._read.set_result(None)
        if self.under_way.are_left:
            finding = self._loop.create_task(self.under_way.find_left(), context=self._context)
            finding.add_done_callback(self._begin)
            self._finding = finding
        else:
            self._begin()

    def _begin(self, finding: asyncio.Task[None] | None = None) -> None:
        """Start the agenda, unless all is over."""
        self._finding = None
        if self._loop is not None and not self._is_over:
            self._agenda.start(self._loop)

    async def ready(self) -> None:
        """Wait until the file has been read, and has the repeats made meanwhile.

        Raises:
            StoreError: The file cannot be used.
            RuntimeError: It was not opened.
        """
        if self.file is not None:
            await self.file.ready()
        if self._read is not None:
            await asyncio.shield(self._read)

    def stop(self) -> None:
        """Enter no more runs, for good."""
        if self._loop is not None and not self._loop.is_closed():
            try:
                for _ in self._steps:  # else repeats made meanwhile would not be in the file
                    pass
            except Exception:
                log.exception("the repeats of the file could not all be read")
        self._is_over = True
        self._agenda.stop()
        self._reports.log_skips()
        with suppress(RuntimeError):  # of a closed loop, where nobody waits any more
            if self._read is not None and not self._read.done():
                self._read.set_result(None)
            if self._finding is not None:
                self._finding.cancel()

    def look_after(self) -> None:
        """Do the regular work; called once a tick."""
        if not self._all:
            return
        now = self._clock()
        self._agenda.notice(now)
        self._reports.look_after(now)

    def figures(self) -> dict[str, int]:
        """Return the figures for `stats()`; any thread may ask."""
        return self._reports.figures(len(self._all))

    def shown(self) -> list[dict[str, Any]]:
        """Return the rows for `top`."""
        return self._reports.shown(self._agenda.soonest())

    # ---- requests

    def repeat(
        self,
        coro: Any,
        rule: Rule,
        id_: str,
        key: str | bytes | int | None,
        missed: str,
        overlap: str,
        jitter: float | timedelta,
        until: datetime | None,
        times: int | None,
        options: TaskOptions,
    ) -> Repeat:
        """Begin a repeat, or change the one with its id; see `Manager.repeat`.

        Raises:
            Exception: As `Manager.repeat` does.
        """
        router = self._router
        try:
            router.check_open()
            router.loop_thread.check("lambda: manager.repeat(coro, rule, id=...)")
            check_awaitable(coro, "repeat")
            if self._order is not Order.TIMED:
                raise TypeError(
                    "repeat() is for a manager of TimedSchedulers: a queue runs tasks in turn, and "
                    "has no times; a repeat of such a manager may schedule here"
                )
            id_ = read_text("id", id_, "never: a repeat is known by it")
            terms = read_terms(
                rule,
                missed=missed,
                overlap=overlap,
                jitter=jitter,
                until=until,
                times=times,
            )
            work, own = take_work(router, coro, key, options)
            close_unstarted(coro)
        except BaseException:
            close_unstarted(coro)
            raise
        terms, work = self._share(terms), self._share(work)
        known = self._all.get(id_)
        now = self._clock()
        if known is None:
            repeat = self._all[id_] = Repeat(self, id_, terms, begin(terms, now), work, own)
        else:
            repeat = known
            self._replace(repeat, terms, now, repeat._progress, repeat._terms.text)
            repeat._work, repeat._own = work, own
        if self.file is not None:
            self.file.enter(repeat)
        self._reports.note(repeat)
        self._agenda.set(repeat, wake_of(id_, terms, repeat._progress))
        return repeat

    def _replace(self, repeat: Repeat, terms: Terms, now: int, before: Progress, text: str) -> None:
        """Set new terms from now on, and continue from the progress so far."""
        repeat._terms, repeat._progress = terms, begin(terms, now, before, text)
        if repeat._since is None:
            repeat._since = now
        repeat._held = False

    def adopt(
        self, id_: str, terms: Terms, progress: Progress, work: Work, own: Any, rule_known: bool
    ) -> None:
        """Add a repeat of the file, merged with the one made meanwhile, if any."""
        repeat = self._all.get(id_)
        if repeat is None:
            terms, work = self._share(terms), self._share(work)
            repeat = self._all[id_] = Repeat(self, id_, terms, progress, work, own)
            if not rule_known:
                repeat._since = None
        else:
            self._replace(repeat, repeat._terms, self._clock(), progress, terms.text)
        repeat._kept = True
        self._reports.note(repeat)
        self._agenda.set(repeat, wake_of(repeat._id, repeat._terms, repeat._progress))

    async def pause(self, repeat: Repeat) -> None:
        """See `Repeat.pause`."""
        await self._settle("pause", repeat)
        repeat._progress = pause(repeat._progress)
        repeat._held = False
        self._reports.note(repeat, repeat._progress)
        self._agenda.set(repeat, None)
        await self._store(repeat)

    async def resume(self, repeat: Repeat) -> None:
        """See `Repeat.resume`."""
        await self._settle("resume", repeat)
        before = repeat._progress
        if not repeat._rule_known:
            raise RuntimeError(f"the repeat {repeat.id!r} cannot be resumed yet: {repeat.reason}")
        repeat._progress = resume(repeat._terms, before, self._clock())
        self._reports.note(repeat, before)
        self._agenda.set(repeat, wake_of(repeat._id, repeat._terms, repeat._progress))
        await self._store(repeat)

    async def cancel(self, repeat: Repeat) -> None:
        """See `Repeat.cancel`."""
        if repeat._is_over:
            return
        await self._settle("cancel", repeat)
        if repeat._is_over:  # meanwhile
            return
        repeat._is_over = True
        self._agenda.set(repeat, None)
        del self._all[repeat.id]
        self._reports.forget(repeat)
        for task in tuple(repeat._runs):
            link = next((link for link in self._router.links if link is task._home), None)
            if link is None:  # it is only in the file
                task.cancel()
            else:
                link.withdraw(task._scheduler, task._number)
        if self.file is not None and (repeat._kept or not self.file.is_read):
            waits = repeat._kept
            self.file.drop(repeat)
            if waits:
                await self.file.stored()

    async def _settle(self, what: str, repeat: Repeat) -> None:
        """Check that a call is allowed, and wait until it is known what the file has."""
        self._router.loop_thread.check_inside(f"await repeat.{what}()")
        self._router.check_open()
        if self.file is not None and repeat._kept:
            await self.ready()
            if what == "cancel" and self._finding is not None:  # its runs must end, too
                await asyncio.wait([self._finding])
            self._router.check_open()
        if what != "cancel" and (end := repeat._end) is not None:
            raise RuntimeError(end)

    async def _store(self, repeat: Repeat) -> None:
        if self.file is not None and repeat._kept:
            self.file.advance(repeat)
            await self.file.stored()

    # ---- looks

    def _look_safely(self, repeat: Repeat, now: int) -> int:
        if self._router.closed is not None:
            return 0
        try:
            return self._look(repeat, now)
        except Exception as error:  # whatever it is, others go on
            log.exception("the repeat %r could not be looked at", repeat.id)
            reason = f"it could not be looked at: {describe(repr, error)}"
            repeat._progress = pause(repeat._progress)._replace(reason=reason)
            self._reports.note(repeat, repeat._progress)
            return 0

    def _look(self, repeat: Repeat, now: int) -> int:
        """Enter the runs that are due; return the cost, as defined by the agenda."""
        if repeat._since is None:
            return 0
        file = self.file if repeat._kept else None
        if file is not None and not file.takes(repeat, now):
            self._agenda.set(repeat, now + _LATER)
            return 0
        before = repeat._progress
        free = None if repeat._runs else repeat._free
        watched = max(self._agenda.watched, repeat._since)
        found = look(repeat._id, repeat._terms, before, now, watched, free)
        try:
            made = [(run, *repeat._work.make(repeat._id, run, repeat._own)) for run in found.runs]
        except Exception as error:  # noqa: BLE001  the program may have changed what it needs
            reason = f"its call cannot be made any more: {describe(repr, error)}"
            after = repeat._progress = pause(before)._replace(reason=reason)
            made = []
        else:
            after = repeat._progress = found.progress
            repeat._held = found.held
            self._agenda.set(repeat, found.wake)
        skipped = after.skipped - before.skipped
        self._reports.looked(repeat, len(made), skipped)
        if after.paused:
            self._reports.note(repeat, before)
        with nullcontext() if file is None else file.whole():
            if file is not None and after != before:
                file.advance(repeat)
            for run, call, draft in made:
                self._enter(repeat, run, call, draft)
        return len(made) + skipped // _SKIPPED_AT_ONCE

    def _enter(self, repeat: Repeat, run: Run, call: Any, draft: Draft | None) -> None:
        """Schedule a run."""
        id_ = None if draft is None else draft.id
        # One exists only if the previous host wrote just a part of what belongs together.
        task = None if id_ is None else self._router.find_known(id_)
        if task is None:
            place = self._router.placement.choose_freely(repeat._work.key)
            task = self._router.schedule_as(
                *(id_, None, place, run.due, run.nominal, call, draft), sure=True
            )
        self.under_way.follow(repeat, task)
