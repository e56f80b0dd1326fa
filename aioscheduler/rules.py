"""When something repeats: `Every`, `Cron`, or any object with `next(after)`.

    rule.next(after) ─► the first of its times after that, aware; None: there is none

A rule is a value and has no state: who asks keeps the last time, and asks for the one after it.
`str()` says what it is, so that an unchanged rule is recognised when a program starts again.

Cron expressions are read by cronsim (https://github.com/cuu508/cronsim), in local time only. What
the clocks of a zone do is decided here, by the conventions of Debian's cron; of a zone nothing is
asked but the local time of a moment. Here are no repeats: what becomes of a time is not known.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
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
_DAY = timedelta(days=1)  # no offset is as much


class Rule(Protocol):
    """What gives the times of a repeat. Its `str()` tells it from others."""

    def next(self, after: datetime, /) -> datetime | None:
        """Return the first time after `after` (aware); None if there is none."""


@dataclass(frozen=True, slots=True)
class Every:
    """The same time from each to the next: `start + n * step`, for n from 0 on.

    It is arithmetic in UTC, exact to the microsecond: it never drifts, and no change of a clock's
    zone moves it. Without a start it counts from where it is asked, so that the one after `after`
    is `after + step`: who asks for the one after the last one has them all, and no other.

    Args:
        step: Seconds, or a timedelta; a microsecond or more.
        start: The first time, aware. A rule that is made with another one at each start of the
            program is another rule each time.

    Raises:
        TypeError: Something is of a wrong type.
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
        """Return the first time after `after`, in UTC; None if it is beyond the year 9999."""
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
    """A cron expression, read in the local time of a zone.

    A local time that does not exist is the end of the gap; one that comes twice is the first.
    Where minute or hour begins with `*` it is each minute that the clock really shows, be it
    twice or never: `0 2 * * *` is once every day, `*/15 * * * *` each real quarter of an hour.

    Args:
        expression: Five fields: minute, hour, day of the month, month, day of the week. As of
            Debian's cron, and `L`, `LW`, `5L` and `5#3` for the last day, the last weekday, the
            last Friday and the third one.
        timezone: A name such as "Europe/Berlin", or a tzinfo; there is no default.

    Raises:
        ImportError: The extra `cron` is not installed.
        TypeError: Something is of a wrong type.
        ValueError: The expression is wrong, or there is no such zone.
    """

    expression: str
    timezone: tzinfo | str

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            name = type(self.expression).__name__
            raise TypeError(f"a cron expression is a str, not {name}")
        object.__setattr__(self, "expression", " ".join(self.expression.upper().split()))
        object.__setattr__(self, "timezone", _read_zone(self.timezone))
        _cronsim()
        _check_expression(self.expression)

    def next(self, after: datetime) -> datetime | None:
        """Return the first time after `after`, in UTC; None if there is none for 50 years."""
        return next(self.iterate(after), None)

    def iterate(self, after: datetime) -> Iterator[datetime]:
        """Give all times after `after`, for less than by asking for each."""
        after = _read_moment("after", after)
        minute, hour = self.expression.split()[:2]
        shown = minute.startswith("*") or hour.startswith("*")
        with suppress(OverflowError):  # the end of the calendar
            yield from self._shown(after) if shown else self._reached(after)

    def _reached(self, after: datetime) -> Iterator[datetime]:
        """Give the first moment at which the clock has come to each matching local time."""
        for local in self._matches(_wall(after, self._zone)):
            moment = _when_reached(local, self._zone)
            if moment > after:  # not so in an hour that comes again, and for others of one gap
                after = moment
                yield moment

    def _shown(self, after: datetime) -> Iterator[datetime]:
        """Give the moments at which the clock shows a matching local time."""
        since, wall = after, _wall(after, self._zone)
        while True:
            offset, change = _offset(since, self._zone), None
            for local in self._matches(wall):
                # That is its moment if the clock goes on until then as it goes now.
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
        """Give the matching local times after one, all of them naive."""
        return iter(_cronsim().CronSim(self.expression, after))

    # Zones are equal by name: `ZoneInfo` may be made twice of one.

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
    """Return what a clock shows, naive."""
    return moment.astimezone(zone).replace(tzinfo=None)


def _when_reached(local: datetime, zone: tzinfo) -> datetime:
    """Return the first moment at which a clock shows a local time or a later one.

    Args:
        local: A naive datetime.
        zone: Where the clock is.
    """
    since = local.replace(tzinfo=UTC) - _DAY  # it is not reached yet, whatever the zone
    while True:
        moment = max(since, local.replace(tzinfo=UTC) - _offset(since, zone))
        change = _first_change(since, moment, zone)
        if change is None:
            return moment
        since = change


def _first_change(since: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """Return the first moment after `since` with another offset, `until` at the latest.

    No zone has two changes a day that cancel each other, so it is looked for by days.
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
    low = low.replace(microsecond=0)  # a change is at a full second
    seconds = -(-(high - low) // _SECOND)
    first, last = 0, seconds  # the offset is another one at the last
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(low + middle * _SECOND, zone) == offset:
            first = middle
        else:
            last = middle
    return low + last * _SECOND


# ---- what is given


def _cronsim() -> ModuleType:
    try:  # an extra, which programs without a Cron do not need
        import cronsim
    except ImportError as error:
        raise ImportError(
            "Cron needs the package cronsim: pip install 'aioscheduler[cron]'"
        ) from error
    return cronsim


def _read_step(step: timedelta | float) -> timedelta:
    seconds = read_seconds("the step", step, above_zero=True)
    try:
        if isinstance(step, timedelta):  # exactly, and no subclass
            found = timedelta(step.days, step.seconds, step.microseconds)
        else:
            found = timedelta(seconds=step)
    except OverflowError:
        raise ValueError(f"the step is too long: {seconds:g} seconds") from None
    if not found:
        raise ValueError(f"the step is a microsecond or more, not {seconds:g} seconds")
    return found


def _read_moment(name: str, moment: datetime) -> datetime:
    """Return an aware datetime in UTC, as none of a subclass."""
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
def _check_expression(expression: str) -> None:
    if (count := len(expression.split())) != 5:
        raise ValueError(
            f"a cron expression has five fields (minute, hour, day of the month, month, day of "
            f"the week), and {expression!r} has {count}"
        )
    try:
        _cronsim().CronSim(expression, _EPOCH.replace(tzinfo=None))
    except Exception as error:  # its own, and what it has not thought of
        raise ValueError(f"cron expression {expression!r}: {error or repr(error)}") from error


def check_text(what: str, thing: object) -> None:
    """Refuse what has no text of its own.

    Args:
        what: It is called so in the refusal.
        thing: A rule or a zone.

    Raises:
        TypeError: Its `str()` is that of `object`, another one at each start.
    """
    kind = type(thing)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        raise TypeError(
            f"{what} is recognised by its text when the program starts again: give "
            f"{kind.__name__} a __str__ that says what it is"
        )
