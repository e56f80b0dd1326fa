"""Which times are run, which are skipped, and when to look next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler._repeating.policy import (
    GRACE,
    MOST_RUNS,
    Look,
    Progress,
    Run,
    begin,
    delay_of,
    look,
    pause,
    resume,
    wake_of,
)
from aioscheduler._repeating.terms import Missed, Overlap, Terms, read_terms
from aioscheduler._scheduling.clock import SECOND, to_datetime
from aioscheduler.rules import Cron, Every, Rule

START = datetime(2030, 1, 1, tzinfo=UTC)
NOW = int(START.timestamp()) * SECOND
MINUTE = 60 * SECOND
MINUTELY = Every(60)


def minute(n: float) -> int:
    return NOW + int(n * MINUTE)


def make(rule: Rule = MINUTELY, **kwargs: Any) -> Terms:
    return read_terms(rule, **kwargs)


def nominals(found: Look) -> list[int]:
    """In minutes."""
    return [(run.nominal - NOW) // MINUTE for run in found.runs]


class Failing:
    """A rule that answers a number of times, and then raises."""

    def __init__(self, right: int) -> None:
        self.right = right

    def next(self, after: datetime) -> datetime | None:
        self.right -= 1
        if self.right < 0:
            raise LookupError("no more")
        return after + timedelta(minutes=1)

    def __str__(self) -> str:
        return "failing"


# ---- it ticks


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Every(timedelta(days=1)), [START + timedelta(days=n) for n in range(1, 11)]),
        (Cron("0 0 1 * *", "UTC"), [datetime(2030, n, 1, tzinfo=UTC) for n in range(2, 12)]),
        (Cron("0 0 1 1 *", "UTC"), [datetime(n, 1, 1, tzinfo=UTC) for n in range(2031, 2041)]),
    ],
)
def test_days_months_and_years_tick_exactly(rule: Rule, expected: list[datetime]) -> None:
    terms = make(rule)
    progress = begin(terms, NOW)
    now, found = NOW, []
    for _ in expected:
        seen = look("x", terms, progress, now, NOW, 0)
        assert not seen.runs
        assert seen.wake is not None
        now = seen.wake
        seen = look("x", terms, progress, now, NOW, 0)
        found += [to_datetime(run.due) for run in seen.runs]
        progress = seen.progress
    assert found == expected
    assert (progress.ran, progress.skipped) == (10, 0)


def test_it_begins_after_the_call_and_not_at_it() -> None:
    assert begin(make(), NOW).next == minute(1)
    assert begin(make(Every(60, start=START)), NOW).next == minute(1)
    assert begin(make(Every(60, start=START)), NOW - 1).next == NOW
    assert begin(make(Cron("* * * * *", "UTC")), NOW).next == minute(1)


def test_early_nothing_is_run() -> None:
    progress = begin(make(), NOW)
    assert look("x", make(), progress, minute(1) - 1, NOW, 0) == Look(progress, (), minute(1))
    assert nominals(look("x", make(), progress, minute(1), NOW, 0)) == [1]


# ---- missed times

BACK = minute(10) + 5 * SECOND  # the 10th minute passed less than 10 s ago


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
@pytest.mark.parametrize(("step", "down", "number"), [(60, 605, 10), (1, 5.5, 5), (1, 15.5, 15)])
def test_with_all_none_is_left_out_that_had_passed(
    overlap: str, step: int, down: float, number: int
) -> None:
    """Whether a time is missed, or only late."""
    terms = make(Every(step), missed="all", overlap=overlap)
    progress, now, free = begin(terms, NOW), NOW + int(down * SECOND), 0
    back = now
    runs: list[Run] = []
    while (seen := look("x", terms, progress, now, back, free)).held or seen.runs:
        runs += seen.runs
        progress = seen.progress
        now += SECOND // 100
        free = now  # all runs have ended
    assert [run.nominal for run in runs] == sorted({run.nominal for run in runs})
    assert (len(runs), progress.ran, progress.skipped) == (number, number, 0)


@pytest.mark.parametrize(
    ("missed", "overlap", "running", "expected", "skipped", "next_", "held"),
    [
        # One for the latest missed; the 10th, which is only late, comes while that runs: where a
        # single run is left, it is that of the 10th.
        ("once", "skip", False, [10], 9, 11, False),
        ("once", "queue", False, [9], 8, 10, True),
        ("once", "allow", False, [9, 10], 8, 11, False),
        ("once", "skip", True, [], 10, 11, False),
        ("once", "queue", True, [], 8, 9, True),
        ("once", "allow", True, [9, 10], 8, 11, False),
        # One after another, whatever overlap is.
        ("all", "skip", False, [1], 0, 2, True),
        ("all", "queue", False, [1], 0, 2, True),
        ("all", "allow", False, [1], 0, 2, True),
        ("all", "skip", True, [], 0, 1, True),
        ("all", "queue", True, [], 0, 1, True),
        ("all", "allow", True, [], 0, 1, True),
        # None of the missed; the 10th is not missed.
        ("skip", "skip", False, [10], 9, 11, False),
        ("skip", "queue", False, [10], 9, 11, False),
        ("skip", "allow", False, [10], 9, 11, False),
        ("skip", "skip", True, [], 10, 11, False),
        ("skip", "queue", True, [], 9, 10, True),
        ("skip", "allow", True, [10], 9, 11, False),
    ],
)
@pytest.mark.parametrize("rule", [MINUTELY, Cron("* * * * *", "UTC")])
def test_ten_minutes_passed_while_nobody_looked(
    rule: Rule,
    missed: str,
    overlap: str,
    running: bool,
    expected: list[int],
    skipped: int,
    next_: int,
    held: bool,
) -> None:
    terms = make(rule, missed=missed, overlap=overlap)
    seen = look("x", terms, begin(terms, NOW), BACK, BACK, None if running else 0)
    assert nominals(seen) == expected
    last = expected[-1] if expected else None
    assert seen.progress == Progress(
        minute(next_), None if last is None else minute(last), len(expected), skipped
    )
    assert seen.wake == (None if held else minute(next_))
    assert seen.held == held


@pytest.mark.parametrize(("late", "is_missed"), [(GRACE, False), (GRACE + 1, True)])
def test_a_time_passed_by_ten_seconds_is_only_late(late: int, is_missed: bool) -> None:
    terms = make(missed="skip")
    watched = minute(1) + late
    seen = look("x", terms, begin(terms, NOW), watched, watched, 0)
    assert nominals(seen) == ([] if is_missed else [1])
    assert seen.progress.skipped == is_missed


def test_a_busy_manager_misses_nothing() -> None:
    terms = make(missed="skip", overlap="allow")
    assert nominals(look("x", terms, begin(terms, NOW), BACK, NOW, 0)) == list(range(1, 11))


def test_all_that_was_missed_comes_one_by_one_and_then_what_overlap_says() -> None:
    for overlap, then in (("skip", [13]), ("queue", [11, 12, 13]), ("allow", [11, 12, 13])):
        terms = make(missed="all", overlap=overlap)
        progress = begin(terms, NOW)
        watched = minute(10) + GRACE + 1
        found = []
        for n in range(10):
            now = watched + n  # each ends at once
            seen = look("x", terms, progress, now, watched, now)
            found += nominals(seen)
            progress = seen.progress
        assert found == list(range(1, 11))
        # The last of them runs until the 13th.
        found = []
        for at, free in ((12.5, None), *[(13.0, minute(13))] * 4):
            seen = look("x", terms, progress, minute(at), watched, free)
            found += nominals(seen)
            progress = seen.progress
        assert found == then
        assert progress.skipped == (2 if overlap == "skip" else 0)


def test_a_queue_and_what_was_missed_are_one_after_a_restart() -> None:
    terms = make(overlap="queue")
    progress = begin(terms, NOW)
    progress = look("x", terms, progress, minute(1), NOW, 0).progress
    progress = look("x", terms, progress, minute(5), NOW, None).progress
    assert progress.next == minute(2)
    seen = look(
        "x", terms, begin(terms, minute(9.5), progress, terms.text), minute(9.5), minute(9.5), 0
    )
    assert nominals(seen) == [9]
    assert seen.progress.skipped == 7


def test_a_clock_that_is_set_back_repeats_nothing() -> None:
    terms = make()
    progress = look("x", terms, begin(terms, NOW), minute(1), NOW, 0).progress
    back = minute(-100)
    for watched in (back, NOW):
        assert look("x", terms, progress, back, watched, 0) == Look(progress, (), minute(2))
    # Nor does a time overlap a run that had ended before it by the former clock.
    assert nominals(look("x", terms, progress, minute(2), NOW, minute(2.5))) == [2]
    # A time that nobody missed does not count as missed when the clock reaches it.
    assert nominals(look("x", make(missed="skip"), progress, minute(2), minute(50), 0)) == [2]


def test_a_year_forward_is_one_run_and_costs_little() -> None:
    for rule in (MINUTELY, Cron("* * * * *", "UTC")):
        terms = make(rule)
        later = minute(365 * 1440 + 0.5)
        seen = look("x", terms, begin(terms, NOW), later, later, 0)
        assert nominals(seen) == [365 * 1440]
        assert seen.wake == minute(365 * 1440 + 1)
        assert seen.progress.skipped == (365 * 1440 - 1 if rule is MINUTELY else 999)


# ---- overlaps


def test_a_run_that_goes_on_has_the_others_skipped_and_counted() -> None:
    terms = make()
    progress = look("x", terms, begin(terms, NOW), minute(1), NOW, 0).progress
    for n in range(2, 100):
        seen = look("x", terms, progress, minute(n), NOW, None)
        progress = seen.progress
        assert not seen.runs
        assert seen.wake == minute(n + 1)
        assert not seen.held
    assert progress.skipped == 98
    assert nominals(look("x", terms, progress, minute(100), NOW, minute(100))) == [100]


def test_times_during_a_run_overlap_it_even_if_it_has_ended() -> None:
    terms = make()
    progress = look("x", terms, begin(terms, NOW), minute(1), NOW, 0).progress
    # Late, after the end of the run in the 4th minute.
    seen = look("x", terms, progress, minute(6.5), NOW, minute(4.5))
    assert nominals(seen) == [5]
    assert seen.progress == Progress(minute(7), minute(5), 2, 3 + 1)


def test_a_queue_runs_one_at_each_end() -> None:
    terms = make(overlap="queue")
    progress = look("x", terms, begin(terms, NOW), minute(1), NOW, 0).progress
    assert look("x", terms, progress, minute(1.5), NOW, None).wake == minute(2)
    for n in range(2, 6):
        seen = look("x", terms, progress, minute(5), NOW, None)
        assert (seen.progress, seen.runs, seen.wake, seen.held) == (progress, (), None, True)
        seen = look("x", terms, progress, minute(5), NOW, minute(5))
        assert nominals(seen) == [n]
        progress = seen.progress
    assert look("x", terms, progress, minute(5), NOW, minute(5)).wake == minute(6)
    assert progress.skipped == 0


def test_a_look_has_a_limited_number_of_runs() -> None:
    terms = make(Every(0.001), overlap="allow")
    seen = look("x", terms, begin(terms, NOW), minute(1), NOW, 0)
    assert len(seen.runs) == MOST_RUNS
    assert seen.wake == seen.runs[-1].nominal + SECOND // 1000
    assert seen.wake < minute(1)
    assert not seen.held


def test_a_year_of_times_that_overlap_costs_little() -> None:
    class Counting:
        asked = 0

        def next(self, after: datetime) -> datetime | None:
            self.asked += 1
            return Every(60, start=START).next(after)

        def __str__(self) -> str:
            return "counting"

    rule = Counting()
    terms = make(rule)
    seen = look("x", terms, begin(terms, NOW), minute(365 * 1440), NOW, None)
    assert seen.progress == Progress(minute(365 * 1440 + 1), None, 0, 1000)
    assert rule.asked < 1100


# ---- its end


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
def test_it_has_so_many_runs(overlap: str) -> None:
    terms = make(times=3, overlap=overlap)
    progress = begin(terms, NOW)
    found = []
    for n in range(1, 10):
        seen = look("x", terms, progress, minute(n), NOW, minute(n))
        found += nominals(seen)
        progress = seen.progress
    assert found == [1, 2, 3]
    assert progress == Progress(None, minute(3), 3, 0)
    assert seen == Look(progress, (), None)
    assert resume(terms, progress, minute(10)) == progress
    # Declared again at the next start it stays over; with more times it goes on.
    assert begin(terms, minute(20), progress, terms.text) == progress
    assert begin(make(times=4), minute(20), progress, terms.text).next == minute(21)


def test_skipped_times_do_not_count_as_runs() -> None:
    terms = make(times=1, missed="skip")
    watched = minute(5.5)
    progress = look("x", terms, begin(terms, NOW), watched, watched, 0).progress
    assert progress == Progress(minute(6), None, 0, 5)


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
def test_after_its_end_there_is_none(missed: str) -> None:
    terms = make(until=to_datetime(minute(3)), missed=missed, overlap="allow")
    assert nominals(look("x", terms, begin(terms, NOW), minute(9), NOW, 0)) == [1, 2, 3]
    seen = look("x", terms, begin(terms, NOW), minute(9), minute(9), 0)
    expected: dict[str, tuple[list[int], int, int | None]] = {
        "once": ([3], 2, None),
        "all": ([1], 0, minute(2)),
        "skip": ([], 3, None),
    }
    assert (nominals(seen), seen.progress.skipped, seen.progress.next) == expected[missed]
    assert begin(terms, minute(3)).next is None
    clock = make(Cron("* * * * *", "UTC"), until=to_datetime(minute(3)))
    assert begin(clock, minute(3) - 1).next == minute(3)  # that included


def test_an_end_may_be_moved() -> None:
    early, late = make(until=to_datetime(minute(3))), make(until=to_datetime(minute(9)))
    progress = begin(late, NOW)._replace(next=minute(5))
    assert begin(early, NOW, progress, early.text).next is None
    assert begin(late, NOW, progress, late.text) == progress
    over = begin(early, minute(4), Progress(last=minute(3)), early.text)
    assert over.next is None
    assert begin(late, minute(4), over, late.text).next == minute(5)


# ---- pause


def test_times_during_a_pause_are_skipped() -> None:
    for rule in (MINUTELY, Cron("* * * * *", "UTC")):
        terms = make(rule, missed="all", overlap="queue")
        progress = pause(begin(terms, NOW))
        assert look("x", terms, progress, minute(5), NOW, 0) == Look(progress, (), None)
        back = resume(terms, progress, minute(5.5))
        assert back == Progress(minute(6), None, 0, 5)
        assert resume(terms, back, minute(7)) == back  # it is not paused
        assert resume(terms, progress, minute(1)) == Progress(minute(2), None, 0, 1)
        assert resume(terms, progress, minute(1) - 1) == progress._replace(paused=False)


def test_a_pause_holds_over_a_restart() -> None:
    terms = make()
    progress = pause(begin(terms, NOW))
    assert begin(terms, minute(5), progress, terms.text) == progress
    changed = begin(make(Every(30)), minute(5), progress, terms.text)
    assert changed == Progress(minute(5.5), paused=True)


def test_it_may_end_while_it_is_paused() -> None:
    terms = make(until=to_datetime(minute(3)))
    assert resume(terms, pause(begin(terms, NOW)), minute(9)) == Progress(skipped=3)


# ---- declared again


def test_an_unchanged_rule_keeps_its_next_time_and_a_changed_one_the_last() -> None:
    daily = make(Every(timedelta(days=1)))
    progress = begin(daily, NOW)
    for n in range(1, 6):  # a start every ten hours
        again = begin(daily, minute(600 * n), progress, daily.text)
        assert again == progress
    seen = look("x", daily, progress, minute(1440), NOW, 0)
    assert nominals(seen) == [1440]
    changed = begin(make(), minute(1500), seen.progress, daily.text)
    assert changed == Progress(minute(1501), minute(1440), 1, 0)


def test_a_changed_rule_owes_nothing_and_runs_nothing_again() -> None:
    nine, eight = make(Cron("0 9 * * *", "UTC")), make(Cron("0 8 * * *", "UTC"))
    last = NOW + 9 * 60 * MINUTE
    progress = Progress(next=last + 1440 * MINUTE, last=last, ran=1)
    # Declared at half past eight of the next day: that day's time has passed by the new rule.
    asked = minute(1440 + 8.5 * 60)
    assert begin(eight, asked, progress, nine.text).next == minute(2 * 1440 + 8 * 60)
    # The clock was set back to before the last run: that is not run again.
    assert begin(nine, NOW, progress, eight.text).next == progress.next


# ---- jitter


def test_a_run_is_due_up_to_jitter_later() -> None:
    terms = make(jitter=30)
    progress, dues = begin(terms, NOW), []
    for n in range(1, 400):
        seen = look("x", terms, progress, minute(n), NOW, minute(n))
        (run,) = seen.runs
        assert run.nominal == minute(n)
        assert seen.wake is not None  # when the next run is due, and not before
        assert seen.wake == minute(n + 1) + delay_of("x", minute(n + 1), 30 * SECOND)
        dues.append(run.due - run.nominal)
        progress = seen.progress
    assert 0 <= min(dues) < 2 * SECOND
    assert 28 * SECOND < max(dues) < 30 * SECOND


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
def test_a_run_delayed_by_jitter_is_not_missed(missed: str) -> None:
    terms = make(jitter=30, missed=missed)
    progress = begin(terms, NOW)
    for late, expected in ((40 * SECOND, [1]), (40 * SECOND + 1, [] if missed == "skip" else [1])):
        seen = look("x", terms, progress, minute(1) + late, minute(1) + late, 0)
        assert nominals(seen) == expected
        assert seen.progress.skipped == (not expected)


def test_jitter_is_the_same_over_restarts() -> None:
    assert delay_of("report", NOW, 60 * SECOND) == 14_787_995_001
    assert delay_of("report", NOW, 0) == 0
    assert delay_of("report", NOW + 1, MINUTE) != delay_of("report", NOW, MINUTE)
    assert delay_of("other", NOW, MINUTE) != delay_of("report", NOW, MINUTE)


# ---- rules that fail


def test_a_rule_that_fails_pauses_its_repeat_and_what_was_due_is_run() -> None:
    terms = make(Failing(1))
    seen = look("x", terms, begin(terms, NOW), minute(1), NOW, 0)
    assert nominals(seen) == [1]
    reason = "its rule raised LookupError: no more"
    assert seen.progress == Progress(None, minute(1), 1, 0, True, reason)
    assert (seen.wake, seen.held) == (None, False)
    assert look("x", terms, seen.progress, minute(2), NOW, 0) == Look(seen.progress, (), None)
    assert resume(terms, seen.progress, minute(2)) == seen.progress  # it fails again
    better = make(Failing(9))
    expected = Progress(minute(3), minute(1), 1, 0)
    assert resume(better, seen.progress, minute(2)) == expected
    assert begin(better, minute(2), seen.progress, better.text) == expected


@pytest.mark.parametrize("missed", ["once", "all", "skip"])
@pytest.mark.parametrize("overlap", ["skip", "queue", "allow"])
@pytest.mark.parametrize("free", [0, None])
def test_a_rule_that_fails_at_any_question(missed: str, overlap: str, free: int | None) -> None:
    for right in range(1, 8):
        for watched in (NOW, minute(5.5)):
            rule = Failing(right)
            terms = make(rule, missed=missed, overlap=overlap)
            seen = look("x", terms, begin(terms, NOW), minute(5.5), watched, free)
            assert seen.progress.paused == (rule.right < 0)
            assert (seen.progress.reason is None) == (rule.right >= 0)
            assert not seen.progress.paused or (seen.wake, seen.held) == (None, False)
            assert [run.nominal for run in seen.runs] == sorted(run.nominal for run in seen.runs)


def test_a_rule_that_fails_at_once() -> None:
    assert begin(make(Failing(0)), NOW).reason == "its rule raised LookupError: no more"
    progress = Progress(next=minute(1), paused=True)
    assert resume(make(Failing(0)), progress, minute(3)).paused


def test_a_rule_may_have_no_more() -> None:
    class Once:
        def next(self, after: datetime) -> datetime | None:
            return START + timedelta(minutes=1) if after <= START else None

        def __str__(self) -> str:
            return "once"

    terms = make(Once())
    seen = look("x", terms, begin(terms, NOW), minute(1), NOW, 0)
    assert seen == Look(Progress(None, minute(1), 1), seen.runs, None)
    assert nominals(seen) == [1]


# ---- any history

spans = st.integers(0, 40 * 60).map(lambda tenths: tenths * SECOND // 10)
events = st.one_of(
    st.tuples(st.sampled_from(["watch", "busy", "sleep", "back", "restart"]), spans),
    st.tuples(st.sampled_from(["end", "pause", "resume"]), st.just(0)),
)


class Host:
    """A host of one repeat, which checks every look."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.now = self.watched = NOW
        self.progress = begin(terms, NOW)
        self.first = self.progress.next
        self.running = 0
        self.free = 0
        self.ran: list[int] = []

    def look(self) -> Look:
        free = None if self.running else self.free
        seen = look("x", self.terms, self.progress, self.now, self.watched, free)
        limit = min(self.watched, self.now) - GRACE - self.terms.jitter
        for run in seen.runs:
            assert run.nominal <= self.now
            assert run.nominal <= run.due <= run.nominal + self.terms.jitter
            assert not self.ran or run.nominal > self.ran[-1]
            is_missed = run.nominal < limit
            if is_missed:
                assert self.terms.missed is not Missed.SKIP
            elif self.terms.missed is not Missed.SKIP:  # late ones have their turn with those
                is_missed = run.nominal < limit + GRACE
            if self.terms.overlap is not Overlap.ALLOW or (
                is_missed and self.terms.missed is Missed.ALL
            ):
                assert not self.running
            if self.terms.overlap is Overlap.SKIP and not is_missed:
                assert run.nominal >= self.free
            self.ran.append(run.nominal)
            self.running += 1
        self.progress = seen.progress
        assert seen.held <= (self.running > 0)
        if not self.progress.paused and not seen.held and len(seen.runs) < MOST_RUNS:
            assert seen.wake == wake_of("x", self.terms, self.progress)
            assert seen.wake is None or seen.wake > self.now
        return seen

    def watch(self, until: int) -> None:
        """Let time pass, and look when due."""
        while (wake := self.look().wake) is not None and wake <= until:
            self.now = max(self.now, wake)
        self.now = until

    def happen(self, event: str, span: int) -> None:
        if event == "watch":
            self.watch(self.now + span)
        elif event == "busy":
            self.now += span
        elif event == "sleep":
            self.now += span
            self.watched = self.now
        elif event == "back":
            self.now -= span
            self.watched = self.now
        elif event == "restart":
            self.now += span
            self.watched = self.now
            self.progress = begin(self.terms, self.now, self.progress, self.terms.text)
        elif event == "end" and self.running:
            self.running -= 1
            if not self.running:
                self.free = self.now
            self.look()
        elif event == "pause":
            self.progress = pause(self.progress)
        elif event == "resume":
            self.progress = resume(self.terms, self.progress, self.now)

    def judge(self) -> None:
        """Check that every nominal time was run or skipped, except those still to come."""
        assert self.progress.ran == len(self.ran)
        assert self.progress.last == (self.ran[-1] if self.ran else None)
        if self.progress.next is not None:
            assert self.first is not None
            passed = (self.progress.next - self.first) // MINUTE
            assert passed == self.progress.ran + self.progress.skipped


@given(
    st.sampled_from([MINUTELY, Every(60, start=START), Cron("* * * * *", "UTC")]),
    st.sampled_from(Missed),
    st.sampled_from(Overlap),
    st.none() | st.integers(1, 20),
    st.sampled_from([0, 5, 90]),
    st.lists(events, max_size=40),
)
def test_any_history(
    rule: Rule,
    missed: Missed,
    overlap: Overlap,
    times: int | None,
    jitter: float,
    history: list[tuple[str, int]],
) -> None:
    terms = make(rule, missed=missed.value, overlap=overlap.value, times=times, jitter=jitter)
    host = Host(terms)
    for event, span in history:
        host.happen(event, span)
        host.judge()
    assert times is None or host.progress.ran <= times
    kinds = {event for event, _ in history}
    nothing_is_lost = overlap is not Overlap.SKIP and (
        missed is Missed.ALL or not kinds & {"sleep", "restart", "back"}
    )
    if nothing_is_lost and not kinds & {"pause"}:
        assert host.progress.skipped == 0
    # Whatever has happened, it goes on, unless it is over.
    host.happen("resume", 0)
    host.watch(host.now)
    for _ in range(2000):
        if not host.running:
            break
        host.happen("end", 0)
    if host.progress.next is not None:
        before = host.progress.ran
        host.watch(max(host.now, host.progress.next + host.terms.jitter) + 1)
        assert host.progress.ran > before
    else:
        assert host.progress.ran == times
