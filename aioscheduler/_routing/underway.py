"""The runs of repeats that have not ended, whichever host began them.

    a run is entered ───────────────────────────┬─► follow ─► Repeat._runs ─► ended ─► held repeats
    of the last host: in memory ─► admitted ────┤                                      go on
                      in the file ─► find_left ─┘

`overlap` depends on them. Those of the last host are known before any repeat is looked at, even if
there are more than fit into memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from typing import Any

from .._shipping.failures import describe
from ..inspection import read_wanted
from ..options import RUN_MARK
from ..repeat import NOBODY, Repeat
from ..task import Task
from .router import Router
from .runs import repeat_of

log: logging.Logger = logging.getLogger("aioscheduler")

SLICE = 256
"""Runs followed in one turn of the loop: a millisecond or two."""

MOST_ASKED = 64
"""Runs looked up in the file at once: a few milliseconds of a turn."""


class UnderWay:
    """The runs under way.

    Args:
        router: Finds tasks.
        clock: Return the present in nanoseconds since the epoch.
        find: Return the repeat that has an id, if there is one.
        go_on: Called with a repeat that waited for the end of its runs, and the present.
        context: The context in which that is called.
    """

    def __init__(
        self,
        router: Router,
        clock: Callable[[], int],
        find: Callable[[str], Repeat | None],
        go_on: Callable[[Repeat, int], None],
        context: Context,
    ) -> None:
        self._router = router
        self._clock = clock
        self._find: Callable[[str], Repeat | None] = find
        self._go_on: Callable[[Repeat, int], None] = go_on
        self._context = context
        self._early: list[str] | None = []  # ids of tasks, until the repeats are known

    def follow(self, repeat: Repeat, task: Task[Any]) -> None:
        """Count a run as under way until it ends."""
        runs = repeat._runs
        if not isinstance(runs, set):
            runs = repeat._runs = set()
        if task not in runs:
            runs.add(task)
            task.add_done_callback(partial(self._ended, repeat), context=self._context)

    def _ended(self, repeat: Repeat, task: Task[Any]) -> None:
        runs = repeat._runs
        assert isinstance(runs, set)
        runs.discard(task)
        if task._unseen is not None:  # it failed; in memory it has no id that says whose it is
            task._unseen.add(f"a run of the repeat {repeat.id!r}", "repeat", repeat.id)
        if runs:
            return
        now = self._clock()
        # It matters only for times that have come by now; mostly there are none.
        overlapped = repeat._next is not None and repeat._next < now
        repeat._runs, repeat._free = NOBODY, now if overlapped else 0
        if repeat._held and not repeat._is_over:
            repeat._held = False
            self._go_on(repeat, now)

    # ---- runs of the last host

    def admitted(self, id_: str) -> None:
        """Note that a task of the file, maybe a run, has come into memory."""
        if self._early is not None and id_.startswith(RUN_MARK):
            self._early.append(id_)
        elif (repeat := self._repeat_of(id_)) is not None:
            task = self._router.find_known(id_)
            if task is not None:
                self.follow(repeat, task)

    def begin(self) -> Iterator[None]:
        """Follow the runs admitted so far, as the repeats are known.

        It yields between slices, to give the loop its turn.
        """
        early, self._early = self._early, None
        for number, id_ in enumerate(early or ()):
            if number % SLICE == SLICE - 1:
                yield
            self.admitted(id_)

    @property
    def are_left(self) -> bool:
        """Whether runs may be left that are only in the file."""
        keeper = self._router.keeper
        return keeper is not None and not keeper.where.horizon.is_whole

    async def find_left(self) -> None:
        """Follow the runs that are only in the file. Never raises."""
        keeper = self._router.keeper
        assert keeper is not None
        wanted = read_wanted(None, RUN_MARK, None, None)
        try:
            with keeper.shelf.listing(wanted) as listing:
                async for infos in listing.infos():
                    ids = [info.id for info in infos if info.id is not None]
                    for start in range(0, len(ids), MOST_ASKED):
                        some = ids[start : start + MOST_ASKED]
                        await asyncio.gather(*map(self._find_left, some))
        except Exception as error:  # noqa: BLE001  repeats go on, whatever it is
            log.error(
                "the runs of the last host cannot be read; others may overlap them: %s",
                describe(repr, error),
            )

    async def _find_left(self, id_: str) -> None:
        repeat = self._repeat_of(id_)
        if repeat is not None:
            task = await self._router.find(id_)
            if task is not None and not repeat._is_over:
                self.follow(repeat, task)

    def _repeat_of(self, id_: str) -> Repeat | None:
        """Return the repeat whose run has a task id, if the file has it."""
        whose = repeat_of(id_)
        repeat = None if whose is None else self._find(whose)
        return repeat if repeat is not None and repeat._kept else None
