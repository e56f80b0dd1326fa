"""The tasks of a file at the start of a host: they wait again, or are dead letters.

    a row ─┬─► its host died while it ran: once more, or a dead letter
           ├─► its script may yet define its function: it is looked for
           └─► a call for a link ─► admitted, as a suspect if it may have run when the host died

    scheduled before the file was open ─► put, when it is
           └─ or is one with the task of the file that has its id

Nothing waits for a row that cannot be read.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, Protocol

from .._durable.group import Group, Kept
from .._durable.records import Begun, Function, Opening, Reason, Row
from .._scheduling.clock import SECOND
from .._shipping.failures import text_of
from .._transport import wire
from ..errors import StoreError
from ..registry import Durable
from .burials import Burials
from .drafts import Draft, confirmed_of
from .functions import Functions
from .keeping import MOST_LOSSES, WITHDRAWN, Keeping
from .storedcalls import LocalCalls, Notes, RemoteCalls, Stored

log: logging.Logger = logging.getLogger("aioscheduler")

MAIN_PATIENCE = 60 * SECOND
"""Nanoseconds after the start in which a script may define the functions that its tasks call."""

_MOST_NAMES = 10  # of functions, in one line of the log

HEARTBEAT_SLACK = 2 * SECOND
"""What was due so long after the last heartbeat of a host may have begun in it."""


class Admission(Protocol):
    """Who gives tasks of the file to the links (the router)."""

    @property
    def is_over(self) -> bool:
        """Whether no task is to begin any more."""

    def admit(
        self, due: int, key: str | bytes | int | None, id_: str | None, call: object
    ) -> tuple[int, int]:
        """Accept a task that is in the file already; return its worker and its number there."""

    def give_way(self, id_: str, worker: int, admit: Callable[[], None]) -> None:
        """Have a task that was scheduled under the id of one in the file be that one.

        Args:
            id_: The id.
            worker: Where the new one is.
            admit: Has the one in the file accepted.
        """


class Early(NamedTuple):
    """A task that was scheduled before the file was open.

    Attributes:
        kept: Of it.
        draft: What is to be in the file.
        worker: Where it is.
        number: Its number there.
        due: When it was to start, as it was scheduled.
        replace: Whether it takes its id from another.
    """

    kept: Kept
    draft: Draft
    worker: int
    number: int
    due: int
    replace: bool


class Restoring:
    """Gives the tasks of a file to the links.

    Args:
        admission: Takes them.
        group: Has what changes written.
        burials: Has the dead letters.
        functions: Of the file.
        keepings: What is kept at each place.
        calls: Makes what links take.
        notes: Reads what goes with tasks.
        opening: What the file has said.
        now: The present in nanoseconds since the epoch.
    """

    def __init__(
        self,
        admission: Admission,
        group: Group,
        burials: Burials,
        functions: Functions,
        keepings: Sequence[Keeping],
        calls: RemoteCalls | LocalCalls,
        notes: Notes,
        opening: Opening,
        now: int,
    ) -> None:
        self._admission = admission
        self._group = group
        self._burials = burials
        self._functions = functions
        self._keepings = keepings
        self._calls = calls
        self._notes = notes
        # What a script may yet define: by the function's number, in order of due times.
        self._unknown: dict[int, deque[tuple[Row, Kept]]] = {}
        self._unknown_ids: dict[str, tuple[Kept, Function]] = {}
        self._known_until = now + MAIN_PATIENCE
        self._tell_at: int | None = now + SECOND  # of those that wait; None: it has been told
        # What was due before may have begun in the last host; 0: nothing.
        self._in_doubt = 0 if opening.clean else opening.heartbeat + HEARTBEAT_SLACK

    def take(self, row: Row, early: Mapping[str, Early]) -> None:
        """Take a task of the file.

        Args:
            row: It.
            early: What was scheduled meanwhile, the last of each id.
        """
        kept = Kept.of(row)
        doubted = row.due < self._in_doubt  # as it was due in that host
        same = None if row.id is None else early.get(row.id)
        if same is not None and (same.replace or same.kept.row == WITHDRAWN):
            self._group.strike(kept)
            return
        if row.begun is not Begun.NO and not self._take_loss(row, kept):
            return
        if same is not None and same.kept.due != same.due:  # it was moved, and is this one
            kept.due, kept.given = same.kept.due, None
            row = row._replace(due=kept.due, given=None)
            self._group.change(kept)
        kept.suspect = kept.losses > 0 or doubted
        function = self._functions.find(row.function)
        if function is None:
            text = f"the file has no function of the number {row.function}"
            self._burials.bury(kept, Reason.UNKNOWN, text)
            return
        if isinstance(function, Function) and function.place.startswith("__main__:"):
            if same is None:
                self._unknown.setdefault(function.number, deque()).append((row, kept))
                if row.id is not None:
                    self._unknown_ids[row.id] = kept, function
            else:  # which needs the id
                self._bury_unknown(kept, function)
            return
        call = self._make(row, kept, function)
        if call is None:
            return
        if same is None or row.id is None:
            self._admit(row, kept, call)
            return
        del self._keepings[same.worker].kept[same.number]
        self._admission.give_way(row.id, same.worker, partial(self._admit, row, kept, call))

    def _take_loss(self, row: Row, kept: Kept) -> bool:
        """Note that a host has died while a task ran; return whether it may start again."""
        kept.losses += 1
        kept.begun = Begun.NO
        text = ""
        if row.begun is Begun.ONCE:
            text = "its host died while it ran, and it must not start a second time"
        elif kept.losses >= MOST_LOSSES:
            text = f"its host or its worker died while it ran, {kept.losses} times in a row"
        if text:
            self._burials.bury(kept, Reason.LOST, text)
        else:
            kept.attempt += 1
            self._group.change(kept)
        return not text

    def _make(self, row: Row, kept: Kept, function: Durable | Function) -> object | None:
        """Return what links take of a task; None: it cannot be read, and is a dead letter."""
        kept.once = function.once
        if kept.once and not kept.losses:  # had it begun, it would be on record
            kept.suspect = False
        confirmed = confirmed_of(function, row.id)
        if kept.suspect:
            confirmed = wire.ALONE if kept.losses else 1
        try:
            stored = Stored(
                function,
                row.payload,
                *self._notes.read(row.options),
                confirmed,
                kept.attempt,
                kept.failed,
                kept.given,
            )
            return self._calls.make(stored, row.due)
        except Exception as error:  # noqa: BLE001  no other task waits for this one
            self._burials.bury(kept, Reason.UNREADABLE, text_of(error))
            return None

    def _admit(self, row: Row, kept: Kept, call: object) -> None:
        worker, number = self._admission.admit(row.due, row.key, row.id, call)
        self._keepings[worker].kept[number] = kept

    # ---- functions that are not registered yet

    @property
    def leaves_suspects(self) -> bool:
        """Whether what may have ended an earlier host is among them, with nothing to show it."""
        waiting = chain.from_iterable(self._unknown.values())
        return any(kept.suspect and not kept.losses for _, kept in waiting)

    def resolve(self, now: int) -> bool:
        """Admit tasks whose functions are registered by now; bury those that have waited enough.

        Returns:
            Whether something has changed.
        """
        if not self._unknown or self._admission.is_over:
            return False
        changed = False
        for number, rows in list(self._unknown.items()):
            function = self._functions.find(number)
            while rows and function is not None:
                row, kept = rows[0]
                if isinstance(function, Function) and not self._known_until <= now >= row.due:
                    break
                rows.popleft()
                changed = True
                if kept.end is not None:  # it was claimed
                    continue
                if row.id is not None:
                    del self._unknown_ids[row.id]
                if isinstance(function, Function):
                    self._bury_unknown(kept, function)
                elif (call := self._make(row, kept, function)) is not None:
                    self._admit(row, kept, call)
            if not rows:
                del self._unknown[number]
        if self._tell_at is not None and now >= self._tell_at:
            self._tell_at = None
            self._tell_unknown()
        return changed

    def _tell_unknown(self) -> None:
        """Say in the log what waits for its function, which this script may not have at all."""
        waiting: Counter[str] = Counter()
        for number, rows in self._unknown.items():
            function = self._functions.find(number)
            if count := sum(kept.end is None for _, kept in rows):
                waiting["?" if function is None else function.name] = count
        if waiting:
            names = [f"{name!r} ({count:,})" for name, count in waiting.most_common(_MOST_NAMES)]
            more = len(waiting) - len(names)
            log.warning(
                "durable tasks wait for functions of a script that this program has not defined: "
                "%s%s. They are looked for until %d s after the start; then their tasks are dead "
                "letters (unknown), each at its time. Import or define them by then, or start the "
                "script that does; until then join() and len() do not count these tasks",
                ", ".join(names),
                f" and {more:,} more" if more else "",
                MAIN_PATIENCE // SECOND,
            )

    def claim(self, id_: str, now: int) -> None:
        """Free an id that a task has whose function is not known: it is a dead letter now."""
        self.resolve(now)
        claimed = self._unknown_ids.pop(id_, None)
        if claimed is not None:
            self._bury_unknown(*claimed)

    def _bury_unknown(self, kept: Kept, function: Function) -> None:
        text = f"no function is registered as {function.name!r}; register it, and requeue the task"
        self._burials.bury(kept, Reason.UNKNOWN, text)


def tell_of_clock(path: str, heartbeat: int, now: int) -> None:
    """Say in the log if the clock was set back since the last host."""
    if heartbeat > now + HEARTBEAT_SLACK:
        log.warning(
            "the store %s is from the future: its last host lived %.0f s later than it is now; "
            "what is due comes later by as much as the clock was set back, and never early",
            path,
            (heartbeat - now) / SECOND,
        )


def check_kind(row: Row, timed: bool, path: str) -> None:
    """Make sure that a row of a file is of this kind of schedulers.

    Raises:
        StoreError: It is of a queue and they are timed, or the reverse.
    """
    if timed is (row.due == 0):
        has, wants = ("a queue", "TimedScheduler") if timed else ("a TimedScheduler", "queues")
        raise StoreError(
            f"{path} has tasks of {has}, and this manager is one of {wants}: they would run at a "
            "wrong time. Give it the scheduler that it had, or another file"
        )
