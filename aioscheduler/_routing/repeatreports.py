"""Reports on repeats, for the log, `stats()` and `top`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from .._repeating.policy import Progress
from .._scheduling.clock import SECOND
from ..repeat import Repeat

log: logging.Logger = logging.getLogger("aioscheduler")

TELL_EVERY = 60 * SECOND
"""Nanoseconds between two reports of skipped times."""

MOST_SHOWN = 40
"""Repeats shown by `top`."""

_MOST_NAMED = 10  # in one line of the log


class RepeatReports:
    """The reports on the repeats of one manager.

    Attributes:
        standing: Repeats that are paused, or wait for their rule.
    """

    def __init__(self) -> None:
        self.standing: dict[Repeat, None] = {}
        self._ran = self._skipped = 0
        self._skips: Counter[str] = Counter()  # since the last report
        self._log_at: int | None = None
        self._unknown_logged = False

    def note(self, repeat: Repeat, before: Progress | None = None) -> None:
        """Note whether a repeat stands still, and log what is wrong with it, if anything.

        Args:
            repeat: The repeat, as it is now.
            before: Its progress before; None: nothing was known of it.
        """
        progress = repeat._progress
        if progress.paused or not repeat._rule_known:
            self.standing[repeat] = None
        else:
            self.standing.pop(repeat, None)
        if progress.reason is not None and (before is None or before.reason != progress.reason):
            log.error(
                "the repeat %r is paused, for %s; others go on. Call manager.repeat() with its id "
                "and a correction, or resume() it",
                *(repeat.id, progress.reason),
            )

    def looked(self, repeat: Repeat, runs: int, skipped: int) -> None:
        """Count the results of a look."""
        self._ran += runs
        if skipped:
            self._skipped += skipped
            self._skips[repeat.id] += skipped

    def forget(self, repeat: Repeat) -> None:
        """Stop reporting on a repeat."""
        self.standing.pop(repeat, None)
        self._skips.pop(repeat.id, None)

    def figures(self, count: int) -> dict[str, int]:
        """Return the figures of `count` repeats for `stats()`; any thread may ask."""
        return {
            "repeats": count,
            "repeats_paused": len(self.standing),
            "repeats_ran": self._ran,
            "repeats_skipped": self._skipped,
        }

    def look_after(self, now: int) -> None:
        """Log reports once a minute; called once a tick."""
        if self._log_at is None:
            self._log_at = now + TELL_EVERY
        elif now >= self._log_at:
            self._log_at = now + TELL_EVERY
            self.log_skips()
            self._log_unknown()

    def log_skips(self) -> None:
        """Log which times were skipped since the last report."""
        if self._skips:
            named = [f"{id_!r} {times:,}" for id_, times in self._skips.most_common(_MOST_NAMED)]
            log.warning(
                "times of repeats were skipped, as they overlapped a run or were missed: %s",
                _list(named, len(self._skips)),
            )
            self._skips.clear()

    def _log_unknown(self) -> None:
        """Log, once, which repeats of the file wait for a rule that the program has not given."""
        waiting = [] if self._unknown_logged else [r.id for r in self.standing if not r._rule_known]
        self._unknown_logged = True
        if waiting:
            log.warning(
                "repeats stand still, as the file does not have their rules, which are objects of "
                "the program: %s; they go on when manager.repeat() is called with their ids",
                _list(list(map(repr, waiting[:_MOST_NAMED])), len(waiting)),
            )

    def shown(self, soonest: Iterable[Repeat]) -> list[dict[str, Any]]:
        """Return rows for `top`: some repeats that stand still, and those that come next.

        Args:
            soonest: Those that come next, in order; no more are consumed than are shown, but for
                those that stand still: one that waits for its rule has a next time, too.
        """
        standing = list(islice(self.standing, MOST_SHOWN // 2))
        moving = (repeat for repeat in soonest if repeat not in self.standing)
        return [*map(_row_of, [*standing, *islice(moving, MOST_SHOWN - len(standing))])]


def _list(named: Sequence[str], count: int) -> str:
    more = f", and {count - len(named):,} more" if count > len(named) else ""
    return ", ".join(named) + more


def _row_of(repeat: Repeat) -> dict[str, Any]:
    next_, last = repeat.next, repeat.last
    return {
        "id": repeat.id,
        "rule": repeat.rule,
        "name": repeat.name,
        "next": next_ and next_.isoformat(),
        "last": last and last.isoformat(),
        "ran": repeat.ran,
        "skipped": repeat.skipped,
        "running": repeat.running,
        "paused": repeat.paused,
        "reason": repeat.reason,
    }
