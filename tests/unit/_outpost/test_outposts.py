"""The outposts of a manager: which worker is on which, and what happens to all of them."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from aioscheduler._outpost import outposts as module
from aioscheduler._outpost.engine import Engine
from aioscheduler._outpost.outposts import Outposts
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._scheduling.order import Order

ENGINE = Engine(2, 3, ["run"], {"address": "a", "manager": "to be said"}, 7.0, "v1")


class Launcher:
    def __init__(self, command: Any, settings: dict[str, Any], refused: Any) -> None:
        self.command, self.settings, self.refused = command, settings, refused
        self.starts = 0
        self.asked: list[Any] = []
        self.ended: list[Any] = []
        self.closed = self.abandoned = self.fails = False

    def start(self, loop: Any) -> None:
        if self.fails:
            raise OSError("no room")
        self.starts += 1

    def ask(self, asker: Any) -> None:
        self.asked.append(asker)

    def end(self, asker: Any) -> None:
        self.ended.append(asker)

    async def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        self.abandoned = True


@pytest.fixture
async def outposts(monkeypatch: pytest.MonkeyPatch) -> Outposts:
    monkeypatch.setattr(module, "Launcher", Launcher)
    return Outposts(ENGINE, "m1", fenced=True)


def launcher_of(outposts: Outposts) -> Launcher:
    found: Any = outposts._launcher
    return found  # type: ignore[no-any-return]


async def test_the_launcher_gets_the_managers_id(outposts: Outposts) -> None:
    assert launcher_of(outposts).settings == {"address": "a", "manager": "m1"}
    assert ENGINE.settings["manager"] == "to be said"


async def test_workers_of_a_node_share_its_connection(outposts: Outposts) -> None:
    loop = asyncio.get_running_loop()
    found = [outposts.connection(worker, loop) for worker in range(6)]
    assert found[0] is found[1] is found[2] is not found[3] is found[4] is found[5]
    assert launcher_of(outposts).asked == [found[0], found[3]]


async def test_after_its_end_another_is_asked_for(outposts: Outposts) -> None:
    loop = asyncio.get_running_loop()
    first = outposts.connection(0, loop)
    other = outposts.connection(3, loop)
    first.reported_lost("gone")
    await asyncio.sleep(0.01)
    assert launcher_of(outposts).ended == [first]
    second = outposts.connection(1, loop)
    assert second not in (first, other)
    assert outposts.connection(0, loop) is second
    assert second.secret != first.secret
    assert second.end is not first.end


async def test_without_a_launcher_nothing_is_asked_for(outposts: Outposts) -> None:
    launcher_of(outposts).fails = True
    with pytest.raises(OSError, match="no room"):
        outposts.connection(0, asyncio.get_running_loop())
    launcher_of(outposts).fails = False
    outposts.connection(0, asyncio.get_running_loop())
    assert len(launcher_of(outposts).asked) == 1


async def test_the_first_without_a_cluster_is_the_end_of_all_that_wait(outposts: Outposts) -> None:
    loop = asyncio.get_running_loop()
    found = [outposts.connection(worker, loop) for worker in (0, 3)]
    launcher_of(outposts).refused("no cluster")
    assert [each.cause for each in found] == ["no cluster"] * 2
    await asyncio.sleep(0.01)


async def test_the_end_of_all_of_it(outposts: Outposts) -> None:
    loop = asyncio.get_running_loop()
    found = [outposts.connection(worker, loop) for worker in (0, 3)]
    outposts.look_after()
    outposts.stop()
    await outposts.close()
    await asyncio.sleep(0.01)
    assert launcher_of(outposts).closed
    assert set(launcher_of(outposts).ended) == set(found)
    outposts.abandon()
    assert launcher_of(outposts).abandoned


async def test_tasks_there_begin_on_the_hosts_word(outposts: Outposts) -> None:
    config = WorkerConfig(
        manager="m1", order=Order.TIMED, layout=(1,) * 6, prefer_utc=True, host=1, worker=4
    )
    for forwards in (False, True):
        launch = outposts.process_maker(
            dataclasses.replace(config, forward_logs=forwards), None, {}
        )
        process: Any = launch(5, print, print)
        assert process._config.confirmed
        assert (process.worker, process.generation) == (4, 5)
        assert bool(process._levels()) is forwards
