"""The repeats of durable functions, as the file of a store has them (`repeats.File`).

    manager.repeat ─► enter ──────► RepeatRow ─┐
    a look that enters runs ─► advance ────────┼─► Group, with the rows of its runs in one batch
    repeat.cancel ─► drop ─────────────────────┘
    start ─► restore ─► Repeats.adopt, for each row; Repeats.admitted, for each run that is left

A rule is never pickled: an `Every`, and a `Cron` whose zone has a name, are written as plain
values. With any other rule a repeat waits for the program to give it once more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from .. import registry
from .._durable.records import Function
from .._durable.repeatrecords import RepeatEnd, RepeatProgress, RepeatRow
from .._repeating.policy import Progress
from .._repeating.terms import Missed, Overlap, Terms
from .._shipping.failures import describe
from .._transport import wire
from ..errors import StoreError
from ..repeat import Repeat
from ..rules import Cron, Every, Rule
from .drafts import Draft
from .keeper import Keeper
from .keeping import NOT_GIVEN
from .repeats import Repeats
from .runs import DurableWork
from .storedcalls import Stored
from .undefined import MAIN_PATIENCE

log: logging.Logger = logging.getLogger("aioscheduler")


class RepeatFile:
    """Keeps repeats in the file of a store.

    Args:
        keeper: Has the file.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._known_until: int | None = None  # so long a script may define its functions

    def enter(self, repeat: Repeat) -> None:
        """Keep a repeat that is new or another one; if its function is not durable, no more."""
        if not self._keeper.is_open:  # all of them are written by `restore`
            repeat._kept = isinstance(repeat._work, DurableWork)
        elif isinstance(repeat._work, DurableWork):
            repeat._kept = True
            self._keeper.group.repeat(self._row(repeat, repeat._work))
            self._keeper.commits.soon()
        elif repeat._kept:
            self.drop(repeat)

    def restore(self, repeats: Repeats) -> None:
        """Have those of the file adopted; those that were asked for meanwhile are these."""
        early = list(repeats)
        for row in self._keeper.repeats:
            try:
                terms, rule_known = read_terms_of(row)
                function = self._keeper.drafts.function(row.function)
            except Exception as error:  # noqa: BLE001  another program may have written there
                log.error(
                    "the repeat %r of %s cannot be read, and stands still until manager.repeat() "
                    "is called with its id: %s",
                    *(row.id, self._keeper.store.path, describe(repr, error)),
                )
                continue
            stored = Stored(function, row.payload, *self._keeper.notes.read(row.options))
            work, own = DurableWork.of(Draft(stored, row.key), self._keeper.calls)
            progress = Progress._make(row[-len(Progress._fields) :])
            repeats.adopt(row.id, terms, progress, work, own, rule_known)
        in_file = {row.id for row in self._keeper.repeats}
        for repeat in early:
            repeat._kept = repeat.id in in_file
            self.enter(repeat)
        self._keeper.repeats = ()

    def takes(self, repeat: Repeat, now: int) -> bool:
        """Whether runs of it can be entered now; else they are late."""
        if self._known_until is None:
            self._known_until = now + MAIN_PATIENCE
        function = repeat._work.draft.stored.function
        if (
            isinstance(function, Function)
            and function.place.startswith("__main__:")
            and registry.find(function.name) is None
            and now < self._known_until
        ):
            return False
        try:
            self._keeper.commits.check_room()
        except StoreError:  # which is told by who tries to write
            return False
        return True

    def advance(self, repeat: Repeat) -> None:
        """Note how far it is."""
        self._keeper.group.repeat(RepeatProgress(repeat.id, *repeat._progress))
        self._keeper.commits.soon()

    def whole(self) -> AbstractContextManager[None]:
        """Have all that is noted within written together, or not at all."""
        return self._keeper.group.whole()

    def drop(self, repeat: Repeat) -> None:
        """Keep it no longer."""
        repeat._kept = False
        self._keeper.group.repeat(RepeatEnd(repeat.id))
        self._keeper.commits.soon()

    async def ready(self) -> None:
        """Return when it is known what the file has."""
        await self._keeper.ready()

    async def stored(self) -> None:
        """Return when everything so far is on disk."""
        await self._keeper.stored(None)

    def _row(self, repeat: Repeat, work: DurableWork) -> RepeatRow:
        terms = repeat._terms
        plain = self._keeper.drafts.row(NOT_GIVEN, 0, work.draft)
        task = plain.function, repeat._own, plain.key, plain.options
        row = repeat.id, terms.text, write_terms(terms), *task, *repeat._progress
        return RepeatRow._make(row)


def write_terms(terms: Terms) -> bytes:
    """Return what was asked for, as far as it can be kept, for `read_terms_of`."""
    choices = terms.missed.value, terms.overlap.value
    return wire.pack([_plain(terms.rule), *choices, terms.jitter, terms.until, terms.times])


def read_terms_of(row: RepeatRow) -> tuple[Terms, bool]:
    """Return what was asked for, and whether its rule is known.

    Raises:
        Exception: It is nothing that was ever written.
    """
    plain, missed, overlap, jitter, until, times = wire.unpack(row.terms)
    rule: Rule | None = None
    if plain is not None:
        try:
            rule = _rule_of(*plain)
        except (ValueError, ImportError) as error:  # a zone or a package is not on this machine
            log.warning("the rule of the repeat %r cannot be read: %s", row.id, error)
    known = rule is not None
    terms = Terms(
        *(rule or Unknown(row.text), Missed(missed), Overlap(overlap)),
        *(jitter, until, times),
    )
    return terms, known


class Unknown:
    """In the place of a rule that the file does not have."""

    def __init__(self, text: str) -> None:
        self._text = text

    def next(self, after: datetime) -> datetime | None:
        raise LookupError("this rule is not known in this program yet")

    def __str__(self) -> str:
        return self._text


def _plain(rule: Rule) -> Sequence[Any] | None:
    """Return a rule as plain values; None if that cannot be."""
    if type(rule) is Every:
        assert isinstance(rule.step, timedelta)
        step = [rule.step.days, rule.step.seconds, rule.step.microseconds]
        return ["every", step, rule.start and rule.start.isoformat()]
    if type(rule) is Cron:
        zone = rule.timezone
        if zone is UTC or (type(zone) is ZoneInfo and zone.key):
            return ["cron", rule.expression, str(zone)]
    return None


def _rule_of(kind: str, first: Any, second: Any) -> Rule:
    if kind == "every":
        start = None if second is None else datetime.fromisoformat(second)
        return Every(timedelta(*first), start=start)
    return _cron(first, second)


@lru_cache(1024)
def _cron(expression: str, zone: str) -> Cron:
    """Make one for all who have the same, which takes a tenth of a millisecond."""
    return Cron(expression, zone)
