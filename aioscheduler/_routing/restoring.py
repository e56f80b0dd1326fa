"""The tasks of a file at the start of a host: they wait again, or are dead letters.

a row ─┬─► its host died while it ran: once more, or a dead letter
├─► its script may yet define its function: it is looked for
└─► a call for a link ─► admitted, as a suspect if it may have run when the host died

scheduled before the file was open ─► put, when it is
└─ or is one with the task of the file that has its id
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from .._durable.group import Group, Kept
from .._durable.records import Begun, Function, Opening, Reason, Row
from .._scheduling.clock import SECOND
from .._transport import wire
from ..registry import Durable
from .burials import Burials
from .drafts import Draft
from .functions import Functions
from .keeping import MOST_LOSSES, Keeping
from .storedcalls import LocalCalls, Notes, RemoteCalls, Stored

log: logging.Logger = logging.getLogger("aioscheduler")

MAIN_PATIENCE = 60 * SECOND
"""Nanoseconds after the start in which a script may define the functions that its tasks call."""

HEARTBEAT_SLACK = 2 * SECOND
"""What was due so long after the last heartbeat of a host may have begun in it."""

NOT_GIVEN = -1
"""In the place of a row's number, before the file is open."""


class Admission(Protocol):
    """Who gives tasks of the file to the links (the router)."""

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
        replace: Whether it takes its id from another.
    """

    kept: Kept
    draft: Draft
    worker: int
    number: int
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
        self._unknown: list[tuple[Row, Kept, Function]] = []  # that a script may yet define
        self._known_until = now + MAIN_PATIENCE
        # What was due before may have begun in the last host; 0: nothing.
        self._in_doubt = 0 if opening.clean else opening.heartbeat + HEARTBEAT_SLACK

    def take(self, row: Row, early: Sequence[Early]) -> Early | None:
        """Take a task of the file.

        Args:
            row: It.
            early: What was scheduled meanwhile.

        Returns:
            Which of those is the same task, by its id, if one is.
        """
        kept = Kept(row)
        same = None if row.id is None else self._find(early, row.id)
        if same is not None and same.replace:
            self._group.strike(kept)
            return None
        if row.begun is not Begun.NO and not self._take_loss(row, kept):
            return None
        kept.suspect = kept.losses > 0 or row.due < self._in_doubt
        function = self._functions.find(row.function)
        if function is None:
            text = f"the file has no function of the number {row.function}"
            self._burials.bury(kept, Reason.UNKNOWN, text)
            return None
        if isinstance(function, Function) and function.place.startswith("__main__:"):
            self._unknown.append((row, kept, function))
            return None
        if same is None or row.id is None:
            self._admit(row, kept, function)
            return None
        del self._keepings[same.worker].kept[same.number]
        self._admission.give_way(row.id, same.worker, partial(self._admit, row, kept, function))
        return same

    def _find(self, early: Sequence[Early], id_: str) -> Early | None:
        for each in early:
            if each.draft.id == id_ and self._keepings[each.worker].kept.get(each.number):
                return each
        return None

    def _take_loss(self, row: Row, kept: Kept) -> bool:
        """Note that a host has died while a task ran; return whether it may start again."""
        kept.losses += 1
        kept.attempt += 1
        kept.begun = Begun.NO
        text = ""
        if row.begun is Begun.ONCE:
            text = "its host died while it ran, and it must not start a second time"
        elif kept.losses >= MOST_LOSSES:
            text = f"its host or its worker died while it ran, {kept.losses} times in a row"
        if text:
            self._burials.bury(kept, Reason.LOST, text)
        else:
            self._group.change(kept)
        return not text

    def _admit(self, row: Row, kept: Kept, function: Durable | Function) -> None:
        kept.once = function.once
        confirmed = int(function.once or kept.suspect or row.id is not None)
        stored = Stored(
            function,
            row.payload,
            *self._notes.read(row.options),
            wire.ALONE if kept.losses else confirmed,
            kept.attempt,
            kept.failed,
            kept.given,
        )
        call = self._calls.make(stored, row.due)
        worker, number = self._admission.admit(row.due, row.key, row.id, call)
        self._keepings[worker].kept[number] = kept

    # ---- functions that are not registered yet

    @property
    def leaves_suspects(self) -> bool:
        """Whether what may have ended an earlier host is among them, with nothing to show it."""
        return any(kept.suspect and not kept.losses for _, kept, _ in self._unknown)

    def resolve(self, now: int) -> bool:
        """Admit tasks whose functions are registered by now; bury those that have waited enough.

        Returns:
            Whether something has changed.
        """
        unknown, self._unknown = self._unknown, []
        for row, kept, function in unknown:
            known = self._functions.find(function.number)
            if isinstance(known, Durable):
                self._admit(row, kept, known)
            elif now >= self._known_until and row.due <= now:
                self._bury_unknown(kept, function)
            else:
                self._unknown.append((row, kept, function))
        return len(unknown) > len(self._unknown)

    def claim(self, id_: str, now: int) -> None:
        """Free an id that a task has whose function is not known: it is a dead letter now."""
        if self._unknown:
            self.resolve(now)
        for each in self._unknown:
            row, kept, function = each
            if row.id == id_:
                self._unknown.remove(each)
                self._bury_unknown(kept, function)
                return

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
