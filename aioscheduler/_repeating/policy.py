"""Which nominal times of a repeat are run now, which are skipped, and when to look next.

    begin ─► Progress ─┬─► look ─► Look: runs to be entered, and the Progress that goes with them
              ▲        ├─► pause, resume
              └────────┘

A *nominal time* is a time of the rule. A run for it is due up to `jitter` later, and is looked at
only then, so that the work is spread as the runs are. The rules:

1. No nominal time is run twice, and none early: `next` only moves forward. If the clock is set
   back, nothing is run until it reaches `next` again.
2. A time is *missed* if it had passed by more than 10 s and `jitter` when the host began to look.
   `missed` decides what happens then. A busy manager is late, but misses nothing. A time that had
   passed by less does not overlap a run for a missed one: with "all" it has its turn behind it, and
   where a single run is left ("once" with `overlap="skip"`) that is the run of the latest time.
3. Times that are not missed obey `overlap`: one overlaps a run that had not ended at that time.
4. Where one must wait for the end of a run (`held`), `next` stays, and all later times wait behind
   it: a queue of any length is one number. If the host dies, the times in it are missed.
5. Times that pass during a pause are skipped. Skipped times are counted.
6. A rule that fails pauses its repeat, with the reason.

All times are nanoseconds since the epoch.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from .._scheduling.clock import SECOND
from .nominal import RuleFailed, next_time, pass_over
from .terms import Missed, Overlap, Terms

GRACE = 10 * SECOND
"""A time that passed by no more than this when the host began to look is only late."""

MOST_RUNS = 256
"""Runs of one look, so that the loop gets its turn between looks."""


class Progress(NamedTuple):
    """The progress of a repeat; it outlives a restart.

    Attributes:
        next: Its next nominal time; None if there is none, or if its rule failed.
        last: The last nominal time that was run.
        ran: How many runs it has had.
        skipped: How many nominal times were not run.
        paused: Whether it is paused.
        reason: Why, if its rule is the cause.
    """

    next: int | None = None
    last: int | None = None
    ran: int = 0
    skipped: int = 0
    paused: bool = False
    reason: str | None = None


class Run(NamedTuple):
    """A run to enter.

    Attributes:
        nominal: Its nominal time.
        due: When it starts; at once if that has passed.
    """

    nominal: int
    due: int


class Look(NamedTuple):
    """The result of a look.

    Attributes:
        progress: The progress of the repeat, with these runs.
        runs: The runs to enter, in order.
        wake: When to look again, which may have passed; None: not at a time.
        held: Whether to look again when all of its runs have ended.
    """

    progress: Progress
    runs: tuple[Run, ...]
    wake: int | None
    held: bool = False


def begin(
    terms: Terms, now: int, before: Progress | None = None, text: str | None = None
) -> Progress:
    """Return the progress with which a repeat begins, or goes on when it is declared again.

    A changed rule counts from now on, and after the last nominal time; nothing of the former one is
    made up for. With an unchanged rule the next time is kept, passed or not. A pause is kept, too,
    unless a rule was its cause. The counts go on.

    Args:
        terms: The terms from now on.
        now: The present.
        before: Its progress, if it existed.
        text: The text of its former rule.
    """
    progress = before or Progress()
    if progress.reason is not None:
        progress = progress._replace(paused=False, reason=None)
    if progress.next is None or terms.text != text:
        return _restart(terms, progress, now)
    return _within(terms, progress)


def look(
    id_: str, terms: Terms, progress: Progress, now: int, watched: int, free: int | None
) -> Look:
    """Return the runs to enter, and the progress of the repeat with them.

    Args:
        id_: The id of the repeat.
        terms: Its terms.
        progress: Its progress.
        now: The present.
        watched: Since when the host looks in time: its start, the end of its suspension, or the
            moment after a jump of the clock.
        free: Since when none of its runs is under way or waits for another attempt; 0 if there was
            none; None if one is.
    """
    looking = _Looking(id_, terms, progress, now, free)
    try:
        # At most the present: a clock that was set back leaves `watched` in the future.
        looking.catch_up(min(watched, now) - terms.jitter - 1)
        looking.keep_up()
    except RuleFailed as failure:
        # The runs so far count: only what comes after them is not known.
        looking.progress = _stopped(looking.progress, failure)
    return looking.result()


def pause(progress: Progress) -> Progress:
    """Return the progress, paused; a pause outlives restarts."""
    return progress._replace(paused=True)


def resume(terms: Terms, progress: Progress, now: int) -> Progress:
    """Return the progress, resumed with the first nominal time after now.

    It is unchanged if it is not paused, and paused again if its rule fails again.
    """
    if not progress.paused:
        return progress
    progress = progress._replace(paused=False, reason=None)
    if progress.next is None:
        return _restart(terms, progress, now)
    if progress.next > now:
        return progress
    try:
        passed = pass_over(terms.rule, progress.next, _end(terms, now))
    except RuleFailed as failure:
        return _stopped(progress, failure)
    skipped = progress.skipped + passed.number
    return _within(terms, progress._replace(next=passed.next, skipped=skipped))


def wake_of(id_: str, terms: Terms, progress: Progress) -> int | None:
    """Return when to look if nothing is held: when the next run is due; None: never."""
    if progress.paused or progress.next is None:
        return None
    if not terms.jitter:  # the common case: return the same object, not another integer
        return progress.next
    return progress.next + delay_of(id_, progress.next, terms.jitter)


def delay_of(id_: str, nominal: int, jitter: int) -> int:
    """Return how many nanoseconds after its nominal time a run is due: always the same.

    Args:
        id_: The id of the repeat.
        nominal: The nominal time.
        jitter: The exclusive upper bound of the delay; 0: there is none.
    """
    if not jitter:
        return 0
    digest = hashlib.blake2b(f"{nominal}:{id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * jitter >> 64


class _Looking:
    """The state of one look."""

    def __init__(
        self, id_: str, terms: Terms, progress: Progress, now: int, free: int | None
    ) -> None:
        self.id = id_
        self.terms = terms
        self.progress = progress
        self._now = now
        self._free = None if free is None else min(free, now)  # the clock may have been set back
        self._runs: list[Run] = []
        self._held = False

    def catch_up(self, until: int) -> None:
        """Treat all nominal times up to a moment as missed."""
        terms, first = self.terms, self._due(until)
        missed = until - GRACE
        if first is None or (first > missed and terms.missed is not Missed.ALL):
            return
        one = terms.missed is Missed.ONCE and terms.overlap is Overlap.SKIP
        if terms.missed is not Missed.ALL and not one:
            until = missed
        if terms.missed is Missed.ALL:
            # One after another, whatever `overlap` is.
            if self._is_held():
                return
            self._run(first)
            self._go_on(next_time(terms.rule, first))
            self._held = self._due(until) is not None
            return
        passed = pass_over(terms.rule, first, _end(terms, until))
        if terms.missed is Missed.SKIP or (terms.overlap is Overlap.SKIP and self._free is None):
            self._go_on(passed.next, passed.number)
            return
        self._go_on(passed.last, passed.number - 1)
        if terms.overlap is Overlap.ALLOW or not self._is_held():
            self._run(passed.last)
            self._go_on(passed.next)

    def keep_up(self) -> None:
        """Run or skip all nominal times that have come, except those that are held."""
        terms = self.terms
        while not self._held and len(self._runs) < MOST_RUNS:
            nominal = self._due(self._now)
            if nominal is None:
                return
            if terms.overlap is Overlap.SKIP and (self._free is None or nominal < self._free):
                # Skip all that came while that run was under way.
                until = self._now if self._free is None else min(self._now, self._free - 1)
                passed = pass_over(terms.rule, nominal, _end(terms, until))
                self._go_on(passed.next, passed.number)
            elif terms.overlap is Overlap.ALLOW or not self._is_held():
                self._run(nominal)
                self._go_on(next_time(terms.rule, nominal))

    def result(self) -> Look:
        wake = None if self._held else wake_of(self.id, self.terms, self.progress)
        return Look(self.progress, tuple(self._runs), wake, self._held)

    def _due(self, until: int) -> int | None:
        """Return the next nominal time if it is `until` at the latest."""
        nominal = None if self.progress.paused else self.progress.next
        return nominal if nominal is not None and nominal <= until else None

    def _is_held(self) -> bool:
        self._held = self._free is None
        return self._held

    def _run(self, nominal: int) -> None:
        delay = delay_of(self.id, nominal, self.terms.jitter)
        self._runs.append(Run(nominal, nominal + delay))
        self.progress = self.progress._replace(last=nominal, ran=self.progress.ran + 1)
        self._free = None

    def _go_on(self, following: int | None, skipped: int = 0) -> None:
        skipped += self.progress.skipped
        self.progress = _within(self.terms, self.progress._replace(next=following, skipped=skipped))


def _restart(terms: Terms, progress: Progress, now: int) -> Progress:
    """Return the progress with the first nominal time after now and after its last one."""
    after = now if progress.last is None else max(now, progress.last)
    try:
        return _within(terms, progress._replace(next=next_time(terms.rule, after)))
    except RuleFailed as failure:
        return _stopped(progress, failure)


def _stopped(progress: Progress, failure: RuleFailed) -> Progress:
    return progress._replace(next=None, paused=True, reason=str(failure))


def _within(terms: Terms, progress: Progress) -> Progress:
    """Return the progress, without a next time if `times` or `until` has been reached."""
    nominal = progress.next
    if nominal is None:
        return progress
    too_late = terms.until is not None and nominal > terms.until
    enough = terms.times is not None and progress.ran >= terms.times
    return progress._replace(next=None) if too_late or enough else progress


def _end(terms: Terms, moment: int) -> int:
    return moment if terms.until is None else min(moment, terms.until)
