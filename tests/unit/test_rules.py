"""Every and Cron: their times, their refusals, and their texts."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler.rules import Cron, Every, check_text

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def times(rule: Every | Cron, after: datetime, number: int) -> list[datetime]:
    """Return times, each the first after the one before."""
    found = []
    for _ in range(number):
        moment = rule.next(after)
        assert moment is not None
        assert moment.tzinfo is UTC
        assert moment > after
        found.append(moment)
        after = moment
    return found


def local(rule: Cron, after: str, number: int) -> str:
    """Return day, time and offset of each."""
    assert isinstance(rule.timezone, tzinfo)
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = (f"{t.astimezone(rule.timezone):%d.%H:%M%z}" for t in times(rule, start, number))
    return " ".join(each.removesuffix("00") for each in found)


# ---- Every

moments = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
steps = st.timedeltas(timedelta(microseconds=1), timedelta(days=2000))


@given(moments, steps, st.integers(0, 1000), st.timedeltas(timedelta(), timedelta(days=4000)))
def test_every_is_exactly_start_and_so_many_steps(
    start: datetime, step: timedelta, n: int, beside: timedelta
) -> None:
    rule = Every(step, start=start)
    assert rule.next(start + n * step) == start + (n + 1) * step
    assert rule.next(start + n * step - timedelta(microseconds=1)) == start + n * step
    found = rule.next(start + beside)
    assert found is not None
    assert not (found - start) % step
    assert timedelta() < found - (start + beside) <= step


def test_every_begins_with_its_start() -> None:
    rule = Every(DAY, start=START)
    assert rule.next(datetime(1900, 1, 1, tzinfo=UTC)) == START
    assert times(rule, START - HOUR, 3) == [START, START + DAY, START + 2 * DAY]


def test_every_without_a_start_counts_from_where_it_is_asked() -> None:
    odd = START + timedelta(microseconds=1)
    assert times(Every(0.1), odd, 1000)[-1] == odd + 1000 * timedelta(milliseconds=100)
    assert times(Every(HOUR), odd, 3) == [odd + HOUR, odd + 2 * HOUR, odd + 3 * HOUR]


def test_every_knows_no_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    rule = Every(DAY, start=datetime(2027, 3, 27, 12, tzinfo=berlin))
    found = rule.next(datetime(2027, 3, 27, 12, tzinfo=berlin))
    assert found == datetime(2027, 3, 28, 11, tzinfo=UTC)  # 13:00 there, a day later
    assert rule.start is not None
    assert rule.start.tzinfo is UTC


def test_every_ends_with_the_calendar() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    assert Every(1).next(last) is None
    assert Every(1, start=START).next(last) is None
    assert Every(timedelta.max, start=START).next(START) is None


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (0, ValueError, "the step must be finite, and more than 0 seconds, not 0"),
        (-1, ValueError, "more than 0 seconds, not -1"),
        (-DAY, ValueError, "more than 0 seconds"),
        (float("nan"), ValueError, "finite"),
        (float("inf"), ValueError, "finite"),
        (10**400, ValueError, "finite"),
        (1e-7, ValueError, "a microsecond or more, not 1e-07"),
        (1e15, ValueError, "too long: 1e"),
        (True, TypeError, "seconds or a timedelta, not bool"),
        ("1", TypeError, "seconds or a timedelta, not str"),
        (None, TypeError, "seconds or a timedelta, not NoneType"),
    ],
)
def test_every_refuses_what_is_no_step(step: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Every(step)


class Odd(tzinfo):
    def dst(self, dt: datetime | None) -> timedelta | None:
        return None

    def tzname(self, dt: datetime | None) -> str | None:
        return None


class Broken(Odd):
    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        raise LookupError("no clock")

    def __str__(self) -> str:
        return "broken"


class Nameless(Odd):
    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        return timedelta()


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (datetime(2030, 1, 1), ValueError, r"start is naive: .*datetime\.now\(UTC\)"),
        (DAY, TypeError, "start is a datetime, not timedelta"),
        (START.date(), TypeError, "start is a datetime, not date"),
        (datetime.min.replace(tzinfo=timezone(HOUR)), ValueError, "beyond the calendar of UTC"),
    ],
)
def test_every_refuses_what_is_no_start(start: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Every(1, start=start)


def test_the_start_goes_by_name_alone() -> None:
    with pytest.raises(TypeError):
        Every(1, START)  # type: ignore[misc]


@pytest.mark.parametrize("rule", [Every(1), Every(1, start=START), Cron("* * * * *", "UTC")])
def test_a_naive_moment_has_no_next(rule: Every | Cron) -> None:
    with pytest.raises(ValueError, match="after is naive"):
        rule.next(datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="after is a datetime, not NoneType"):
        rule.next(None)  # type: ignore[arg-type]


# ---- equality and texts


class Span(timedelta):
    def __str__(self) -> str:
        return "odd"


RULES: list[Every | Cron] = [
    Every(1),
    Every(1.5),
    Every(DAY),
    Every(DAY + timedelta(microseconds=1)),
    Every(DAY, start=START),
    Every(DAY, start=START + timedelta(microseconds=1)),
    Cron("0 9 * * 1-5", "Europe/Berlin"),
    Cron("0 9 * * 1-5", "Europe/Vienna"),
    Cron("0 9 * * 1-5", timezone(HOUR)),
    Cron("0 9 * * 1-6", "Europe/Berlin"),
]


def test_texts_distinguish_rules_and_equal_ones_have_one() -> None:
    assert len({str(rule) for rule in RULES}) == len(set(RULES)) == len(RULES)
    for first, second in itertools.combinations(RULES, 2):
        assert first != second
    for rule in RULES:
        copy: Every | Cron = pickle.loads(pickle.dumps(rule))
        assert (copy, hash(copy), str(copy)) == (rule, hash(rule), str(rule))
        assert copy.next(START) == rule.next(START)


def test_a_text_says_what_it_is() -> None:
    assert str(Every(90)) == "every 0:01:30"
    assert str(Every(DAY, start=START)) == "every 1 day, 0:00:00 from 2030-01-01T00:00:00+00:00"
    assert str(Cron("0 9 * * mon-fri", "Europe/Berlin")) == "cron 0 9 * * MON-FRI in Europe/Berlin"


def test_the_same_said_otherwise_is_the_same() -> None:
    assert Every(86400) == Every(DAY) == Every(86400.0) == Every(Span(1))
    assert str(Every(Span(1))) == "every 1 day, 0:00:00"
    there = START.astimezone(ZoneInfo("Asia/Tokyo"))
    assert str(Every(1, start=there)) == str(Every(1, start=START))
    one = Cron(" 0  9 * * mon", "Europe/Berlin")
    assert one == Cron("0 9 * * MON", ZoneInfo.no_cache("Europe/Berlin"))
    assert one != "cron 0 9 * * MON in Europe/Berlin"


@pytest.mark.parametrize("rule", [RULES[0], RULES[-1]])
def test_a_rule_cannot_be_changed(rule: Any) -> None:
    for name in ("step", "start") if isinstance(rule, Every) else ("expression", "timezone"):
        with pytest.raises(FrozenInstanceError):
            setattr(rule, name, None)


def test_a_text_that_changes_with_each_start_is_refused() -> None:
    class Own:
        def __repr__(self) -> str:
            return "mine"

    check_text("a rule", Own())
    with pytest.raises(TypeError, match="a rule is recognised by its text.*object a __str__"):
        check_text("a rule", object())


# ---- Cron: refusals


@pytest.mark.parametrize(
    ("expression", "error", "message"),
    [
        ("", ValueError, "five fields .*, and '' has 0$"),
        ("* * * *", ValueError, r"five fields \(minute, hour, day of the month, .* has 4"),
        ("0 * * * * *", ValueError, "has 6; seconds are not supported: .* use Every$"),
        ("@daily", ValueError, r"not a nickname such as '@daily': daily is '0 0 \* \* \*'$"),
        (
            "60 * * * *",
            ValueError,
            r"'60 \* \* \* \*': bad minute '60': allowed are 0 to 59",
        ),
        ("* 24 * * *", ValueError, "bad hour '24': allowed are 0 to 23, and"),
        ("* * 0 * *", ValueError, "bad day of the month '0': allowed are 1 to 31 "),
        ("* * 30 2 *", ValueError, "bad day of the month '30': .*if the month has that day"),
        ("* * ? * mon", ValueError, r"mon': \? is not supported in '\?', the day of the month"),
        ("* * * 13 *", ValueError, "bad month '13': allowed are 1 to 12, JAN to DEC, and"),
        ("* * * * 8", ValueError, r"bad day of the week '8': allowed are 0 to 7 \(0 and 7"),
        ("* * * * Mon-fry", ValueError, "'. . . . Mon-fry': bad day of the week 'Mon-fry'"),
        ("*/0 * * * *", ValueError, r"bad minute '\*/0'.* steps \(\*/5\)$"),
        ("5-1 * * * *", ValueError, "bad minute '5-1'"),
        ("x * * * *", ValueError, "bad minute 'x'"),
        (None, TypeError, "a cron expression is a str, not NoneType"),
        (b"* * * * *", TypeError, "not bytes"),
    ],
)
def test_a_wrong_expression_is_refused(
    expression: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Cron(expression, "UTC")


@given(st.text(alphabet="*/-,#LW0123456789 MONJA?", max_size=20))
def test_an_expression_is_right_or_a_value_error(text: str) -> None:
    try:
        rule = Cron(text, "UTC")
    except ValueError:
        return
    found = rule.next(START)
    assert found is None or found > START


@pytest.mark.parametrize(
    ("zone", "error", "message"),
    [
        ("", ValueError, "there is no time zone ''"),
        ("Europe", ValueError, "no time zone 'Europe': write a name such as 'Europe/Berlin'"),
        ("Europe/Berln", ValueError, "no time zone 'Europe/Berln'"),
        ("../UTC", ValueError, "no time zone"),
        ("\0", ValueError, "no time zone"),
        ("\ud800", ValueError, "no time zone"),
        (None, TypeError, "timezone is a name such as 'Europe/Berlin', or a tzinfo, not NoneType"),
        (1, TypeError, "not int"),
        (HOUR, TypeError, "not timedelta"),
        (Broken(), ValueError, r"timezone broken has no local time: LookupError\('no clock'\)"),
        (Nameless(), TypeError, "a tzinfo is recognised by its text.*Nameless a __str__"),
    ],
)
def test_a_wrong_zone_is_refused(zone: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Cron("* * * * *", zone)


def test_a_machine_without_zones_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    with pytest.raises(ValueError, match="this machine knows none: pip install tzdata"):
        Cron("* * * * *", "Mars/Base")


def test_a_zone_is_not_left_out() -> None:
    with pytest.raises(TypeError):
        Cron("* * * * *")  # type: ignore[call-arg]


def test_without_cronsim_a_cron_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ImportError, match=r"pip install 'aioscheduler\[cron\]'"):
        Cron("* * * * *", "UTC")
    assert Every(1).next(START) == START + timedelta(seconds=1)


def test_cronsim_is_imported_by_the_first_cron_alone() -> None:
    code = (
        "import sys; from aioscheduler.rules import Cron, Every; Every(1)\n"
        "assert 'cronsim' not in sys.modules; Cron('* * * * *', 'UTC'); import cronsim"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Cron: clock changes


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # 02:30 is skipped, and comes twice
        ("30 2 * * *", "Europe/Berlin", "2027-03-27", "27.02:30+01 28.03:00+02 29.02:30+02"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24", "24.02:30+02 25.02:30+02 26.02:30+01"),
        # two times in one gap are one
        ("0,30 2,3 * * *", "Europe/Berlin", "2027-03-28", "28.03:00+02 28.03:30+02 29.02:00+02"),
        # every real half hour
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2027-03-28T00:15",
            "28.01:30+01 28.03:00+02 28.03:30+02",
        ),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-10-25T00:15",
            "25.02:30+02 25.02:00+01 25.02:30+01 25.03:00+01",
        ),
        # a fixed hour, but any minute: never, and twice
        ("*/30 2 * * *", "Europe/Berlin", "2027-03-27T12:00", "29.02:00+02 29.02:30+02"),
        (
            "*/30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T23:55",
            "25.02:00+02 25.02:30+02 25.02:00+01 25.02:30+01 26.02:00+01",
        ),
        # half an hour back, half an hour on
        ("*/15 2 * * *", "Australia/Lord_Howe", "2026-04-04T14:50", "05.02:00+1030 05.02:15+1030"),
        ("*/15 3 * * *", "Australia/Lord_Howe", "2026-10-03T15:40", "04.03:00+11 04.03:15+11"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03", "04.02:30+11 05.02:15+11"),
        # midnight is skipped; a change a minute after it
        ("0 0 * * *", "America/Asuncion", "2023-10-01", "01.01:00-03 02.00:00-03"),
        ("*/30 2 * * *", "America/St_Johns", "2010-03-14T03:35", "14.02:00-0230 14.02:30-0230"),
        # 30 December is skipped
        ("0 9 * * *", "Pacific/Apia", "2011-12-29", "29.09:00-10 31.00:00+14 31.09:00+14"),
        ("*/30 9 * * *", "Pacific/Apia", "2011-12-29", "29.09:00-10 29.09:30-10 31.09:00+14"),
        # no change
        ("0 12 29 2 *", "UTC", "2026-01-01", "29.12:00+00 29.12:00+00"),
        ("0 0 LW * *", "UTC", "2026-05-01", "29.00:00+00 30.00:00+00"),
    ],
)
def test_days_on_which_clocks_change(expression: str, zone: str, after: str, expected: str) -> None:
    number = len(expected.split())
    assert local(Cron(expression, zone), after, number) == expected


def test_asked_in_the_hour_that_comes_again_it_does_not_go_back() -> None:
    again = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # the second 02:15
    rule = Cron("10,30 2 * * *", "Europe/Berlin")
    assert rule.next(again) == datetime(2026, 10, 26, 1, 10, tzinfo=UTC)
    assert Cron("*/30 2 * * *", "Europe/Berlin").next(again) == again + 15 * MINUTE


def test_a_part_of_a_second_is_no_second() -> None:
    for expression in ("0 9 * * *", "*/60 9 * * *"):
        rule = Cron(expression, "UTC")
        nine = START + 9 * HOUR
        assert rule.next(nine - timedelta(microseconds=1)) == nine
        assert rule.next(nine) == nine + DAY
        assert rule.next(nine + timedelta(microseconds=1)) == nine + DAY


def test_a_part_of_a_second_before_a_change() -> None:
    change = datetime(2026, 10, 25, 1, tzinfo=UTC)  # 03:00 becomes 02:00
    for before in (timedelta(microseconds=1), timedelta(seconds=0.5)):
        assert Cron("* * * * *", "Europe/Berlin").next(change - before) == change


def test_it_may_be_asked_by_any_clock() -> None:
    rule = Cron("0 9 * * *", "Europe/Berlin")
    for zone in ("Asia/Tokyo", "America/New_York", "Europe/Berlin"):
        assert rule.next(START.astimezone(ZoneInfo(zone))) == START + 8 * HOUR


def test_the_calendar_ends() -> None:
    for expression in ("0 9 * * *", "* * * * *"):
        for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
            assert Cron(expression, zone).next(datetime.max.replace(tzinfo=UTC)) is None
    assert Cron("0 0 * 2 MON#5", "UTC").next(START) == datetime(2044, 2, 29, tzinfo=UTC)


# ---- Cron: every change of every clock, by walking its minutes

FIRST, LAST = datetime(2010, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
SAMPLE = ("Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Asia/Gaza")
Change = tuple[datetime, timedelta, timedelta]  # the first minute, and the offsets


def offset(moment: datetime, zone: tzinfo) -> timedelta:
    found = moment.astimezone(zone).utcoffset()
    assert found is not None
    return found


def changes_of(zone: tzinfo) -> Iterator[Change]:
    """Yield all changes of 28 years that last for an hour."""
    moment, now = FIRST, offset(FIRST, zone)
    while moment < LAST:
        later = offset(moment + HOUR, zone)
        if later != now:
            first = moment
            while offset(first, zone) == now:
                first += MINUTE
            assert offset(first - timedelta(microseconds=1), zone) == now
            yield first, now, later
            now = later
        moment += HOUR


class Meant(NamedTuple):
    """Return whether a local time matches, from the values that made the expression."""

    minutes: Collection[int]
    hours: Collection[int]
    day: datetime | None = None

    def has(self, wall: datetime) -> bool:
        day = self.day
        return (
            wall.minute in self.minutes
            and wall.hour in self.hours
            and (day is None or (wall.day, wall.month) == (day.day, day.month))
        )


def expressions(change: Change) -> dict[str, Meant]:
    first, before, after = change
    walls = [(first + each).replace(tzinfo=None) for each in (before, after)]
    low, high = min(walls), max(walls)  # the gap, or the time that comes twice
    found = {
        "*/15 * * * *": Meant({0, 15, 30, 45}, range(24)),
        "0-59/15 0-23 * * *": Meant({0, 15, 30, 45}, range(24)),
        "7 */2 * * *": Meant({7}, range(0, 24, 2)),
        f"3,33,59 {low.hour},{high.hour} * * *": Meant({3, 33, 59}, {low.hour, high.hour}),
    }
    for edge in (low - MINUTE, low, low + (high - low) / 2, high - MINUTE, high):
        found[f"{edge:%M %H} * * *"] = Meant({edge.minute}, {edge.hour})
        found[f"{edge:%M %H %d %m} *"] = Meant({edge.minute}, {edge.hour}, edge)
        found[f"*/10 {edge:%H} * * *"] = Meant(range(0, 60, 10), {edge.hour})
    return found


def check_change(zone: ZoneInfo, change: Change) -> None:
    first, before, after = change
    margin = 2 * HOUR + abs(after - before)
    begin = first - margin
    minutes = [begin + n * MINUTE for n in range(2 * margin // MINUTE)]
    walls = [minute.astimezone(zone).replace(tzinfo=None, fold=0) for minute in minutes]
    for expression, meant in expressions(change).items():
        expected, reached = [], walls[0]
        by_clock = "*" in "".join(expression.split()[:2])
        for minute, wall in zip(minutes[1:], walls[1:], strict=True):
            come = [wall] if by_clock else []
            while reached < wall:
                reached += MINUTE
                if not by_clock:
                    come.append(reached)
            if any(map(meant.has, come)):
                expected.append(minute)
        rule = Cron(expression, zone)
        found = list(itertools.takewhile(minutes[-1].__ge__, rule.iterate(begin)))
        assert found == expected, (expression, zone, change)
        for asked in (first - timedelta(seconds=1), first, first + abs(after - before) / 2):
            later = next((each for each in expected if each > asked), None)
            moment = rule.next(asked)
            assert moment is not None
            if later is None:
                assert moment > minutes[-1], (expression, zone, asked)
            else:
                assert moment == later, (expression, zone, asked)


def test_changes_of_some_clocks() -> None:
    for name in SAMPLE:
        zone = ZoneInfo(name)
        changes = list(changes_of(zone))
        assert len(changes) > 4
        for change in changes[:5]:
            check_change(zone, change)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_change_of_every_clock() -> None:
    """A change is tested once for all zones that have it."""
    done: set[Change] = set()
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        for change in changes_of(zone):
            if change not in done:
                done.add(change)
                check_change(zone, change)
    assert len(done) > 1000
