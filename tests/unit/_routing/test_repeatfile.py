"""Repeats that outlast their host, on a stopped clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import repeated
from repeated import Own, done, gates

from aioscheduler import Cron, Every, Manager, ManagerClosed, SQLiteStore, StoreError, registry
from aioscheduler._durable.records import Batch, Function, Row
from aioscheduler._durable.repeatrecords import RepeatRow
from aioscheduler._repeating.policy import Progress, delay_of
from aioscheduler._repeating.terms import read_terms
from aioscheduler._routing.repeatfile import RepeatFile, Unknown, read_terms_of, write_terms
from aioscheduler._scheduling.clock import SECOND, to_ns
from aioscheduler._transport import wire
from aioscheduler.rules import Rule
from aioscheduler.testing import FakeClock, FakeManager

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Hosts = Callable[[], Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a store; nothing has run yet."""
    done.clear()
    gates.clear()
    return tmp_path / "tasks.db"


@pytest.fixture(params=[0, 2])
def hosts(clock: FakeClock, request: pytest.FixtureRequest, path: Path) -> Hosts:
    """Make hosts that follow one another on one store."""

    @asynccontextmanager
    async def host() -> AsyncIterator[FakeManager]:
        manager = clock.manager(2, workers=request.param, store=path)
        async with manager:
            yield manager
            await manager.close(0)

    return host


@contextmanager
def between_hosts(path: Path) -> Iterator[tuple[SQLiteStore, dict[str, RepeatRow]]]:
    """Provide the store, and its repeats by id, for changes while no host runs."""
    store = SQLiteStore(path)
    yield store, {row.id: row for row in store.open().repeats}
    store.close(True)


def down(clock: FakeClock, minutes: float) -> None:
    """Let time pass without a host."""
    clock._now += int(minutes * 60 * SECOND)


def minutes(value: Any = "x") -> list[float]:
    return [(due - START) / MINUTE for each, due in done if due is not None and each == value]


async def only(manager: Manager) -> Any:
    (repeat,) = manager.repeats()
    return repeat


# ---- going on in the next host


async def test_a_repeat_outlasts_its_host_without_being_made_again(
    hosts: Hosts, clock: FakeClock
) -> None:
    async with hosts() as manager:
        repeat = manager.repeat(repeated.kept("x"), Every(60), id="x", key="k", name="notes")
        await clock.advance(2.5 * MINUTE)
        assert (minutes(), manager.stats().stored) == ([1, 2], 0)
        await manager.sync()
    down(clock, 0.2)
    async with hosts() as manager:
        repeat = await only(manager)
        assert (repeat.id, repeat.rule, repeat.name) == ("x", "every 0:01:00", "notes")
        assert (repeat.ran, repeat.last) == (2, START + 2 * MINUTE)
        assert repeat.next == START + 3 * MINUTE
        assert repeat._work.key == "k"
        await clock.advance(2 * MINUTE)
        assert minutes() == [1, 2, 3, 4]


async def test_it_is_asked_for_again_at_each_start(hosts: Hosts, clock: FakeClock) -> None:
    for _ in range(6):  # deployed more often than the repeat is due
        async with hosts() as manager:
            manager.repeat(repeated.kept("x"), Every(1500), id="x")
            await clock.advance(10 * MINUTE)
    assert minutes() == [25, 50]


@pytest.mark.parametrize(
    ("missed", "expected", "skipped"),
    [("once", [1, 9], 7), ("all", [1, *range(2, 10)], 0), ("skip", [1], 8)],
)
async def test_what_passed_while_no_host_ran(
    hosts: Hosts, clock: FakeClock, missed: Any, expected: list[int], skipped: int
) -> None:
    async with hosts() as manager:
        manager.repeat(repeated.kept("x"), Every(60), id="x", missed=missed)
        await clock.advance(1.5 * MINUTE)
    down(clock, 8)
    async with hosts() as manager:
        await clock.advance(1)
        repeat = await only(manager)
        assert (minutes(), repeat.skipped) == (expected, skipped)
        await clock.advance(MINUTE)
        assert minutes() == [*expected, 10]


async def test_max_lateness_of_a_durable_function_is_a_dead_letter(
    hosts: Hosts, clock: FakeClock
) -> None:
    async with hosts() as manager:
        manager.repeat(repeated.kept_late("x"), Every(6000), id="x")
    down(clock, 170)
    async with hosts() as manager:
        await clock.advance(0)
        letters = [(letter.reason, letter.id) async for letter in manager.dead_letters()]
        assert letters == [("too_late", "↻x 2030-01-01T01:40:00+00:00")]
        assert minutes() == []


async def test_its_end_is_kept(hosts: Hosts, clock: FakeClock) -> None:
    async with hosts() as manager:
        manager.repeat(repeated.kept("x"), Every(60), id="x", times=2)
        await clock.advance(5 * MINUTE)
    async with hosts() as manager:
        repeat = manager.repeat(repeated.kept("x"), Every(60), id="x", times=2)
        await clock.advance(5 * MINUTE)
        assert (minutes(), repeat.next, repeat.ran) == ([1, 2], None, 2)


async def test_jitter_is_not_thrown_again(hosts: Hosts, clock: FakeClock) -> None:
    delay = delay_of("x", to_ns(START + timedelta(hours=1), 0), 3000 * SECOND) / SECOND
    assert 100 < delay < 2900
    async with hosts() as manager:
        manager.repeat(repeated.kept("x"), Every(3600), id="x", jitter=3000, missed="skip")
        await clock.advance(3600 + 20)
        assert minutes() == []
    down(clock, 1)
    async with hosts() as manager:
        await clock.advance(delay - 81)
        assert minutes() == []
        await clock.advance(2)
        assert minutes() == [60]


# ---- its runs


async def test_a_run_is_in_the_file_under_its_own_id(hosts: Hosts, clock: FakeClock) -> None:
    gates["x"] = asyncio.Event()
    async with hosts() as manager:
        repeat = manager.repeat(repeated.kept_hold("x"), Every(60), id="x")
        own = manager.schedule(repeated.kept("own"), timedelta(days=1), id="x")
        await clock.advance(61)
        await manager.sync()
        assert (len(manager), manager.stats().stored, own.id) == (1, 2, "x")
        run = await manager.find("↻x 2030-01-01T00:01:00+00:00")
        assert run is not None
        assert repeat.running == 1
        gates["x"].set()
        await run
        await clock.advance(0)
        assert repeat.running == 0
        own.cancel()


@pytest.mark.parametrize(
    ("overlap", "expected"), [("skip", [1, 1, 5]), ("queue", [1, 1, 2, 3, 4, 5]), ("allow", None)]
)
async def test_a_run_of_the_host_before_is_its_run(
    hosts: Hosts, clock: FakeClock, overlap: Any, expected: list[int] | None
) -> None:
    gates["x"] = asyncio.Event()
    async with hosts() as manager:
        manager.repeat(repeated.kept_hold("x"), Every(60), id="x", overlap=overlap)
        await clock.advance(61)
    down(clock, 1)
    async with hosts() as manager:
        await clock.advance(130)
        repeat = await only(manager)
        if expected is None:
            assert minutes() == [1, 1, 2, 3, 4]
        else:
            assert minutes() == [1, 1]
            assert repeat.running == 1
        gates["x"].set()
        await clock.advance(60)
        if expected is not None:
            assert minutes() == expected


async def test_with_jitter_a_run_sees_its_nominal_time_in_the_next_host_too(
    hosts: Hosts, clock: FakeClock
) -> None:
    gates["x"] = asyncio.Event()
    async with hosts() as manager:
        manager.repeat(repeated.kept_hold("x"), Every(60), id="x", jitter=30)
        await clock.advance(91)
    gates["x"].set()
    async with hosts() as manager:
        await clock.advance(0)
    assert minutes() == [1, 1]


async def test_one_that_must_not_run_twice_and_one_that_is_retried(
    hosts: Hosts, clock: FakeClock
) -> None:
    async with hosts() as manager:
        manager.repeat(repeated.kept_once("x"), Every(60), id="x")
        manager.repeat(repeated.kept_retried("y", 3), Every(3600), id="y", overlap="queue")
        await clock.advance(3 * MINUTE)
        assert minutes() == [1, 2, 3]
        await clock.advance(3600)
        assert minutes("y") == [60, 60, 60]
        assert manager.stats().dead_letters == 0


# ---- requests


async def test_a_pause_outlives_the_host(hosts: Hosts, clock: FakeClock) -> None:
    async with hosts() as manager:
        repeat = manager.repeat(repeated.kept("x"), Every(60), id="x")
        await repeat.pause()
        assert manager.stats().unsaved == 0
    down(clock, 5)
    async with hosts() as manager:
        repeat = manager.repeat(repeated.kept("x"), Every(60), id="x")
        await clock.advance(MINUTE)
        assert repeat.paused
        await repeat.resume()
    async with hosts() as manager:
        repeat = await only(manager)
        assert (repeat.paused, repeat.skipped) == (False, 6)
        await clock.advance(MINUTE)
        assert minutes() == [7]


async def test_cancelled_it_is_gone_from_the_file(hosts: Hosts, clock: FakeClock) -> None:
    async with hosts() as manager:
        repeat = manager.repeat(repeated.kept("x"), Every(60), id="x")
        await repeat.cancel()
        assert manager.stats().unsaved == 0
        await manager.repeat(repeated.kept("y"), Every(60), id="y").pause()
    async with hosts() as manager:
        assert [repeat.id for repeat in manager.repeats()] == ["y"]
        await clock.advance(5 * MINUTE)
        assert minutes() == []


async def test_what_is_asked_before_the_file_is_open_waits_for_that(
    clock: FakeClock, path: Path
) -> None:
    async with clock.manager(workers=0, store=path) as manager:
        manager.repeat(repeated.kept("x"), Every(60), id="x")
        await clock.advance(90)
    manager = clock.manager(workers=0, store=path)
    again = manager.repeat(repeated.kept("z"), Every(60), id="x")
    other = manager.repeat(repeated.kept("y"), Every(60), id="y")
    manager.start()
    await asyncio.gather(other.cancel(), other.cancel(), again.pause())
    assert (again.ran, again.paused, again.next) == (1, True, START + 2 * MINUTE)
    assert manager.repeats() == [again]
    await again.resume()
    await clock.advance(30)
    assert minutes("z") == [2]
    await manager.close()


async def test_a_task_replaced_by_one_in_memory_leaves_the_file(
    hosts: Hosts, clock: FakeClock
) -> None:
    async with hosts() as manager:
        for id_ in "ab":
            manager.repeat(repeated.kept("x"), Every(60), id=id_)
        await clock.advance(MINUTE)
        manager.repeat(repeated.note("y"), Every(60), id="a")
        await clock.advance(MINUTE)
        assert (minutes(), minutes("y")) == ([1, 1, 2], [2])
    manager = None
    async with hosts() as manager:
        assert [repeat.id for repeat in manager.repeats()] == ["b"]
        manager.repeat(repeated.note("y"), Every(60), id="b")
        manager.repeat(repeated.kept("x"), Every(60), id="a")
    async with hosts() as manager:
        assert [repeat.id for repeat in manager.repeats()] == ["a"]


async def test_one_in_memory_is_replaced_by_one_that_is_kept(
    hosts: Hosts, clock: FakeClock
) -> None:
    async with hosts() as manager:
        manager.repeat(repeated.note("y"), Every(60), id="a")
        await clock.advance(MINUTE)
        manager.repeat(repeated.kept("x"), Every(60), id="a")
    async with hosts() as manager:
        assert ((await only(manager)).ran, minutes("y")) == (1, [1])


# ---- very many are read in many turns


@pytest.fixture
async def half_read(
    clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FakeManager]:
    """A manager that has read some of its forty repeats, whose ids are their numbers."""
    async with clock.manager(workers=0, store=path) as manager:
        for n in range(10, 50):
            manager.repeat(repeated.kept(n), Every(60), id=str(n))
        await clock.advance(MINUTE)
    done.clear()
    monkeypatch.setattr("aioscheduler._routing.repeatfile.SLICE", 2)
    manager = clock.manager(workers=0, store=path)
    manager.start()
    while not manager.repeats():
        await asyncio.sleep(0)
    assert len(manager.repeats()) <= 4
    yield manager
    await manager.close()


async def test_the_loop_turns_while_they_are_read(half_read: FakeManager, clock: FakeClock) -> None:
    seen = []
    while not half_read._fleet.repeats._read.done():  # type: ignore[union-attr]
        seen.append(len(half_read.repeats()))
        await asyncio.sleep(0)
    assert {after - before for before, after in pairwise(seen)} <= {0, 1, 2}
    await half_read.ready()
    assert [repeat.id for repeat in half_read.repeats()] == [str(n) for n in range(10, 50)]
    assert done == []
    await clock.advance(MINUTE)
    assert sorted(value for value, _ in done) == list(range(10, 50))


async def test_what_is_asked_while_they_are_read_holds(
    half_read: FakeManager, clock: FakeClock, path: Path
) -> None:
    first, last = "10", "49"
    known = half_read.repeats()[0]
    assert known.id == first
    for id_ in (first, last):
        half_read.repeat(repeated.kept(f"new {id_}"), Every(60), id=id_)
    half_read.repeat(repeated.note("in memory"), Every(60), id="48")
    gone = half_read.repeat(repeated.note("never"), Every(60), id="47")
    await gone.cancel()
    await asyncio.gather(known.pause(), half_read.repeats()[1].cancel())
    assert len(half_read.repeats()) == 38
    assert {repeat.ran for repeat in half_read.repeats()} == {1}
    await clock.advance(MINUTE)
    ran = {value for value, _ in done}
    assert ran == {*range(12, 47), "new 49", "in memory"}
    await half_read.close()
    with between_hosts(path) as (_, rows):
        assert rows.keys() == {str(n) for n in range(10, 50)} - {"11", "47", "48"}
        assert rows[first].paused


async def test_a_cancelled_repeat_may_begin_again_before_the_file_is_read(
    half_read: FakeManager, clock: FakeClock
) -> None:
    await half_read.repeat(repeated.note("never"), Every(60), id="47").cancel()
    again = half_read.repeat(repeated.kept("anew"), Every(60), id="47")
    await half_read.sync()
    assert half_read.stats().unsaved == 0
    assert (again.ran, len(half_read.repeats())) == (0, 40)
    await clock.advance(MINUTE)
    assert {value for value, _ in done} == {*range(10, 50), "anew"} - {47}


async def test_a_backup_has_what_was_asked_for_while_they_are_read(
    half_read: FakeManager, tmp_path: Path
) -> None:
    half_read.repeat(repeated.kept("new"), Every(60), id="new")
    await half_read.backup(tmp_path / "copy.db")
    with between_hosts(tmp_path / "copy.db") as (_, rows):
        assert rows.keys() == {"new", *(str(n) for n in range(10, 50))}


async def test_an_error_while_repeats_are_read_is_raised_by_ready(
    clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(*_: object) -> Iterator[None]:
        yield
        raise MemoryError("no room")

    monkeypatch.setattr(RepeatFile, "restore", restore)
    manager = clock.manager(workers=0, store=path)
    manager.start()
    for waiting in (manager.ready(), manager.sync()):
        with pytest.raises(MemoryError, match="no room"):
            await waiting
    await manager.close()


async def test_who_closes_it_while_they_are_read_waits_for_nothing(
    half_read: FakeManager, path: Path
) -> None:
    waiting = asyncio.ensure_future(half_read.ready())
    half_read.repeat(repeated.kept("new"), Every(60), id="new")
    await half_read.close()
    with suppress(ManagerClosed):  # if it was closed before all had been read
        await waiting
    with between_hosts(path) as (_, rows):
        assert rows.keys() == {"new", *(str(n) for n in range(10, 50))}


# ---- rules


async def test_a_rule_that_the_file_cannot_keep_is_given_again(
    hosts: Hosts, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosts() as manager:
        manager.repeat(repeated.kept("x"), Own(1), id="x")
        await clock.advance(1.5 * MINUTE)
    async with hosts() as manager:
        repeat = await only(manager)
        assert repeat.reason is not None
        assert (repeat.paused, repeat.rule, repeat.next) == (False, "own 1", START + 2 * MINUTE)
        with pytest.raises(RuntimeError, match="cannot be resumed yet: its rule is an object"):
            await repeat.resume()
        repeats = manager._fleet.repeats
        for _ in range(3):
            await clock.advance(1.6 * MINUTE)
            repeats.look_after()
        told = [message for message in caplog.messages if "stand still" in message]
        assert told == [
            "repeats stand still, as the file does not have their rules, which are objects of "
            "the program: 'x'; they go on when manager.repeat() is called with their ids"
        ]
        assert minutes() == [1]
        again = manager.repeat(repeated.kept("x"), Own(1), id="x")
        await clock.advance(0)
        # Times without a rule were missed: one run for the latest of them.
        assert (again is repeat, again.reason, minutes()) == (True, None, [1, 6])
        await clock.advance(MINUTE)
        assert minutes() == [1, 6, 7]


EAST = timezone(timedelta(hours=3))


@pytest.mark.parametrize(
    ("rule", "known"),
    [
        (Every(0.5), True),
        (Every(timedelta.max), True),
        (Every(60, start=START), True),
        (Every(60, start=datetime(2030, 1, 1, 3, tzinfo=EAST)), True),
        (Cron("0 9 * * 1-5", "Europe/Berlin"), True),
        (Cron("0 9 * * 1-5", UTC), True),
        (Cron("0 9 * * 1-5", EAST), False),
        (Own(1), False),
    ],
)
def test_terms_come_back(rule: Rule, known: bool) -> None:
    asked: dict[str, Any] = {"missed": "all", "overlap": "allow", "jitter": 1e10, "times": 5}
    terms = read_terms(rule, until=datetime(2100, 1, 1, tzinfo=UTC), **asked)
    row = RepeatRow("x", terms.text, write_terms(terms), 1, b"")
    found, rule_known = read_terms_of(row)
    assert rule_known is known
    assert str(found.rule) == str(rule) == found.text
    assert (found.rule == rule) is known
    assert replace(found, rule=terms.rule) == terms


def test_a_rule_that_is_not_known_gives_no_time() -> None:
    with pytest.raises(LookupError, match="not known in this program yet"):
        Unknown("own").next(START)


def test_a_zone_that_is_not_on_this_machine_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    plain = ["cron", "0 9 * * *", "Mars/Olympus"]
    row = RepeatRow("x", "cron", wire.pack([plain, "once", "skip", 0, None, None]), 1, b"")
    _, known = read_terms_of(row)
    assert not known
    assert "there is no time zone 'Mars/Olympus'" in caplog.text


# ---- faults of the file


async def test_one_that_cannot_be_read_does_not_hold_up_others(
    clock: FakeClock, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with clock.manager(workers=0, store=path) as manager:
        manager.repeat(repeated.kept("x"), Every(60), id="x")
        manager.repeat(repeated.kept("y"), Every(60), id="y")
    with between_hosts(path) as (store, good):
        bad = [good["x"]._replace(terms=b"?"), good["x"]._replace(id="f", function=9)]
        store.commit(Batch(repeats=bad))
    async with clock.manager(workers=0, store=path) as manager:
        assert [repeat.id for repeat in manager.repeats()] == ["y"]
        assert "the repeat 'x' of" in caplog.text
        assert "LookupError('the file has no function with the number 9')" in caplog.text
        manager.repeat(repeated.kept("x"), Every(60), id="x")
        await clock.advance(MINUTE)
        assert (minutes(), minutes("y")) == ([1], [1])


async def test_a_run_that_is_there_already_is_not_entered_again(
    clock: FakeClock, path: Path
) -> None:
    """A host could write only part of a batch, and died before the rest."""
    async with clock.manager(workers=0, store=path) as manager:
        manager.repeat(repeated.kept("x"), Every(60), id="x", overlap="allow")
    with between_hosts(path) as (store, rows):
        due, id_ = to_ns(START + MINUTE, 0), "↻x 2030-01-01T00:01:00+00:00"
        run = Row(900, due, rows["x"].function, rows["x"].payload, id=id_)
        store.commit(Batch(puts=[run]))
    async with clock.manager(workers=0, store=path) as manager:
        await clock.advance(3 * MINUTE)
        assert (minutes(), (await only(manager)).ran) == ([1, 2, 3], 3)


async def test_while_nothing_can_be_written_runs_are_late(
    hosts: Hosts, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts() as manager:
        repeat = manager.repeat(repeated.kept("x"), Every(60), id="x", overlap="queue")
        await manager.sync()
        commits = manager._router.keeper.commits

        def check_room() -> None:
            raise StoreError("the disk is full")

        with monkeypatch.context() as full:
            full.setattr(commits, "check_room", check_room)
            await clock.advance(2.5 * MINUTE)
            assert (minutes(), repeat.ran) == ([], 0)
        await clock.advance(1)
        assert minutes() == [1, 2]


async def test_a_function_of_a_script_is_waited_for(
    clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with clock.manager(workers=0, store=path) as manager:
        manager.repeat(repeated.kept("x"), Every(10), id="x")
    with between_hosts(path) as (store, rows):
        function = Function(rows["x"].function, "repeated.note", "__main__:kept", False)
        store.commit(Batch(functions=[function]))
    find = registry.find
    monkeypatch.setattr(registry, "find", lambda name: None)
    async with clock.manager(workers=0, store=path) as manager:
        await clock.advance(35)
        assert (minutes(), (await only(manager)).ran) == ([], 0)
        monkeypatch.setattr(registry, "find", find)
        await clock.advance(1)
        assert len(minutes()) >= 1
        monkeypatch.setattr(registry, "find", lambda name: None)
        await clock.advance(60)
        # It must not come after that.
        reasons = {letter.reason async for letter in manager.dead_letters()}
        assert reasons <= {"unknown"}


def test_progress_is_the_end_of_a_row() -> None:
    assert RepeatRow._fields[-len(Progress._fields) :] == Progress._fields
