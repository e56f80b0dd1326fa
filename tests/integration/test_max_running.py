"""No more tasks run on a scheduler at a time than allowed, however they end."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta
from typing import Any

import pytest
from crowding import be_long_in_going, fail, look, look_or_die, nap, nap_and_fail

from aioscheduler import Manager, State, Task, WorkerLost

OFTEN: Any = (10**6, 1.0)  # max_restarts that no test reaches


@pytest.mark.parametrize("workers", [0, 2])
async def test_never_more_than_so_many_run(workers: int) -> None:
    async with Manager(2, workers=workers, max_running=3) as manager:
        naps = manager.map(nap, [0.001 * (n % 3) for n in range(90)])
        looks = manager.map(look, range(300))
        fails: list[Any] = [manager.schedule(nap_and_fail(0.001)) for _ in range(30)]
        fails += [manager.map(fail, [n]) for n in range(30)]
        cancels = [manager.schedule(be_long_in_going(0.002)) for _ in range(20)]
        rest = manager.map(nap, [0.001] * 90)
        while any(not task.done() for task in cancels):
            assert manager.stats().running <= 2 * 3
            for task in cancels:
                if task.state is State.RUNNING:
                    task.cancel()
            await asyncio.sleep(0.001)
        crowds = [*await naps, *await looks, *await rest]
        for task in fails:
            with pytest.raises(LookupError) as caught:
                await task
            crowds.append(caught.value.args[0])
        assert all(task.cancelled() for task in cancels)
        assert max(crowds) == 3


async def running(tasks: list[Task[int]], count: int) -> None:
    """Wait until a number of tasks run."""
    while sum(task.state is State.RUNNING for task in tasks) < count:
        await asyncio.sleep(0.001)


async def test_what_waits_runs_in_the_replacement_within_its_limit() -> None:
    async with Manager(1, workers=1, max_running=2, max_restarts=OFTEN) as manager:
        lost = [manager.schedule(nap(60)) for _ in range(2)]
        tasks = [manager.schedule(nap(0.001), timedelta(microseconds=n)) for n in range(40)]
        await running(lost, 2)
        await asyncio.sleep(0.05)  # all of them are due
        assert len(manager) == 40
        life = manager._remotes[0].supervisor.process
        assert life is not None
        assert life.pid is not None
        os.kill(life.pid, signal.SIGKILL)
        crowds = await asyncio.gather(*tasks)
        assert max(crowds) == 2
        for task in lost:
            with pytest.raises(WorkerLost):
                await task


@pytest.mark.parametrize("max_running", [1, 3])
async def test_a_death_takes_no_more_than_may_run(max_running: int) -> None:
    """Tasks that end at once have ended, for the host, too, before others begin."""
    async with Manager(
        1, workers=1, max_running=max_running, on_worker_loss="fail", max_restarts=OFTEN
    ) as manager:
        batch = manager.starmap(look_or_die, [(n, 200) for n in range(400)])
        await manager.join()
        states = [batch[n].state for n in range(400)]
        assert states[200] is State.LOST
        assert set(states) == {State.LOST, State.FINISHED}
        assert states.count(State.LOST) <= max_running
        with pytest.raises(WorkerLost):
            await batch
