"""`block_timeout`, with real workers that are really blocked, stopped and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import blocking
import pytest
import uvloop

from aioscheduler import Manager, ManagerClosed, QueuedScheduler, Retry, State, Task, WorkerLost
from aioscheduler.errors import EXIT_OF_BLOCKED
from aioscheduler.stats import WorkerState

LIMIT = 0.3  # seconds
OPEN: Any = (10**6, 1.0)  # max_restarts that no test reaches

Schedule = Callable[[Manager], Task[Any]]

BLOCKS: dict[str, Schedule] = {
    "a coroutine that sleeps": lambda m: m.schedule(blocking.sleep()),
    "a later step": lambda m: m.schedule(blocking.sleep_later()),
    "a coroutine that computes": lambda m: m.schedule(blocking.spin()),
    "a plain function": lambda m: m.starmap(blocking.call, [()])[0],
    "an asyncio task that it has made": lambda m: m.schedule(blocking.make_a_task()),
    "a callback that it has left": lambda m: m.schedule(blocking.leave_a_callback()),
    "its argument": lambda m: m.schedule(blocking.give(blocking.Read())),
    "its result": lambda m: m.schedule(blocking.give(blocking.Written(os.getpid()))),
    "the predicate of its retry": lambda m: m.schedule(
        blocking.fail(), retry=Retry(blocking.ask_long)
    ),
}


def pid_of(manager: Manager) -> int:
    pid = manager.stats().workers[0].pid
    assert pid is not None
    return pid


async def running(manager: Manager, task: Task[Any]) -> None:
    async with asyncio.timeout(10):
        while task.state is not State.RUNNING:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("how", BLOCKS)
async def test_who_blocks_its_worker_is_lost_and_the_others_go_on(how: str) -> None:
    async with Manager(
        2, workers=1, block_timeout=LIMIT, on_worker_loss="rerun", max_restarts=OPEN
    ) as manager:
        innocent = manager.schedule(blocking.innocent())
        await running(manager, innocent)
        blocks = BLOCKS[how](manager)
        with pytest.raises(WorkerLost, match="was ended by its block_timeout") as lost:
            await blocks
        assert lost.value.exitcode == EXIT_OF_BLOCKED
        assert lost.value.started
        assert str(blocks.ref) in lost.value.cause
        assert "busy for more than block_timeout=0.3 s" in lost.value.cause
        assert await innocent == 2
        assert manager.stats().restarts == 1
        assert manager.stats().lost == 1


async def test_without_rerun_the_others_are_told_who_it_was(caplog: Any) -> None:
    async with Manager(2, workers=1, block_timeout=LIMIT) as manager:
        innocent = manager.schedule(blocking.innocent())
        await running(manager, innocent)
        blocks = manager.schedule(blocking.sleep())
        waits = manager.schedule(blocking.give(5), timedelta(seconds=0.2))
        for task, cause in ((blocks, "task blocking:sleep"), (innocent, "another task is to")):
            with pytest.raises(WorkerLost) as lost:
                await task
            assert lost.value.cause.startswith(cause)
            assert str(blocks.ref) in lost.value.cause
        assert await waits == 5
    (record,) = caplog.records
    first, *stack = record.message.splitlines()
    assert "was ended by its block_timeout (task blocking:sleep" in first
    assert "; it is replaced: " in first
    assert "time.sleep(seconds)" in "".join(stack)


@pytest.mark.parametrize("how", ["a coroutine that sleeps", "a plain function"])
async def test_on_uvloop_as_well(how: str) -> None:
    async with Manager(
        1,
        workers=1,
        block_timeout=LIMIT,
        on_worker_loss="rerun",
        loop_initializer=uvloop.new_event_loop,
    ) as manager:
        innocent = manager.schedule(blocking.innocent())
        await running(manager, innocent)
        blocks = BLOCKS[how](manager)
        with pytest.raises(WorkerLost, match="block_timeout"):
            await blocks
        assert await innocent == 2


async def test_a_queue_goes_on_behind_what_has_blocked_it() -> None:
    async with Manager(
        1, cls=QueuedScheduler, workers=1, block_timeout=LIMIT, on_worker_loss="rerun"
    ) as manager:
        blocks, *others = [
            manager.schedule(coro)
            for coro in (blocking.sleep(), blocking.give(1), blocking.give(2))
        ]
        with pytest.raises(WorkerLost, match="block_timeout"):
            await blocks
        assert await asyncio.gather(*others) == [1, 2]


async def test_a_process_that_is_stopped_in_a_step_has_blocked_nothing() -> None:
    async with Manager(1, workers=1, block_timeout=LIMIT) as manager:
        pid = pid_of(manager)
        for _ in range(2):
            task = manager.schedule(blocking.stop_itself())
            await running(manager, task)
            await asyncio.sleep(4 * LIMIT)
            os.kill(pid, signal.SIGCONT)
            assert await task == "goes on"
        assert pid_of(manager) == pid


async def test_many_short_steps_in_one_turn_are_no_block() -> None:
    async with Manager(1, workers=1, block_timeout=LIMIT) as manager:
        when = time.monotonic() + 0.2
        await manager.starmap(blocking.sleep_together, [(when, 0.02)] * 60)
        assert manager.stats().restarts == 0


async def test_what_blocks_for_less_goes_on() -> None:
    async with Manager(1, workers=1, block_timeout=5.0) as manager:
        assert await manager.schedule(blocking.sleep(0.5)) == 0.5


async def test_an_initializer_may_take_its_time() -> None:
    async with Manager(
        1, workers=1, block_timeout=0.05, initializer=time.sleep, initargs=(0.5,)
    ) as manager:
        assert await manager.schedule(blocking.give(1)) == 1
        assert manager.stats().restarts == 0


async def test_a_forked_child_may_take_its_time() -> None:
    async with Manager(1, workers=1, block_timeout=LIMIT) as manager:
        assert await manager.schedule(blocking.fork_and_wait()) == 7
        assert manager.stats().restarts == 0


async def test_what_nobody_is_to_blame_for_runs_again_until_the_restarts_are_spent(
    reports: list[dict[str, Any]],
) -> None:
    manager = Manager(
        1, workers=1, block_timeout=LIMIT, on_worker_loss="rerun", max_restarts=(1, 30.0)
    )
    async with manager:
        task = manager.schedule(blocking.leave_a_callback_of_nobody())
        with pytest.raises(WorkerLost, match="max_restarts=.*a callback of the loop has kept"):
            await task
        with pytest.raises(ManagerClosed):
            manager.schedule(blocking.give(1))  # type: ignore[unused-coroutine]
    reports.clear()


async def test_a_worker_that_drains_is_ended_by_what_blocks_it() -> None:
    async with Manager(
        1, workers=1, block_timeout=LIMIT, on_worker_loss="rerun", max_restarts=(1, 30.0)
    ) as manager:
        innocent = manager.schedule(blocking.innocent())
        blocks = manager.schedule(blocking.sleep_later())
        await running(manager, blocks)
        os.kill(pid_of(manager), signal.SIGTERM)
        with pytest.raises(WorkerLost, match="block_timeout"):
            await blocks
        assert await innocent == 2
        assert manager.stats().restarts == 1  # its own end would not be counted


async def test_what_blocks_while_its_manager_closes_is_lost() -> None:
    async with Manager(1, workers=1, block_timeout=LIMIT) as manager:
        blocks = manager.schedule(blocking.sleep_later())
        await running(manager, blocks)
        await manager.close()
    with pytest.raises(WorkerLost, match="block_timeout"):
        await blocks
    assert manager.stats().workers[0].state is WorkerState.STOPPED


@pytest.mark.parametrize(
    ("handler", "said"),
    [(blocking.Raises, "LookupError: no handler for this"), (blocking.Waits, "it waits")],
)
async def test_a_handler_of_the_log_cannot_end_the_watching(
    handler: type, said: str, capfd: Any
) -> None:
    async with Manager(
        1, workers=1, block_timeout=3.0, initializer=blocking.add_handler, initargs=(handler,)
    ) as manager:
        blocks = manager.schedule(blocking.sleep())
        with pytest.raises(WorkerLost, match="block_timeout=3 s"):
            await blocks
    assert said in capfd.readouterr().err  # the block was reported before
