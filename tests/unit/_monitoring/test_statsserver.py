from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioscheduler import HostStats, ManagerStats
from aioscheduler._monitoring.statsserver import (
    Snapshot,
    StatsServer,
    _close_all,
    is_repeat,
    snapshots,
    wanted,
)

STATS = ManagerStats("ab12", "bots", (), HostStats(1, 0.0, 2, 0.0), *range(12))
REPEAT: dict[str, Any] = {
    "id": "report",
    "rule": "every 0:01:00",
    "name": "m:f",
    "next": None,
    "last": None,
    "ran": 0,
    "skipped": 0,
    "running": 0,
    "paused": True,
    "reason": None,
}


def told(stats: ManagerStats) -> dict[str, Any]:
    return stats.as_dict() | {"next_repeats": [REPEAT]}


@pytest.fixture
def folder(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for sockets, made by the first server."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(short_path))
    return short_path / "aioscheduler"


async def opened(
    manager: str = "ab12", stats: Callable[[], ManagerStats] = lambda: STATS
) -> StatsServer:
    monitor = StatsServer(manager, stats, lambda: [REPEAT])
    monitor.start(asyncio.get_running_loop())
    assert monitor._opening is not None
    await monitor._opening
    return monitor


async def ask(timeout: float = 5.0) -> list[Snapshot]:
    return await asyncio.to_thread(snapshots, timeout)


async def test_managers_tell_their_stats_to_whoever_asks(folder: Path) -> None:
    other = dataclasses.replace(STATS, manager="cd")
    monitors = [await opened(), await opened("cd", lambda: other)]
    for _ in range(3):
        assert await ask() == [
            Snapshot(os.getpid(), "ab12", told(STATS)),
            Snapshot(os.getpid(), "cd", told(other)),
        ]
    for monitor in monitors:
        monitor.close()
        monitor.close()
    assert await ask() == []
    assert list(folder.iterdir()) == []


async def test_only_the_user_can_open_the_socket(folder: Path) -> None:
    monitor = await opened()
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monitor.close()


async def test_a_folder_that_others_can_open_is_not_used(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = folder.parent / f"aioscheduler-{os.getuid()}"
    for each in (folder, other):
        each.mkdir()
        each.chmod(0o755)
    monitor = StatsServer("ab12", lambda: STATS, list)
    monitor.start(asyncio.get_running_loop())
    assert caplog.text.count("only you can open") == 2
    monitor.close()
    assert [*folder.iterdir(), *other.iterdir()] == []
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(folder / "1-ab.sock"))
        assert await ask() == []


async def test_without_a_runtime_folder_the_one_for_temporary_files_serves(
    folder: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monitor = await opened()
    assert os.listdir(short_path) == [f"aioscheduler-{os.getuid()}"]
    assert len(await ask()) == 1
    monitor.close()


async def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    monitor = await opened()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "4194305-dead.sock"))  # more than a process id can be
    assert [snapshot.manager for snapshot in await ask()] == ["ab12"]
    assert len(list(folder.iterdir())) == 1
    monitor.close()


async def test_who_does_not_answer_or_answers_nonsense_is_shown_without_stats(folder: Path) -> None:
    monitor = await opened()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / "7-silent.sock"))
        silent.listen()
        found = await ask(0.05)
    assert Snapshot(7, "silent", None) in found
    assert len(found) == 2
    monitor.close()


async def test_what_is_no_socket_of_ours_is_left_alone(folder: Path) -> None:
    monitor = await opened()
    for name in ("1-reg.sock", "1x-ab.sock", "1-\x1b[31m.sock"):
        (folder / name).touch()
    assert len(await ask()) == 1
    assert len(list(folder.iterdir())) == 4
    monitor.close()


@pytest.mark.parametrize("answer", ["[1]", "5", "{}", "[" * 100_000, '{"manager": NaN}', ""])
async def test_another_version_s_answer_is_none(folder: Path, answer: str) -> None:
    monitor = await opened()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer.encode())
        writer.close()

    async with await asyncio.start_unix_server(respond, folder / "7-other.sock"):
        assert Snapshot(7, "other", None) in await ask()
    monitor.close()


async def test_a_runtime_folder_with_too_long_a_path_is_passed_over(
    folder: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = short_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monitor = await opened()
    assert len(await ask()) == 1
    monitor.close()
    assert list((long / "aioscheduler").iterdir()) == []


async def test_a_forked_child_closes_the_listener(folder: Path) -> None:
    monitor = await opened()
    _close_all()  # what the child does
    assert monitor._listener is not None
    assert monitor._listener.fileno() == -1
    monitor.close()


async def test_many_workers_make_a_document_that_comes_whole(folder: Path) -> None:
    big: Any = dataclasses.replace(STATS, manager="x" * 3_000_000)
    monitor = await opened(stats=lambda: big)
    (snapshot,) = await ask()
    assert snapshot.stats == told(big)
    monitor.close()


async def test_a_forked_child_does_not_remove_the_socket(folder: Path) -> None:
    monitor = await opened()
    assert monitor._remove is not None
    _, function, (path, owner, listener), _ = monitor._remove.peek()  # type: ignore[misc]
    assert owner == os.getpid()
    function(path, owner + 1, listener)
    assert path.exists()
    monitor.close()


async def test_a_monitor_that_is_closed_before_it_opened_leaves_nothing(folder: Path) -> None:
    monitor = StatsServer("ab12", lambda: STATS, list)
    monitor.start(asyncio.get_running_loop())
    monitor.close()
    await asyncio.sleep(0)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("turns", range(3))
async def test_who_cancels_all_tasks_of_the_loop_does_not_end_it(
    folder: Path, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioscheduler._monitoring.statsserver.TICK", 0.01)
    monitor = StatsServer("ab12", lambda: STATS, lambda: [REPEAT])
    monitor.start(asyncio.get_running_loop())
    for _ in range(turns):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    assert await ask() == [Snapshot(os.getpid(), "ab12", told(STATS))]
    monitor.close()


async def test_closed_after_that_it_is_not_opened_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioscheduler._monitoring.statsserver.TICK", 0.01)
    monitor = StatsServer("ab12", lambda: STATS, list)
    monitor.start(asyncio.get_running_loop())
    opening = monitor._opening
    assert opening is not None
    opening.cancel()
    await asyncio.wait([opening])
    monitor.close()
    await asyncio.sleep(0.05)
    assert monitor._opening is opening
    assert list(folder.iterdir()) == []


async def test_what_keeps_it_from_opening_is_logged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("no more files")

    monkeypatch.setattr(asyncio, "start_unix_server", refuse)
    monitor = StatsServer("ab12", lambda: STATS, list)
    monitor.start(asyncio.get_running_loop())
    await asyncio.sleep(0.01)
    assert "this manager cannot be watched: no more files" in caplog.text
    monitor.close()


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("yes", True), ("", False), ("0", False), ("False", False)]
)
def test_the_environment_may_ask_for_it(
    value: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOSCHEDULER_MONITOR", value)
    assert wanted() is expected


def test_the_answer_is_strict_json() -> None:
    json.dumps(STATS.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "odd",
    [
        *({key: 5} for key in ("id", "rule", "name", "next", "last", "paused", "reason")),
        *({key: "x"} for key in ("ran", "skipped", "running")),
    ],
)
def test_a_repeat_in_an_answer_has_its_format(odd: dict[str, Any]) -> None:
    assert is_repeat(REPEAT)
    assert is_repeat(REPEAT | {"next": "2030-01-01T00:00:00+00:00", "reason": "so"})
    assert not is_repeat(REPEAT | odd)
    assert not is_repeat([])
