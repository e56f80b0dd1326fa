"""Figures in readable form: three digits and a unit, and the blocks of sparklines. Pure text."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

NOTHING = "–"
BLOCKS = "▁▂▃▄▅▆▇█"
SAMPLES = 60  # blocks of the longest sparkline
SHORTEST, LONGEST = 1e-4, 1.0  # seconds: the lowest and the highest block of a lateness

_SIZES = (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12))
_TIMES = (("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0))
_EVERY = re.compile(  # `str` of an `Every`
    r"every (?:(\d{1,9}) days?, )?(\d\d?):(\d\d):(\d\d)(?:\.(\d{6}))?(?= from |$)", re.ASCII
)
_COUNTS = (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))


def size(amount: float | None) -> str:
    """Format bytes: `28.6 MB`, a MB being 10^6."""
    if amount is not None and amount < 1000:
        return f"{amount:.0f} B"
    return _with_unit(amount, _SIZES)


def seconds(amount: float | None) -> str:
    """Format a duration: `0.08 ms`, `1.20 s`."""
    return _with_unit(amount, _TIMES)


def count(amount: float | None) -> str:
    """Format a count: `12,345`, and from a hundred thousand `123 k`, `1.23 M`."""
    if amount is not None and amount < 99_999.5:
        return f"{amount:,.0f}"
    return _with_unit(amount, _COUNTS)


def rate(amount: float | None) -> str:
    """Format a number per second: as a count, but `2.5` if it is small."""
    if amount is not None and 0 < amount < 9.95:
        return f"{amount:.1f}"
    return count(amount)


def percent(amount: float | None) -> str:
    """Format a percentage: `45%`."""
    return NOTHING if amount is None else f"{amount:.0f}%"


def rule(text: str) -> str:
    """Format the text of a repeat's rule: an interval in one unit, `every 90 s` or `every 0.1 s`.

    Others are left as they are: the text of a rule is its own.
    """
    found = _EVERY.match(text)
    if found is None:
        return text
    days, hours, minutes, whole, fraction = (int(each or 0) for each in found.groups())
    whole += 60 * (minutes + 60 * (hours + 24 * days))
    if fraction or not whole:
        shown = f"{whole}.{fraction:06}".rstrip("0") + " s"
    else:
        unit, worth = next(each for each in reversed(_TIMES[1:]) if not whole % each[1])
        shown = f"{whole // int(worth)} {unit}"
    return f"every {shown}{text[found.end() :]}"


def rate_block(amount: float | None, top: float) -> str:
    """Return the block for a rate, `top` being the highest; a blank for None.

    Any rate over 0 is higher than 0, and the highest leaves a gap to the line above.
    """
    if amount is None:
        return " "
    if amount <= 0 or top <= 0:
        return BLOCKS[0]
    return BLOCKS[min(6, max(1, round(6 * amount / top)))]


def lateness_block(amount: float | None) -> str:
    """Return the block for a lateness, on a fixed logarithmic scale."""
    if amount is None:
        return " "
    if amount <= SHORTEST:
        return BLOCKS[0]
    return BLOCKS[min(7, round(7 * math.log(amount / SHORTEST) / math.log(LONGEST / SHORTEST)))]


def _with_unit(amount: float | None, units: Sequence[tuple[str, float]]) -> str:
    if amount is None:
        return NOTHING
    for (unit, worth), (_, next_worth) in itertools.pairwise(units):
        # Rounded first: 999.7 MB is 1.00 GB, not 1000 MB.
        if float(_three_digits(amount / worth)) < min(1000, next_worth / worth):
            return f"{_three_digits(amount / worth)} {unit}"
    unit, worth = units[-1]
    return f"{_three_digits(amount / worth)} {unit}"


def _three_digits(amount: float) -> str:
    if amount < 9.995:
        return f"{amount:.2f}"
    return f"{amount:.1f}" if amount < 99.95 else f"{amount:.0f}"
