"""The rules of repeats: `Every`, `Cron`, or any object with `next(after)`.

    rule.next(after) ─► the first of its times after that, aware; None: there is none

A rule is a value without state: the caller keeps the last time and asks for the one after it.
Its `str()` identifies it, so that an unchanged rule is recognised when a program starts again.

Cron expressions are parsed by cronsim (https://github.com/cuu508/cronsim), in local time only.
Clock changes are handled here, by the conventions of Debian's cron; a zone is asked only for the
local time of a moment. Repeats themselves must not be known here.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from types import ModuleType
from typing import Protocol

from ._scheduling.clock import read_seconds

__all__ = ["Cron", "Every"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)  # every offset is smaller
_FIELDS = {  # of a cron expression, in order, and their values
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31 (if the month has that day), L, LW",
    "month": "1 to 12, JAN to DEC",
    "day of the week": "0 to 7 (0 and 7 are Sunday), SUN to SAT, 5L, 5#3",
}


class Rule(Protocol):
    """The source of the times of a repeat. Its `str()` identifies it."""

    def next(self, after: datetime, /) -> datetime | None:
        """Return the first time after `after` (aware); None if there is none."""


@dataclass(frozen=True, slots=True)
class Every:
    """Times at a fixed interval: `start + n * step`, for n from 0 on.

    The arithmetic is in UTC and exact to the microsecond: it never drifts, and clock changes do
    not move it. Without a start, the time after `after` is `after + step`.

    Args:
        step: The interval, in seconds or as a timedelta; a microsecond or more.
        start: The first time, aware. Keep it fixed: with a start that differs each time the
            program starts, the rule is a different one each time.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: The step is less than a microsecond or not finite, or the start is naive.
    """

    step: timedelta | float
    _: KW_ONLY
    start: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "step", _read_step(self.step))
        if self.start is not None:
            object.__setattr__(self, "start", _read_moment("start", self.start))

    def next(self, after: datetime) -> datetime | None:
        """Return the first time after `after` (aware), in UTC; None if beyond the year 9999."""
        after = _read_moment("after", after)
        try:
            if self.start is None:
                return after + self._step
            if after < self.start:
                return self.start
            return self.start + ((after - self.start) // self._step + 1) * self._step
        except OverflowError:
            return None

    def __str__(self) -> str:
        start = "" if self.start is None else f" from {self.start.isoformat()}"
        return f"every {self.step}{start}"

    @property
    def _step(self) -> timedelta:
        assert isinstance(self.step, timedelta)  # since `__post_init__`
        return self.step


@dataclass(frozen=True, eq=False, slots=True)
class Cron:
    """A cron expression, evaluated in the local time of a zone.

    A local time skipped by the clock stands for the end of the gap; a repeated one for its first
    occurrence. If the minute or hour field begins with `*`, every minute that the clock really
    shows counts, be it twice or never: `0 2 * * *` is once every day, `*/15 * * * *` every real
    quarter of an hour.

    Args:
        expression: Five fields: minute, hour, day of the month, month, day of the week. The syntax
            is that of Debian's cron, plus `L`, `LW`, `5L` and `5#3` for the last day, the last
            weekday, the last Friday and the third Friday.
        timezone: A name such as "Europe/Berlin", or a tzinfo; there is no default.

    Raises:
        ImportError: The extra `cron` is not installed.
        TypeError: A value has the wrong type.
        ValueError: The expression is invalid, or there is no such zone.
    """

    expression: str
    timezone: tzinfo | str

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            name = type(self.expression).__name__
            raise TypeError(f"a cron expression is a str, not {name}")
        object.__setattr__(self, "timezone", _read_zone(self.timezone))
        _cronsim()
        object.__setattr__(self, "expression", _read_expression(self.expression))

    def next(self, after: datetime) -> datetime | None:
        """Return the first time after `after` (aware), in UTC; None if none comes in 50 years."""
        return next(self.iterate(after), None)

    def iterate(self, after: datetime) -> Iterator[datetime]:
        """Yield all times after `after` (aware), in UTC; cheaper than calling `next` for each."""
        after = _read_moment("after", after)
        minute, hour = self.expression.split()[:2]
        shown = minute.startswith("*") or hour.startswith("*")
        with suppress(OverflowError):  # the end of the calendar
            yield from self._shown(after) if shown else self._reached(after)

    def _reached(self, after: datetime) -> Iterator[datetime]:
        """Yield the first moment at which the clock reaches each matching local time."""
        for local in self._matches(_wall(after, self._zone)):
            moment = _when_reached(local, self._zone)
            if moment > after:  # else in a repeated hour, or in a gap already yielded for
                after = moment
                yield moment

    def _shown(self, after: datetime) -> Iterator[datetime]:
        """Yield the moments at which the clock shows a matching local time."""
        since, wall = after, _wall(after, self._zone)
        while True:
            offset, change = _offset(since, self._zone), None
            for local in self._matches(wall):
                # Right if the offset does not change until then.
                moment = local.replace(tzinfo=UTC) - offset
                change = _first_change(since, moment, self._zone)
                if change is not None:
                    break
                since = moment
                yield moment
            if change is None:
                return
            since, wall = change, _wall(change, self._zone) - _SECOND

    def _matches(self, after: datetime) -> Iterator[datetime]:
        """Yield the matching local times after one, all of them naive."""
        return iter(_cronsim().CronSim(self.expression, after))

    # Zones are compared by name: two `ZoneInfo` objects of one zone are not equal.

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return f"cron {self.expression} in {self.timezone}"

    @property
    def _zone(self) -> tzinfo:
        assert isinstance(self.timezone, tzinfo)  # since `__post_init__`
        return self.timezone


# ---- the clocks of a zone


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _wall(moment: datetime, zone: tzinfo) -> datetime:
    """Return the local time that a clock shows, naive."""
    return moment.astimezone(zone).replace(tzinfo=None)


def _when_reached(local: datetime, zone: tzinfo) -> datetime:
    """Return the first moment at which a clock shows a local time or a later one.

    Args:
        local: A naive datetime.
        zone: Where the clock is.
    """
    since = local.replace(tzinfo=UTC) - _DAY  # not reached yet, whatever the zone
    while True:
        moment = max(since, local.replace(tzinfo=UTC) - _offset(since, zone))
        change = _first_change(since, moment, zone)
        if change is None:
            return moment
        since = change


def _first_change(since: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """Return the first moment after `since`, up to `until`, with another offset; else None.

    It searches by days: no zone has two changes in one day that cancel each other.
    """
    offset = _offset(since, zone)
    low = since
    while low < until:
        high = min(low + _DAY, until)
        if _offset(high, zone) != offset:
            break
        low = high
    else:
        return None
    low = low.replace(microsecond=0)  # changes are at full seconds
    seconds = -(-(high - low) // _SECOND)
    first, last = 0, seconds  # the offset differs at the last
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(low + middle * _SECOND, zone) == offset:
            first = middle
        else:
            last = middle
    return low + last * _SECOND


# ---- arguments


def _cronsim() -> ModuleType:
    try:  # an extra: programs without a Cron do not need it
        import cronsim
    except ImportError as error:
        raise ImportError(
            "Cron needs the package cronsim: pip install 'aioscheduler[cron]'"
        ) from error
    return cronsim


def _read_step(step: timedelta | float) -> timedelta:
    seconds = read_seconds("the step", step, above_zero=True)
    try:
        if isinstance(step, timedelta):  # exact, and not of a subclass
            found = timedelta(step.days, step.seconds, step.microseconds)
        else:
            found = timedelta(seconds=step)
    except OverflowError:
        raise ValueError(f"the step is too long: {seconds:g} seconds") from None
    if not found:
        raise ValueError(f"the step is a microsecond or more, not {seconds:g} seconds")
    return found


def _read_moment(name: str, moment: datetime) -> datetime:
    """Return a moment in UTC, as a plain datetime; refuse a naive one."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{name} is a datetime, not {type(moment).__name__}")
    if moment.tzinfo is UTC and type(moment) is datetime:
        return moment
    if moment.utcoffset() is None:
        raise ValueError(
            f"{name} is naive: {moment!r}; give an aware datetime such as datetime.now(UTC)"
        )
    try:
        return _EPOCH + timedelta(microseconds=(moment - _EPOCH) // timedelta(microseconds=1))
    except OverflowError:
        raise ValueError(f"{name} is beyond the calendar of UTC: {moment!r}") from None


def _read_zone(zone: tzinfo | str) -> tzinfo:
    if isinstance(zone, str):
        try:
            return zoneinfo.ZoneInfo(zone)
        except (LookupError, ValueError, OSError) as error:
            none = not zoneinfo.available_timezones()
            hint = "; this machine knows none: pip install tzdata" if none else ""
            raise ValueError(
                f"there is no time zone {zone!r}: write a name such as 'Europe/Berlin' or "
                f"'UTC'{hint}"
            ) from error
    if not isinstance(zone, tzinfo):
        raise TypeError(
            f"timezone is a name such as 'Europe/Berlin', or a tzinfo, not {type(zone).__name__}"
        )
    check_text("a tzinfo", zone)
    try:
        _offset(_EPOCH, zone)
    except Exception as error:
        raise ValueError(f"timezone {zone} has no local time: {error!r}") from error
    return zone


@lru_cache(4096)
def _read_expression(written: str) -> str:
    """Return a cron expression in capitals, with one space between its fields."""
    expression = " ".join(written.upper().split())
    fields = written.split()
    if len(fields) != 5:
        hint = f"and {written!r} has {len(fields)}"
        if expression.startswith("@"):
            hint = f"not a nickname such as {written!r}: daily is '0 0 * * *'"
        elif len(fields) == 6:
            hint += "; seconds are not supported: for less than a minute use Every"
        raise ValueError(f"a cron expression has five fields ({', '.join(_FIELDS)}), {hint}")
    try:
        _cronsim().CronSim(expression, _EPOCH.replace(tzinfo=None))
    except Exception as error:  # cronsim's own error, and any that it lets through
        raise ValueError(f"cron expression {written!r}: {_explain(error, fields)}") from error
    return expression


def _explain(error: Exception, fields: Sequence[str]) -> str:
    """Say what is wrong in an expression, which cronsim puts as "Bad day-of-month"."""
    bad = str(error).removeprefix("Bad ").replace("-of-", " of the ")
    if bad not in _FIELDS:
        return str(error) or repr(error)
    field = fields[list(_FIELDS).index(bad)]
    if "?" in field:
        return f"? is not supported in {field!r}, the {bad}: write * for any"
    return (
        f"bad {bad} {field!r}: allowed are {_FIELDS[bad]}, and *, in ranges (1-5), lists (1,3) "
        "and steps (*/5)"
    )


def check_text(what: str, thing: object) -> None:
    """Refuse an object without a text of its own.

    Args:
        what: Its name in the error message.
        thing: A rule or a zone.

    Raises:
        TypeError: Its `str()` is that of `object`, which differs at each start.
    """
    kind = type(thing)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise TypeError(
            f"{what} is recognised by its text when the program starts again: give "
            f"{kind.__name__} a __str__ that says what it is"
        )
