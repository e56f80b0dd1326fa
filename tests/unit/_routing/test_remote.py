"""The host's end of a worker's slot, without a worker: whatever frames come, no task is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioscheduler import Manager, State, Task, WorkerLost
from aioscheduler._processes.occupant import End, Then
from aioscheduler._scheduling.lateness import BOUNDS
from aioscheduler._transport.wire import Kind

COUNT = 12

NUMBERS = st.lists(st.integers(0, COUNT + 2), max_size=6)
ODD: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
PAYLOADS: Any = st.lists(
    st.one_of(st.integers(), st.just(b"\x90"), st.just([]), st.binary()), max_size=6
)


@st.composite
def right_frames(draw: Any) -> list[Any]:
    """A frame of the right shape, which may still be wrong."""
    kind = draw(
        st.sampled_from(
            [Kind.ANNOUNCED, Kind.PROPOSED, Kind.ENDED, Kind.UNBEGUN, Kind.RETRY]
            + [Kind.BLOB, Kind.TICK]
        )
    )
    if kind == Kind.TICK:
        counts = draw(st.lists(st.integers(-1, 99), max_size=len(BOUNDS) + 1))
        return [kind, draw(st.floats()), draw(st.integers()), draw(st.integers()), counts]
    if kind == Kind.BLOB:
        return [kind, draw(st.integers(0, COUNT)), draw(st.binary())]
    numbers = draw(NUMBERS)
    if kind == Kind.RETRY:
        waits = draw(st.lists(st.integers(0, 99), min_size=len(numbers), max_size=6))
        return [kind, draw(st.integers(-1, 2)), numbers, waits, [""] * len(waits)]
    if kind != Kind.ENDED:
        return [kind, draw(st.integers(-1, 2)), numbers]
    payloads = draw(st.one_of(PAYLOADS, st.just([1] * len(numbers))))
    return [kind, draw(st.integers(-1, 2)), numbers, draw(st.integers(-1, 3)), payloads]


FRAMES = st.one_of(
    right_frames(),
    st.builds(lambda kind, rest: [kind, *rest], st.sampled_from(Kind), st.lists(ODD, max_size=5)),
)


@given(st.lists(FRAMES, max_size=12))
def test_whatever_a_worker_says_every_task_ends_once(frames: list[Any]) -> None:
    async def live() -> None:
        manager = Manager(2, workers=1)
        (link,) = manager._remotes
        link.loop = asyncio.get_running_loop()
        link.loop.set_exception_handler(lambda loop, context: None)
        tasks: list[Task[Any]] = [
            manager.schedule(asyncio.sleep(n), timedelta(hours=1)) for n in range(4)
        ]
        batch = manager.map(abs, range(COUNT - 4), timedelta(hours=1))
        tasks += [batch[n] for n in range(COUNT - 4)]
        ends: list[Any] = []
        for task in tasks:
            task.add_done_callback(ends.append)
        tasks[1].cancel()
        link.withdraw(0, tasks[2]._number)
        link.reschedule(0, tasks[3]._number, 1 << 60)
        for frame in frames:
            with contextlib.suppress(Exception):  # the process is killed then
                link.receive(frame)
        waiting = sum(task.state is State.PENDING for task in tasks if task not in tasks[1:3])
        assert len(manager) >= waiting - 1
        stats = manager.stats()
        ended = stats.finished + stats.failed + stats.cancelled + stats.lost
        assert ended == sum(task.done() for task in tasks)
        assert stats.running == sum(task.state is State.RUNNING for task in tasks)
        buckets = [count for _, count in stats.workers[0].lateness_buckets]
        assert buckets == sorted(buckets)
        json.dumps(stats.as_dict(), allow_nan=False)
        link.settle_all(-9, True)
        await asyncio.sleep(0)
        assert sorted(map(id, ends)) == sorted(map(id, tasks))
        for task in tasks:
            if task.state is State.LOST:
                assert isinstance(task.exception(), WorkerLost)
        assert len(manager) == 0
        assert not any(manager._router.placement.loads + manager._router.placement.waiting)
        await manager.close()

    asyncio.run(live())


async def test_no_task_is_left_open_whatever_the_report_of_a_failed_slot_raises() -> None:
    manager = Manager(1, workers=1)
    (link,) = manager._remotes
    task = manager.schedule(asyncio.sleep(0))

    def raising(reason: Exception) -> None:
        raise KeyboardInterrupt

    link._failed = raising
    with pytest.raises(KeyboardInterrupt):
        link.ended(End(Then.FAILED, reason=WorkerLost(0, -9, started=None)))
    assert task.state is State.LOST
    assert len(manager) == 0
    await manager.close()


@pytest.mark.parametrize("is_said", [True, False])
async def test_what_has_harmed_nobody_is_said_if_it_is_to_be(
    is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(1, workers=1)
    (link,) = manager._remotes
    life: Any = SimpleNamespace(begun=lambda scheduler: (0, 0), blocked=lambda: None)
    link.ended(End(Then.REPLACED, None, life, "it has stale code", is_said=is_said))
    assert [record.levelname for record in caplog.records] == (["WARNING"] if is_said else [])
    await manager.close()
