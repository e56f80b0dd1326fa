"""The runs of repeats that have not ended, above all those only in the file."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import repeated
from repeated import done, gates

from aioscheduler import Every, SQLiteStore
from aioscheduler._durable.records import Batch, Row
from aioscheduler._routing import paging, underway
from aioscheduler._scheduling.clock import to_ns
from aioscheduler.testing import FakeClock, FakeManager

START = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def crowded(clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with two tasks that hold up all others, and a run of each overlap behind them."""
    done.clear()
    gates.clear()
    gates["x"] = asyncio.Event()
    monkeypatch.setattr(paging, "MOST", 2)
    monkeypatch.setattr(underway, "MOST_ASKED", 2)
    path = tmp_path / "tasks.db"
    async with clock.manager(workers=0, store=path) as manager:
        for overlap in ("skip", "queue", "allow"):
            call = repeated.kept(overlap)
            manager.repeat(call, Every(60), id=overlap, overlap=overlap)  # type: ignore[arg-type]
        manager.schedule(repeated.kept_hold("x"), timedelta(days=1)).cancel()
    store = SQLiteStore(path)
    opening = store.open()
    held = next(f.number for f in opening.functions if f.name == "repeated.hold")
    due = to_ns(START + MINUTE, 0)
    runs = [
        Row(950 + n, due, row.function, row.payload, id=f"↻{row.id} 2030-01-01T00:01:00+00:00")
        for n, row in enumerate(opening.repeats)
    ]
    payload = b"\x91\xa1x"
    crowd = [Row(900 + n, due - 1000, held, payload) for n in range(2)]
    moved = [row._replace(next=due + 60 * 10**9, last=due, ran=1) for row in opening.repeats]
    store.commit(Batch(puts=[*crowd, *runs], repeats=moved, next_row=1000))
    store.close(True)
    clock._now += 119 * 10**9
    return path


async def go_on(manager: FakeManager, clock: FakeClock) -> None:
    """Read the file to its end."""
    assert manager._fleet.keeper is not None
    for _ in range(20):
        manager._fleet.keeper.look_after()
        await clock.advance(0)


def starts(value: Any) -> list[float]:
    return [(due - START) / MINUTE for each, due in done if due is not None and each == value]


async def test_a_run_that_is_only_in_the_file_is_under_way(crowded: Path, clock: FakeClock) -> None:
    async with clock.manager(workers=0, store=crowded) as manager:
        await clock.advance(0)
        assert [repeat.running for repeat in manager.repeats()] == [1, 1, 1]
        await clock.advance(3 * MINUTE)
        assert done == [("x", START + MINUTE - timedelta(microseconds=1))] * 2
        assert [(r.id, r.running, r.skipped) for r in manager.repeats()] == [
            ("allow", 4, 0),
            ("queue", 1, 0),
            ("skip", 1, 3),
        ]
        gates["x"].set()
        await go_on(manager, clock)
        assert [starts(id_) for id_ in ("skip", "queue", "allow")] == [
            [1],
            [1, 2, 3, 4],
            [1, 2, 3, 4],
        ]
        assert [repeat.running for repeat in manager.repeats()] == [0, 0, 0]


async def test_one_that_ends_in_the_file_is_under_way_no_more(
    crowded: Path, clock: FakeClock
) -> None:
    async with clock.manager(workers=0, store=crowded) as manager:
        await clock.advance(0)
        run = await manager.find("↻skip 2030-01-01T00:01:00+00:00")
        assert run is not None
        run.cancel()
        await manager.sync()
        await clock.advance(0)
        assert {repeat.id: repeat.running for repeat in manager.repeats()}["skip"] == 0
        gates["x"].set()
        await clock.advance(MINUTE)
        await go_on(manager, clock)
        assert starts("skip") == [2]


async def test_unreadable_runs_are_logged_and_repeats_go_on(
    crowded: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def scan_ids(*_: object) -> None:
        raise OSError("no such page")

    monkeypatch.setattr(SQLiteStore, "scan_ids", scan_ids)
    async with clock.manager(workers=0, store=crowded) as manager:
        await clock.advance(MINUTE)
        assert "of the last host cannot be read; others may overlap them: OSError" in caplog.text
        assert {repeat.running for repeat in manager.repeats()} == {1}
        gates["x"].set()


async def looking(clock: FakeClock, path: Path) -> FakeManager:
    """Return a manager that looks for the runs of the host before."""
    manager = clock.manager(workers=0, store=path)
    manager.start()
    while manager._fleet.repeats._finding is None:
        await asyncio.sleep(0)
    return manager


async def test_who_closes_it_while_they_are_looked_for_waits_for_nothing(
    crowded: Path, clock: FakeClock
) -> None:
    manager = await looking(clock, crowded)
    gates["x"].set()
    await manager.close()
    assert manager._fleet.repeats._finding is None
    assert starts("skip") == []


async def test_cancelled_while_they_are_looked_for_its_run_goes_with_it(
    crowded: Path, clock: FakeClock
) -> None:
    manager = await looking(clock, crowded)
    skip = next(repeat for repeat in manager.repeats() if repeat.id == "skip")
    await skip.cancel()
    await manager.sync()
    assert await manager.find("↻skip 2030-01-01T00:01:00+00:00") is None
    gates["x"].set()
    await go_on(manager, clock)
    assert (starts("skip"), starts("queue")) == ([], [1])
    await manager.close()


async def test_those_in_memory_are_followed_some_at_a_turn(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tasks.db"
    gates["x"] = asyncio.Event()
    async with clock.manager(workers=0, store=path) as manager:
        for n in range(9):
            manager.repeat(repeated.kept_hold("x"), Every(60), id=str(n))
        await clock.advance(60)
        await manager.close(0)
    monkeypatch.setattr(underway, "SLICE", 2)
    manager = clock.manager(workers=0, store=path)
    manager.start()
    seen: list[int] = []
    while not seen or seen[-1] < 9:
        await asyncio.sleep(0)
        seen.append(sum(repeat.running for repeat in manager.repeats()))
    assert {after - before for before, after in pairwise(seen)} <= {0, 1, 2}
    gates["x"].set()
    await manager.close()


async def test_without_a_store_none_is_left(clock: FakeClock) -> None:
    async with clock.manager(workers=0) as manager:
        assert not manager._fleet.repeats.under_way.are_left


async def test_the_runs_of_this_host_are_known_until_they_end(clock: FakeClock) -> None:
    gates["x"] = asyncio.Event()
    async with clock.manager(workers=0) as manager:
        repeat = manager.repeat(repeated.hold("x"), Every(60), id="x")
        await clock.advance(90)
        assert (repeat.running, repeat._free) == (1, 0)
        gates["x"].set()
        await clock.advance(0)
        assert (repeat.running, repeat._free) == (0, 0)  # none of its times came meanwhile
        gates["x"].clear()
        await clock.advance(2 * MINUTE)
        gates["x"].set()
        await clock.advance(0)
        assert (repeat.running, repeat.skipped) == (0, 1)
