"""The repeats of durable functions in the file of a store (`repeats.File`).

    manager.repeat ─► enter ──────► RepeatRow ─┐
    a look that enters runs ─► advance ────────┼─► Group, with the rows of its runs in one batch
    repeat.cancel ─► drop ─────────────────────┘
    start ─► restore ─► Repeats.adopt, for each row, some in each turn of the loop

Rules are never pickled: an `Every`, and a `Cron` whose zone has a name, are written as plain
values. A repeat with any other rule waits until the program gives that again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
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

_MOST_TERMS = 4096

SLICE = 128
"""Repeats read or written in one turn of the loop: a few milliseconds."""


class RepeatFile:
    """Keeps repeats in the file of a store.

    Args:
        keeper: Keeps the file.

    Attributes:
        is_read: Whether all repeats of the file are known.
    """

    def __init__(self, keeper: Keeper) -> None:
        self.is_read = False
        self._keeper = keeper
        self._known_until: int | None = None  # until then a script may define its functions
        self._early: dict[str, Repeat] = {}  # to be written when the file has been read
        self._ended: set[str] = set()  # ids of repeats cancelled before that
        self._terms: dict[tuple[bytes, str], tuple[Terms, bool]] = {}  # a cache while reading

    def enter(self, repeat: Repeat) -> None:
        """Keep a repeat that is new or has changed; drop it if its function is not durable."""
        work = repeat._work
        if not self.is_read:
            self._early[repeat.id] = repeat
            repeat._kept |= isinstance(work, DurableWork)
        elif isinstance(work, DurableWork):
            repeat._kept = True
            self._keeper.group.repeat(self._row(repeat, work))
            self._keeper.commits.soon()
        elif repeat._kept:
            self.drop(repeat)

    def restore(self, repeats: Repeats) -> Iterator[None]:
        """Have the repeats of the file adopted, merged with those made meanwhile.

        It yields between slices, to give the loop its turn.
        """
        rows, self._keeper.repeats = list(reversed(self._keeper.repeats)), ()
        while rows:  # freed as they are read: a row takes as much memory as its repeat
            if len(rows) % SLICE == 0:
                yield
            row = rows.pop()
            if row.id in self._ended:
                self._keeper.group.repeat(RepeatEnd(row.id))
            else:
                self._adopt(row, repeats)
        self.is_read = True
        self._ended.clear()
        self._terms.clear()
        for number, repeat in enumerate(self._early.values()):
            if number % SLICE == SLICE - 1:
                yield
            if not repeat._is_over:
                self.enter(repeat)
        self._early.clear()
        self._keeper.commits.soon()

    def _adopt(self, row: RepeatRow, repeats: Repeats) -> None:
        try:
            terms, rule_known = self._terms_of(row)
            function = self._keeper.drafts.function(row.function)
            stored = Stored(function, row.payload, *self._keeper.notes.read(row.options))
            work, own = DurableWork.of(Draft(stored, row.key), self._keeper.calls)
            progress = Progress._make(row[-len(Progress._fields) :])
        except Exception as error:  # noqa: BLE001  another program may have written there
            log.error(
                "the repeat %r of %s cannot be read, and stands still until manager.repeat() is "
                "called with its id: %s",
                *(row.id, self._keeper.store.path, describe(repr, error)),
            )
            if row.id in self._early:
                self._keeper.group.repeat(RepeatEnd(row.id))
        else:
            repeats.adopt(row.id, terms, progress, work, own, rule_known)

    def _terms_of(self, row: RepeatRow) -> tuple[Terms, bool]:
        """Return the result of `read_terms_of`, cached: it takes as long as all the rest."""
        key = row.terms, row.text
        found = self._terms.get(key)
        if found is None:
            found = read_terms_of(row)
            if len(self._terms) == _MOST_TERMS:
                self._terms.clear()
            if found[1]:  # else each is logged
                self._terms[key] = found
        return found

    def takes(self, repeat: Repeat, now: int) -> bool:
        """Whether runs of a repeat can be entered now; else they will be late."""
        if self._known_until is None:
            self._known_until = now + MAIN_PATIENCE
        function = repeat._work.draft.stored.function
        if (
            isinstance(function, Function)
            and function.qualname.startswith("__main__:")
            and registry.find(function.name) is None
            and now < self._known_until
        ):
            return False
        try:
            self._keeper.commits.check_room()
        except StoreError:  # which the writer reports
            return False
        return True

    def advance(self, repeat: Repeat) -> None:
        """Record the progress of a repeat."""
        self._keeper.group.repeat(RepeatProgress(repeat.id, *repeat._progress))
        self._keeper.commits.soon()

    def whole(self) -> AbstractContextManager[None]:
        """Return a context in which all changes are written together, or not at all."""
        return self._keeper.group.whole()

    def drop(self, repeat: Repeat) -> None:
        """Stop keeping a repeat."""
        repeat._kept = False
        if not self.is_read:  # the file may have one with its id
            self._ended.add(repeat.id)
            return
        self._keeper.group.repeat(RepeatEnd(repeat.id))
        self._keeper.commits.soon()

    async def ready(self) -> None:
        """Wait until the file is open."""
        await self._keeper.ready()

    async def stored(self) -> None:
        """Wait until everything so far is on disk."""
        await self._keeper.stored(None)

    def _row(self, repeat: Repeat, work: DurableWork) -> RepeatRow:
        terms = repeat._terms
        plain = self._keeper.drafts.row(NOT_GIVEN, 0, work.draft)
        task = plain.function, repeat._own, plain.key, plain.options
        row = repeat.id, terms.text, write_terms(terms), *task, *repeat._progress
        return RepeatRow._make(row)


def write_terms(terms: Terms) -> bytes:
    """Return terms, as far as they can be kept, for `read_terms_of`."""
    choices = terms.missed.value, terms.overlap.value
    return wire.pack([_plain(terms.rule), *choices, terms.jitter, terms.until, terms.times])


def read_terms_of(row: RepeatRow) -> tuple[Terms, bool]:
    """Return the terms of a row, and whether their rule is known.

    Raises:
        Exception: They cannot have been written by `write_terms`.
    """
    plain, missed, overlap, jitter, until, times = wire.unpack(row.terms)
    rule: Rule | None = None
    if plain is not None:
        try:
            rule = _rule_of(*plain)
        except (ValueError, ImportError) as error:  # a zone or a package is missing on this machine
            log.warning("the rule of the repeat %r cannot be read: %s", row.id, error)
    known = rule is not None
    terms = Terms(
        *(rule or Unknown(row.text), Missed(missed), Overlap(overlap)),
        *(jitter, until, times),
    )
    return terms, known


class Unknown:
    """Stands for a rule that the file does not have."""

    def __init__(self, text: str) -> None:
        self._text = text

    def next(self, after: datetime) -> datetime | None:
        raise LookupError("this rule is not known in this program yet")

    def __str__(self) -> str:
        return self._text


def _plain(rule: Rule) -> Sequence[Any] | None:
    """Return a rule as plain values; None if that is impossible."""
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
    """Return one `Cron` for all equal rules: making one takes a tenth of a millisecond."""
    return Cron(expression, zone)
