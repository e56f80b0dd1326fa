"""Repeats, on a stopped clock, with workers and without."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import repeated
from repeated import Own, done, gates

from aioscheduler import (
    Cron,
    Every,
    Manager,
    ManagerClosed,
    NotShippable,
    QueuedScheduler,
    Retry,
    State,
)
from aioscheduler._repeating import policy
from aioscheduler.testing import FakeClock, FakeManager

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def nothing_is_done() -> None:
    done.clear()
    gates.clear()


@pytest.fixture(params=[0, 2])
async def manager(clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[FakeManager]:
    async with clock.manager(4, workers=request.param) as manager:
        yield manager
        for gate in gates.values():
            gate.set()


def minutes(value: Any = "x") -> list[float]:
    """Return the times for which a repeat has run, in minutes."""
    return [(due - START) / MINUTE for each, due in done if due is not None and each == value]


@pytest.mark.parametrize(
    ("rule", "step", "expected"),
    [
        (Every(timedelta(days=1)), timedelta(days=1), [START + timedelta(n) for n in range(1, 11)]),
        (
            Cron("0 0 1 * *", "UTC"),
            timedelta(days=31),
            [datetime(2030, n, 1, tzinfo=UTC) for n in range(2, 12)],
        ),
        (
            Cron("0 12 29 2 *", "Europe/Berlin"),
            timedelta(days=366),
            [datetime(n, 2, 29, 11, tzinfo=UTC) for n in (2032, 2036)],
        ),
    ],
)
async def test_days_months_and_years_tick_exactly(
    manager: Manager, clock: FakeClock, rule: Any, step: timedelta, expected: list[datetime]
) -> None:
    repeat = manager.repeat(repeated.note("x"), rule, id="x")
    assert (repeat.next, repeat.last) == (expected[0], None)
    for _ in range(10):
        await clock.advance(step)
    assert done == [("x", due) for due in expected]
    assert (repeat.ran, repeat.skipped, repeat.last) == (len(expected), 0, expected[-1])
    assert len(manager) == 0


async def test_a_year_of_hours_does_not_drift(manager: Manager, clock: FakeClock) -> None:
    manager.repeat(repeated.note("x"), Every(3600), id="x")
    await clock.advance(timedelta(days=365))
    assert done == [("x", START + timedelta(hours=n)) for n in range(1, 365 * 24 + 1)]


async def test_a_run_is_a_task_from_its_time_on(manager: Manager, clock: FakeClock) -> None:
    gates["a"] = asyncio.Event()
    repeat = manager.repeat(repeated.hold("a"), Every(60), id="a", name="reports")
    assert len(manager) == 0
    await manager.join()
    await clock.advance(60)
    (info,) = [info async for info in manager.tasks()]
    assert (info.name, info.id, info.state) == ("reports", None, State.RUNNING)
    assert (repeat.running, repeat.name) == (1, "reports")
    gates["a"].set()
    await manager.join()
    await clock.advance(0)
    assert repeat.running == 0


async def test_max_tasks_does_not_refuse_runs(clock: FakeClock) -> None:
    async with clock.manager(1, 1) as manager:
        manager.schedule(repeated.note("far"), timedelta(days=1))
        manager.repeat(repeated.note("x"), Every(60), id="x")
        await clock.advance(60)
        assert minutes() == [1]


async def test_a_key_and_options_hold_for_each_run(manager: Manager, clock: FakeClock) -> None:
    retry = Retry(attempts=3, wait_initial=1, wait_exp_base=1, wait_jitter=0)
    call = repeated.retried("x", 2)
    repeat = manager.repeat(call, Every(60), id="x", key="k", retry=retry, overlap="queue")
    await clock.advance(62)
    assert minutes() == [1, 1]
    await clock.advance(60)
    assert minutes() == [1, 1, 2, 2]
    assert repeat.ran == 2


# ---- jitter


async def test_with_jitter_a_run_is_late_and_knows_its_time(
    manager: Manager, clock: FakeClock
) -> None:
    repeat = manager.repeat(repeated.note("x"), Every(60), id="x", jitter=30)
    seen: list[tuple[float, float]] = []
    for _ in range(40 * 60):
        await clock.advance(1)
        if len(done) > len(seen):
            seen.append(((clock.now() - START) / MINUTE, minutes()[-1]))
    assert [nominal for _, nominal in seen] == list(range(1, len(seen) + 1))
    late = [at - nominal for at, nominal in seen]
    assert 0 < min(late) < 0.1
    assert 0.4 < max(late) <= 0.52
    assert repeat.ran in (39, 40)


async def test_jitter_spreads_what_many_have_at_the_full_hour(
    manager: Manager, clock: FakeClock
) -> None:
    for n in range(300):
        manager.repeat(repeated.note(n), Cron("0 * * * *", "UTC"), id=str(n), jitter=600)
    await clock.advance(3600)
    counts = []
    for _ in range(10):
        before = len(done)
        await clock.advance(60)
        counts.append(len(done) - before)
    assert sum(counts) == 300
    assert max(counts) < 60
    assert {due for _, due in done} == {START + timedelta(hours=1)}


async def test_very_many_have_one_timer_and_cost_what_is_due(clock: FakeClock) -> None:
    async with clock.manager(1, workers=0) as manager:
        timers = len(clock._dues)
        for n in range(3000):
            manager.repeat(repeated.note(n), Every(10_000, start=START + n * MINUTE), id=str(n))
        assert len(clock._dues) == timers + 1
        await clock.advance(5.5 * MINUTE)
        assert [value for value, _ in done] == [1, 2, 3, 4, 5]
        assert [repeat.ran for repeat in manager.repeats()[:7]] == [0, 1, 1, 1, 1, 1, 0]


# ---- overlap


@pytest.mark.parametrize(
    ("overlap", "ran", "skipped"), [("skip", [1, 6], 4), ("queue", [1, 2], 0), ("allow", [], 0)]
)
async def test_overlap(
    manager: Manager, clock: FakeClock, overlap: Any, ran: list[int], skipped: int
) -> None:
    gates["x"] = asyncio.Event()
    repeat = manager.repeat(repeated.hold("x"), Every(60), id="x", overlap=overlap)
    await clock.advance(5 * MINUTE)
    assert minutes() == ([1] if ran else [1, 2, 3, 4, 5])
    gates["x"].set()
    await clock.advance(0)
    if overlap == "queue":
        assert minutes() == [1, 2, 3, 4, 5]  # one after another, each at once
    await clock.advance(MINUTE)
    assert repeat.skipped == skipped
    assert minutes()[-1] == 6
    assert repeat.running == 0


async def test_what_waits_in_a_queue_begins_when_the_one_before_has_ended(
    manager: Manager, clock: FakeClock
) -> None:
    gates["x"] = asyncio.Event()
    repeat = manager.repeat(repeated.hold("x"), Every(60), id="x", overlap="queue")
    await clock.advance(3 * MINUTE)
    assert repeat.next == START + 2 * MINUTE
    for task in tuple(repeat._runs):
        task.cancel()
    await clock.advance(0)
    assert minutes() == [1, 2]


async def test_skips_are_told_once_a_minute(
    manager: Manager, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    gates["x"] = asyncio.Event()
    for n in range(12):
        manager.repeat(repeated.hold("x"), Every(1), id=f"x{n}")
    repeats = manager._fleet.repeats
    repeats.look_after()
    await clock.advance(59)
    repeats.look_after()
    assert not caplog.messages
    await clock.advance(1)
    repeats.look_after()
    repeats.look_after()
    assert len(caplog.messages) == 1
    assert "'x0' 59, 'x1' 59" in caplog.messages[0]
    assert ", and 2 more" in caplog.messages[0]
    await clock.advance(59)
    repeats.look_after()
    assert len(caplog.messages) == 1
    await clock.advance(1)
    repeats.look_after()
    assert "'x0' 60" in caplog.messages[1]


async def test_repeats_are_counted_in_the_figures(manager: Manager, clock: FakeClock) -> None:
    gates["x"] = asyncio.Event()
    manager.repeat(repeated.hold("x"), Every(60), id="x")
    paused = manager.repeat(repeated.note("y"), Every(3600), id="y")
    manager.repeat(repeated.note("z"), Every(100), id="z")
    await paused.pause()
    await clock.advance(5 * MINUTE)
    stats = manager.stats()
    assert (stats.repeats, stats.repeats_paused) == (3, 1)
    assert (stats.repeats_ran, stats.repeats_skipped) == (4, 4)
    shown = manager._fleet.repeats.shown()
    assert [told["id"] for told in shown] == ["y", "x", "z"]
    assert shown[1] == {
        "id": "x",
        "rule": "every 0:01:00",
        "name": "repeated:hold",
        "reason": None,
        "next": "2030-01-01T00:06:00+00:00",
        "last": "2030-01-01T00:01:00+00:00",
        "ran": 1,
        "skipped": 4,
        "running": 1,
        "paused": False,
    }
    await paused.resume()
    assert manager.stats().repeats_paused == 0
    await paused.pause()
    await paused.cancel()
    assert (manager.stats().repeats, manager.stats().repeats_paused) == (2, 0)


# ---- missed times


async def test_what_passes_before_the_start_is_missed(clock: FakeClock) -> None:
    manager = clock.manager(workers=0)
    kinds: list[Any] = ["once", "all", "skip"]
    for missed in kinds:
        manager.repeat(repeated.note(missed), Every(60), id=missed, missed=missed)
    clock._now += int(5.5 * 60 * 10**9)
    manager.start()
    await manager.ready()
    await clock.advance(0)
    assert [minutes(missed) for missed in kinds] == [[5], [1, 2, 3, 4, 5], []]
    await clock.advance(30)
    assert [minutes(missed)[-1] for missed in kinds] == [6, 6, 6]
    assert [repeat.skipped for repeat in manager.repeats()] == [4, 0, 5]
    await manager.close()


async def test_max_lateness_limits_what_is_made_up_for(
    clock: FakeClock, reports: list[dict[str, Any]]
) -> None:
    done.clear()
    manager = clock.manager(workers=0)
    for lateness in (20, 40):
        call = repeated.note(lateness)
        manager.repeat(call, Every(60), id=str(lateness), max_lateness=lateness)
    clock._now += int(5.5 * 60 * 10**9)
    async with manager:
        await clock.advance(0)
        assert [minutes(20), minutes(40)] == [[], [5]]
        assert manager.stats().too_late == 1
    assert "30.000 s late" in str(reports.pop()["exception"])


# ---- until, times


async def test_until_and_times_end_it(manager: Manager, clock: FakeClock) -> None:
    until = manager.repeat(repeated.note("u"), Every(60), id="u", until=START + 3 * MINUTE)
    times = manager.repeat(repeated.note("t"), Every(60), id="t", times=2)
    own = manager.repeat(repeated.note("o"), Own(1, until=START + MINUTE), id="o")
    await clock.advance(10 * MINUTE)
    assert [minutes("u"), minutes("t"), minutes("o")] == [[1, 2, 3], [1, 2], [1]]
    assert [repeat.next for repeat in manager.repeats()] == [None] * 3
    assert [repeat.paused for repeat in (until, times, own)] == [False] * 3
    # Made again, as at each start of a program, they are unchanged.
    manager.repeat(repeated.note("t"), Every(60), id="t", times=2)
    assert times.next is None


# ---- requests


async def test_the_same_id_replaces_what_it_does(manager: Manager, clock: FakeClock) -> None:
    repeat = manager.repeat(repeated.note("a"), Every(60), id="x")
    await clock.advance(90)
    assert manager.repeat(repeated.note("b"), Every(60), id="x") is repeat
    assert repeat.next == START + 2 * MINUTE
    await clock.advance(30)
    assert [minutes("a"), minutes("b")] == [[1], [2]]
    manager.repeat(repeated.note("b"), Every(3600), id="x")
    assert (repeat.rule, repeat.ran) == ("every 1:00:00", 2)
    assert repeat.next == START + timedelta(hours=1, minutes=2)
    assert manager.repeats() == [repeat]
    await clock.advance(3600)
    assert minutes("b") == [2, 62]


async def test_a_pause_stands_still_and_what_passes_is_skipped(
    manager: Manager, clock: FakeClock
) -> None:
    repeat = manager.repeat(repeated.note("x"), Every(60), id="x")
    await clock.advance(60)
    await repeat.pause()
    assert repeat.paused
    await clock.advance(3 * MINUTE)
    assert minutes() == [1]
    await repeat.resume()
    await repeat.resume()
    assert (repeat.paused, repeat.next, repeat.skipped) == (False, START + 5 * MINUTE, 3)
    await clock.advance(MINUTE)
    assert minutes() == [1, 5]


async def test_a_pause_lets_what_waits_in_a_queue_wait(manager: Manager, clock: FakeClock) -> None:
    gates["x"] = asyncio.Event()
    repeat = manager.repeat(repeated.hold("x"), Every(60), id="x", overlap="queue")
    await clock.advance(3 * MINUTE)
    await repeat.pause()
    gates["x"].set()
    await clock.advance(MINUTE)
    assert minutes() == [1]
    await repeat.resume()
    await clock.advance(MINUTE)
    assert minutes() == [1, 5]


async def test_cancelled_it_is_gone_and_its_id_is_free(manager: Manager, clock: FakeClock) -> None:
    gates["x"] = asyncio.Event()
    repeat = manager.repeat(repeated.hold("x"), Every(60), id="x", overlap="queue")
    await clock.advance(2 * MINUTE)
    await repeat.cancel()
    await repeat.cancel()
    assert (manager.repeats(), repeat.next) == ([], None)
    for call in (repeat.pause(), repeat.resume()):
        with pytest.raises(RuntimeError, match=r"'x' was cancelled; start it again with manager\."):
            await call
    (info,) = [info async for info in manager.tasks()]
    assert info.state is State.RUNNING
    other = manager.repeat(repeated.note("y"), Every(60), id="x")
    gates["x"].set()
    await clock.advance(MINUTE)
    assert [minutes(), minutes("y")] == [[1], [3]]
    assert (other.ran, repeat.ran) == (1, 1)


class Twice:
    """A rule with two times."""

    def next(self, after: datetime) -> datetime | None:
        return after + MINUTE if after < START + 2 * MINUTE else None

    def __str__(self) -> str:
        return "twice"


@pytest.mark.parametrize(
    ("rule", "limits", "more", "end"),
    [
        (
            Every(60),
            {"times": 2},
            {"times": 3},
            "as its times=2 are used up; start it again with manager.repeat() and more times",
        ),
        (
            Every(60),
            {"until": START + 2 * MINUTE},
            {"until": START + 4 * MINUTE},
            "as its rule has no more times until 2030-01-01 00:02:00+00:00; start it again with "
            "manager.repeat() and a later until",
        ),
        (
            Twice(),
            {},
            {},
            "as its rule has no more times; start it again with manager.repeat() and another rule",
        ),
    ],
)
async def test_one_that_has_ended_is_neither_paused_nor_resumed(
    manager: Manager, clock: FakeClock, rule: Any, limits: Any, more: Any, end: str
) -> None:
    repeat = manager.repeat(repeated.note("x"), rule, id="x", **limits)
    await clock.advance(2 * MINUTE)
    assert (minutes(), repeat.next) == ([1, 2], None)
    for call in (repeat.pause(), repeat.resume()):
        with pytest.raises(RuntimeError) as caught:
            await call
        assert str(caught.value) == f"the repeat 'x' has ended, {end}"
    assert not repeat.paused
    manager.repeat(repeated.note("x"), Every(60), id="x", **more)
    await clock.advance(MINUTE)
    assert minutes() == [1, 2, 3]
    await repeat.cancel()
    with pytest.raises(RuntimeError, match="'x' was cancelled"):
        await repeat.resume()


async def test_a_run_that_waits_is_cancelled_with_its_repeat(
    clock: FakeClock,
) -> None:
    done.clear()
    async with clock.manager(1, workers=0, max_running=1) as manager:
        gates["a"] = asyncio.Event()
        manager.schedule(repeated.hold("a"))
        repeat = manager.repeat(repeated.note("x"), Every(60), id="x")
        await clock.advance(60)
        assert (len(manager), repeat.running) == (1, 1)
        await repeat.cancel()
        assert len(manager) == 0
        gates["a"].set()
        await manager.join()
        assert minutes() == []


# ---- what goes wrong


async def fail() -> None:
    raise KeyError(5)


async def test_the_report_of_a_run_that_failed_names_its_repeat(
    manager: Manager, clock: FakeClock, reports: list[dict[str, Any]]
) -> None:
    """In memory a run has no id of its own."""
    for id_ in ("a", "b"):
        repeat = manager.repeat(fail(), Every(60), id=id_, name="fails")
    await clock.advance(MINUTE)
    for report, id_ in zip(reports, "ab", strict=True):
        whose = report["scheduled_task"]
        assert whose == {"name": "fails", "id": None, "ref": whose["ref"], "repeat": id_}
        assert report["message"] == (
            f"<Task fails {whose['ref']} failed due 2030-01-01 00:01:00+00:00>, "
            f"a run of the repeat {id_!r}: its failure was never awaited"
        )
        assert isinstance(report["exception"], KeyError)
    reports.clear()
    assert (len(manager), repeat.running) == (0, 0)


async def test_a_rule_that_fails_pauses_its_repeat_alone(
    manager: Manager, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    bad = manager.repeat(repeated.note("x"), Own(1, fails=START + 2 * MINUTE), id="x")
    manager.repeat(repeated.note("y"), Every(60), id="y")
    await clock.advance(4 * MINUTE)
    assert [minutes(), minutes("y")] == [[1, 2], [1, 2, 3, 4]]
    assert (bad.paused, bad.reason) == (True, "its rule raised LookupError: no more")
    (message,) = caplog.messages
    assert message.startswith("the repeat 'x' is paused, for its rule raised LookupError: no more")
    await bad.resume()
    assert bad.paused  # it fails again, which is not reported again
    assert len(caplog.messages) == 1
    manager.repeat(repeated.note("x"), Every(60), id="x")
    await clock.advance(MINUTE)
    assert minutes() == [1, 2, 5]


async def test_a_rule_that_fails_at_once_is_reported(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    repeat = manager.repeat(repeated.note("x"), Own(1, fails=START), id="x")
    assert repeat.paused
    assert "'x' is paused, for its rule raised" in caplog.messages[0]


async def test_a_run_that_fails_is_reported_and_the_next_one_comes(
    manager: Manager, clock: FakeClock, reports: list[dict[str, Any]]
) -> None:
    repeat = manager.repeat(repeated.fail("x"), Every(60), id="x")
    await clock.advance(2 * MINUTE)
    assert minutes() == [1, 2]
    assert repeat.running == 0
    assert [str(report["exception"]) for report in reports] == ["no x", "no x"]
    reports.clear()


async def test_what_cannot_be_called_any_more_pauses_it(
    manager: Manager, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    repeat = manager.repeat(repeated.note("x"), Every(60), id="x")
    other = manager.repeat(repeated.note("y"), Every(60), id="y")

    class Broken:
        key = None
        name = "broken"

        def make(self, *_: object) -> None:
            raise NotShippable("a global of it")

    repeat._work = Broken()
    await clock.advance(MINUTE)
    assert (repeat.paused, repeat.ran, other.ran) == (True, 0, 1)
    assert "its call cannot be made any more: NotShippable('a global of it')" in str(repeat.reason)
    assert [message for message in caplog.messages if "NotShippable" in message]


async def test_whatever_goes_wrong_with_one_others_go_on(
    manager: Manager,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def look(id_: str, *rest: Any) -> Any:
        if id_ == "x":
            raise MemoryError("no room")
        return real(id_, *rest)

    real = policy.look
    monkeypatch.setattr("aioscheduler._routing.repeats.look", look)
    repeat = manager.repeat(repeated.note("x"), Every(60), id="x")
    manager.repeat(repeated.note("y"), Every(60), id="y")
    with caplog.at_level(logging.CRITICAL):
        await clock.advance(2 * MINUTE)
    assert [minutes(), minutes("y")] == [[], [1, 2]]
    assert "could not be looked at: MemoryError('no room')" in str(repeat.reason)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"id": ""}, ValueError, "id must not be empty"),
        ({"id": 5}, TypeError, "id is a str"),
        ({"rule": 60}, TypeError, "a rule is Every"),
        ({"jitter": -1}, ValueError, "jitter"),
        ({"times": 0}, ValueError, "times is 1 or more"),
        ({"missed": "never"}, ValueError, "missed is one of"),
        ({"overlap": "no"}, ValueError, "overlap is one of"),
        ({"until": START.replace(tzinfo=None)}, ValueError, "until is naive"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"when": 5}, TypeError, "there is no option 'when' here"),
        ({"key": 1.5}, TypeError, "key"),
        ({"coro": repeated.note}, TypeError, r"note is the function: call it, repeat\(note"),
        ({"coro": 5}, TypeError, r"repeat\(\) takes a coroutine such as work\(1\), not int"),
    ],
)
async def test_invalid_arguments_are_refused(
    manager: Manager, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"rule": Every(60), "id": "x"} | arguments
    coro = given.pop("coro") if "coro" in given else repeated.note("x")
    with pytest.raises(error, match=message):
        manager.repeat(coro, given.pop("rule"), **given)
    assert manager.repeats() == []


async def test_a_queue_has_no_times(clock: FakeClock) -> None:
    async with clock.manager(cls=QueuedScheduler, workers=0) as manager:
        with pytest.raises(TypeError, match="a queue runs tasks in turn, and has no times"):
            manager.repeat(repeated.note("x"), Every(60), id="x")


async def test_a_closed_manager_accepts_no_repeat_and_enters_no_run(clock: FakeClock) -> None:
    async with clock.manager(workers=0) as manager:
        repeat = manager.repeat(repeated.note("x"), Every(60), id="x")
    await clock.advance(5 * MINUTE)
    assert minutes() == []
    with pytest.raises(ManagerClosed):
        manager.repeat(repeated.note("x"), Every(60), id="y")
    for call in (repeat.pause(), repeat.resume(), repeat.cancel()):
        with pytest.raises(ManagerClosed):
            await call


async def test_a_manager_that_has_failed_enters_no_run(clock: FakeClock) -> None:
    manager = clock.manager(workers=0)
    async with manager:
        repeat = manager.repeat(repeated.note("x"), Every(60), id="x")
        manager._router.closed = ManagerClosed("it has failed")
        await clock.advance(MINUTE)
        assert (minutes(), repeat.ran) == ([], 0)


async def test_what_takes_long_is_done_in_many_turns(clock: FakeClock) -> None:
    """Skipping a thousand times of a cron expression takes as long as hundreds of runs."""
    manager = clock.manager(1, workers=0)
    for n in range(6):
        manager.repeat(repeated.note(n), Cron(f"{n}-59 * * * *", "UTC"), id=str(n), missed="skip")
    clock._now += 40 * 24 * 3600 * 10**9
    turns: list[int] = []
    async with manager:
        for _ in range(50):
            turns.append(sum(repeat.skipped > 0 for repeat in manager.repeats()))
            await asyncio.sleep(0)
        await clock.advance(0)
        assert [repeat.skipped for repeat in manager.repeats()] == [1000] * 6
    assert {after - before for before, after in pairwise(turns)} <= {0, 1, 2}
