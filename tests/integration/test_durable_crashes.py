"""Durable tasks while hosts and workers die: kept, begun again, or dead letters."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import enduring
import pytest
from rigs import Rig, kill_worker, letters

from aioscheduler import (
    ManagerClosed,
    QueuedScheduler,
    State,
    TimedScheduler,
    WorkerLost,
)

HOUR = timedelta(hours=1)
ONE_LIFE: Any = (0, 1.0)  # max_restarts: the manager fails at the first death that counts

# ---- the host is killed


async def test_what_was_stored_outlives_the_host(rig: Rig) -> None:
    host = rig.host("fill")
    for _ in range(random.Random(1).randrange(10, 50)):
        acknowledged = int(host.hear())
    host.kill()
    for more in host.output.read().split():
        acknowledged = int(more)
    async with rig.manager(2) as manager:
        for number in range(acknowledged):
            task = await manager.find(str(number))
            assert task is not None
            task.reschedule(timedelta(0))
        for number in range(acknowledged, acknowledged + 8):  # unacknowledged
            if (task := await manager.find(str(number))) is not None:
                task.cancel()
        await manager.join()
        await manager.sync()
        assert manager.stats().stored == 0
    assert sorted(rig.said()) == sorted(f"{number} 1" for number in range(acknowledged))


async def test_what_was_not_stored_is_lost_with_the_host(rig: Rig) -> None:
    assert rig.host("at_once").process.wait(30) == -signal.SIGKILL
    async with rig.manager() as manager:
        assert (len(manager), manager.stats().stored) == (0, 0)


async def test_what_runs_when_the_host_is_killed_runs_again_or_is_lost(rig: Rig) -> None:
    host = rig.host("hold_two", rig.gate)
    assert host.hear().split()[0] == "running"
    host.kill()
    assert sorted(rig.said()) == ["fail 1", "rerun 1"]
    async with rig.manager() as manager:
        (letter,) = await letters(manager)
        assert (letter.name, letter.reason, letter.attempts) == ("hold once", "lost", 1)
        assert "its host died while it ran" in letter.text
        assert manager.stats().stored == 4
        await rig.until_said("rerun 2")
        rig.gate.touch()
        await rig.until_said("rerun ends")
        task = await manager.requeue(letter)
        await task
        assert rig.said()[-2:] == ["fail 1", "fail ends"]
        await manager.sync()
        assert (manager.stats().stored, manager.stats().dead_letters) == (3, 0)


@pytest.mark.parametrize("function", ["note", "note_once"])
async def test_what_ended_and_was_not_struck(rig: Rig, function: str) -> None:
    """With "rerun" it runs a second time, with "fail" it is a dead letter though it had ended."""
    host = rig.host("doomed", function, "ends", "before")
    assert host.process.wait(30) == -signal.SIGKILL
    assert rig.said() == ["task 1"]
    async with rig.manager() as manager:
        await manager.join()
        await manager.sync()
        assert manager.stats().stored == 0
        found = [letter.reason for letter in await letters(manager)]
    if function == "note":
        assert found == []
        assert len(rig.said()) == 2
    else:
        assert found == ["lost"]
        assert rig.said() == ["task 1"]


async def test_a_start_that_must_be_on_record_first(rig: Rig) -> None:
    """Before the commit it certainly has not begun; after it, it may have."""
    for moment in ("before", "after"):
        host = rig.host("doomed", "note_once", "begins", moment)
        assert host.process.wait(30) == -signal.SIGKILL
        assert rig.said() == []
    async with rig.manager() as manager:
        await manager.join()
        assert [letter.reason for letter in await letters(manager)] == ["lost"]
    assert rig.said() == []


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.long)])
async def test_a_task_that_kills_its_host_is_named_after_four_lives(rig: Rig, workers: int) -> None:
    deaths = 0
    while (host := rig.host("poison", workers, rig.folder)).process.wait(40) == -signal.SIGKILL:
        deaths += 1
        assert deaths <= 4
    assert host.process.returncode == 0
    assert host.hear() == "lost"
    words = [line.split()[0] for line in rig.said()]
    assert words.count("poison") == deaths
    assert set(words) == {"poison", *map(str, range(20))}


@pytest.mark.long
async def test_a_chain_stays_one_chain(rig: Rig) -> None:
    chance = random.Random(2)
    for _ in range(5):
        host = rig.host("chain")
        assert host.hear() == "ready"
        await asyncio.sleep(chance.random() / 2)
        host.kill()
    Path(f"{rig.log}.last").touch()
    async with rig.manager() as manager:
        await manager.join()
        await manager.sync()
        assert manager.stats().stored == 0
    steps = [int(line) for line in rig.said()]
    assert steps[0] == 0
    assert {later - earlier for earlier, later in itertools.pairwise(steps)} <= {0, 1}


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_was_cancelled_is_begun_by_no_other_host(rig: Rig, workers: int) -> None:
    host = rig.host("cancel", rig.gate, workers)
    assert host.hear() == "running"
    host.kill()
    async with rig.manager() as manager:
        assert (len(manager), manager.stats().stored) == (0, 0)
        assert await letters(manager) == []
    assert rig.said() == ["task 1", "task cleans up"]


# ---- a worker is killed, or told to go


async def test_what_a_task_makes_of_the_end_of_its_worker_is_no_failure(
    rig: Rig,
) -> None:
    async with rig.manager() as manager:
        task = manager.schedule(enduring.convert(rig.log, "task"))
        await rig.until_said("task 1")
        kill_worker(manager, how=signal.SIGTERM)
        await rig.until_said("task was cut off", "task 2")
        assert await letters(manager) == []
        assert not task.done()
        await manager.close(0)
    assert task.state is State.KEPT


async def test_a_worker_dies_with_what_runs(rig: Rig) -> None:
    """It does not count against `max_restarts`, as all tasks that had begun were durable."""
    async with rig.manager(max_restarts=ONE_LIFE) as manager:
        again = manager.schedule(enduring.hold(rig.log, "rerun", str(rig.gate)))
        once = manager.schedule(enduring.hold_once(rig.log, "fail", str(rig.gate)))
        pending = manager.schedule(enduring.note(rig.log, "pending"), HOUR)
        await rig.until_said("rerun 1", "fail 1")
        kill_worker(manager)
        with pytest.raises(WorkerLost) as caught:
            await once
        assert caught.value.started
        await rig.until_said("rerun 2")
        (letter,) = await letters(manager)
        assert (letter.name, letter.reason, letter.attempts) == ("hold once", "lost", 1)
        assert "was killed by SIGKILL" in letter.text
        rig.gate.touch()
        await again
        pending.reschedule(timedelta(0))
        assert await pending == "pending"
        assert manager.stats().restarts == 1
        assert rig.said().count("fail 1") == 1


@pytest.mark.parametrize("queued", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_a_task_that_kills_its_worker_is_a_dead_letter_after_three(
    rig: Rig, queued: bool
) -> None:
    cls: Any = QueuedScheduler if queued else TimedScheduler
    async with rig.manager(schedulers=2, cls=cls, max_restarts=ONE_LIFE) as manager:
        batch = manager.starmap(enduring.note, [(rig.log, n) for n in range(50)])
        poison = manager.schedule(enduring.kill_worker(rig.log, "poison"), id="poison")
        more = manager.starmap(enduring.note, [(rig.log, n) for n in range(50, 100)])
        with pytest.raises(WorkerLost):
            await poison
        assert await batch == list(range(50))
        assert await more == list(range(50, 100))
        (letter,) = await letters(manager)
        assert (letter.id, letter.reason, letter.attempts) == ("poison", "lost", 3)
        assert manager.stats().restarts == 3
    assert [line for line in rig.said() if "poison" in line] == [
        "poison 1",
        "poison 2",
        "poison 3",
    ]


@pytest.mark.parametrize("id_", [None, "id"])
async def test_workers_that_die_before_anything_begins_are_not_replaced_for_ever(
    rig: Rig, id_: str | None, reports: list[dict[str, Any]]
) -> None:
    initializer = enduring.die_before_anything_begins
    async with rig.manager(max_restarts=(2, 1000.0), initializer=initializer) as manager:
        task = manager.schedule(enduring.note(rig.log, "never"), id=id_)
        with pytest.raises(ManagerClosed):
            await task
        assert manager.stats().restarts == 2
    assert task.state is State.KEPT
    assert "has failed" in reports.pop()["message"]
    async with rig.manager() as manager:
        await manager.join()
        assert await letters(manager) == []
    assert rig.said() == ["never 1"]


async def test_a_manager_that_fails_keeps_what_it_has(
    rig: Rig, reports: list[dict[str, Any]]
) -> None:
    async with rig.manager(max_restarts=ONE_LIFE) as manager:
        pending = manager.schedule(enduring.note(rig.log, "pending"), HOUR, id="pending")
        again = manager.schedule(enduring.hold(rig.log, "rerun", str(rig.gate)))
        once = manager.schedule(enduring.hold_once(rig.log, "fail", str(rig.gate)))
        await rig.until_said("rerun 1", "fail 1")
        await manager.sync()
        plain = manager.schedule(enduring.kill_plainly())
        with pytest.raises(WorkerLost):
            await plain
        with pytest.raises(WorkerLost):
            await once
        for task in (pending, again):
            with pytest.raises(ManagerClosed):
                await task
            assert task.state is State.KEPT
        with pytest.raises(ManagerClosed):
            manager.schedule(enduring.note(rig.log, "refused"), HOUR)
    assert "has failed" in reports.pop()["message"]
    rig.gate.touch()
    async with rig.manager() as manager:
        assert [letter.name for letter in await letters(manager)] == ["hold once"]
        while manager.stats().finished != 1:
            await asyncio.sleep(0.01)
        assert rig.said()[-1] == "rerun ends"
        assert await manager.find("pending") is not None
        await manager.sync()
        assert manager.stats().stored == 1
