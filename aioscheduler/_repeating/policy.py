"""What of a repeat is to be run now, what is skipped, and when to look next.

    begin ─► Progress ─┬─► look ─► Look: runs to be entered, and the Progress that goes with them
              ▲        ├─► pause, resume
              └────────┘

A *nominal time* is what the rule says; a run for it is due up to `jitter` later, and it is looked
at when that is due: what is to be spread over time costs nothing at once. The rules:

1. No nominal time is run twice, and none early: `next` only goes forward. A clock that is set back
   leaves it where it is; until then nothing is run.
2. One is *missed* if it had passed by more than 10 s, and `jitter`, when somebody began to look.
   `missed` says what becomes of it. A manager that is busy is late, and misses nothing. What had
   passed by less is no overlap of what is made up for: with "all" it has its turn behind that, and
   where one run alone is left ("once", and `overlap="skip"`), it is that of the last of all.
3. What is not missed goes by `overlap`: it overlaps a run that had not ended at that time.
4. Where one must wait for the end of a run (`held`), `next` stays, and all that follows waits
   behind it: so a queue of any length is one number. A host that dies has missed what is in it.
5. Times that passed while it was paused are skipped. What is skipped is counted.
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
"""What passed by no more than this when somebody began to look is only late."""

MOST_RUNS = 256
"""In one look, so that the loop has its turn between."""


class Progress(NamedTuple):
    """How far a repeat is; this is what outlives a restart.

    Attributes:
        next: Its next nominal time; None if there is none, or if its rule failed.
        last: The last nominal time that was run.
        ran: How many runs it has had.
        skipped: How many nominal times were not run.
        paused: Whether it stands still.
        reason: Why, if its rule is to blame.
    """

    next: int | None = None
    last: int | None = None
    ran: int = 0
    skipped: int = 0
    paused: bool = False
    reason: str | None = None


class Run(NamedTuple):
    """A run that is to be entered.

    Attributes:
        nominal: Its nominal time.
        due: When it is to start, at once if that has passed.
    """

    nominal: int
    due: int


class Look(NamedTuple):
    """What follows of a look.

    Attributes:
        progress: How far the repeat is with the runs.
        runs: Those that are to be entered, in order.
        wake: When to look again; None if not by the time. It may have come already.
        held: Whether to look again when all of its runs have ended.
    """

    progress: Progress
    runs: tuple[Run, ...]
    wake: int | None
    held: bool = False


def begin(
    terms: Terms, now: int, before: Progress | None = None, text: str | None = None
) -> Progress:
    """Return with what a repeat begins, or goes on when it is asked for again.

    A rule that has changed counts from now on, and after the last nominal time; of the former one
    nothing is owed. With an unchanged one the next time is kept, be it passed or not. A pause is
    kept, too, unless a rule was to blame. Runs and what was skipped are counted on.

    Args:
        terms: What is asked for now.
        now: The present.
        before: How far it was, if there was one.
        text: The text of the rule that it had.
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
    """Return what is to be run, and how far the repeat is then.

    Args:
        id_: Of the repeat.
        terms: What was asked for.
        progress: How far it is.
        now: The present.
        watched: Since when somebody looks whenever it is time: the start of the host, the end of
            its suspension, or the moment after a jump of the clock.
        free: Since when none of its runs is under way, waiting for another attempt included; 0 if
            there was none; None if one is.
    """
    looking = _Looking(id_, terms, progress, now, free)
    try:
        # The present, because a clock that was set back leaves `watched` in the future.
        looking.catch_up(min(watched, now) - terms.jitter - 1)
        looking.keep_up()
    except RuleFailed as failure:
        # What has been run is run: only what comes after it is not known.
        looking.progress = _stopped(looking.progress, failure)
    return looking.result()


def pause(progress: Progress) -> Progress:
    """Return it paused; it stays so over restarts."""
    return progress._replace(paused=True)


def resume(terms: Terms, progress: Progress, now: int) -> Progress:
    """Return it going on with the first nominal time after now.

    Without effect if it is not paused. If its rule fails again it is paused again.
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
    """Return when to look at it if nothing is held: when the next run is due; None: never."""
    if progress.paused or progress.next is None:
        return None
    if not terms.jitter:  # many have none, and then it is the same integer, not one more
        return progress.next
    return progress.next + delay_of(id_, progress.next, terms.jitter)


def delay_of(id_: str, nominal: int, jitter: int) -> int:
    """Return how much later than its nominal time a run is due: the same whenever it is asked.

    Args:
        id_: Of the repeat.
        nominal: The nominal time.
        jitter: What the answer is less than, if not 0.
    """
    if not jitter:
        return 0
    digest = hashlib.blake2b(f"{nominal}:{id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * jitter >> 64


class _Looking:
    """One look, as it goes."""

    def __init__(
        self, id_: str, terms: Terms, progress: Progress, now: int, free: int | None
    ) -> None:
        self.id = id_
        self.terms = terms
        self.progress = progress
        self._now = now
        self._free = None if free is None else min(free, now)  # the clock may be set back
        self._runs: list[Run] = []
        self._held = False

    def catch_up(self, until: int) -> None:
        """Do with all nominal times up to a moment what is done with missed ones."""
        terms, first = self.terms, self._due(until)
        missed = until - GRACE
        if first is None or (first > missed and terms.missed is not Missed.ALL):
            return
        one = terms.missed is Missed.ONCE and terms.overlap is Overlap.SKIP
        if terms.missed is not Missed.ALL and not one:
            until = missed
        if terms.missed is Missed.ALL:
            # One after another, whatever `overlap` says.
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
        """Run or skip all nominal times that have come, but for those that are held."""
        terms = self.terms
        while not self._held and len(self._runs) < MOST_RUNS:
            nominal = self._due(self._now)
            if nominal is None:
                return
            if terms.overlap is Overlap.SKIP and (self._free is None or nominal < self._free):
                # All that came while that run was under way.
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
        """Return the next nominal time if it has come by then."""
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
    """Return it with the first nominal time from now on that comes after its last."""
    after = now if progress.last is None else max(now, progress.last)
    try:
        return _within(terms, progress._replace(next=next_time(terms.rule, after)))
    except RuleFailed as failure:
        return _stopped(progress, failure)


def _stopped(progress: Progress, failure: RuleFailed) -> Progress:
    return progress._replace(next=None, paused=True, reason=str(failure))


def _within(terms: Terms, progress: Progress) -> Progress:
    """Return it without a next time if it has had its runs, or that comes after its end."""
    nominal = progress.next
    if nominal is None:
        return progress
    too_late = terms.until is not None and nominal > terms.until
    enough = terms.times is not None and progress.ran >= terms.times
    return progress._replace(next=None) if too_late or enough else progress


def _end(terms: Terms, moment: int) -> int:
    return moment if terms.until is None else min(moment, terms.until)
