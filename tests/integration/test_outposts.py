"""Workers on other machines, which are processes of this one: use, and faults."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from far import (
    Far,
    Proxy,
    alive,
    begin,
    give,
    kill,
    make_certificate,
    note,
    pid,
    pids,
    running,
    until,
)

from aioscheduler import (
    LifoQueuedScheduler,
    Manager,
    NotShippable,
    QueuedScheduler,
    Retry,
    WorkerLost,
    WorkerStartError,
    current_manager,
    durable,
)
from aioscheduler._outpost import connection
from aioscheduler.stats import WorkerState

FAR = timedelta(hours=1)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    made = Far(tmp_path)
    yield made
    made.end()


async def seg() -> None:
    ctypes.string_at(0)


# ---- use


async def test_the_same_manager_runs_on_nodes(far: Far) -> None:
    async with Manager(engine=far.engine(2, 2), name="bots") as manager:
        assert await manager.schedule(give((1, "a"))) == (1, "a")
        assert await manager.map(give, range(2000)) == list(range(2000))
        found = {await manager.schedule(pid(), key=n) for n in range(40)}
        workers = manager.stats().workers
        assert found == {worker.pid for worker in workers}
        assert [worker.node for worker in workers] == ["node1", "node1", "node2", "node2"]
        await until(lambda: all(w.rss > 1 << 20 for w in manager.stats().workers))
        assert len(pids(manager)) == 4
        with pytest.raises(ZeroDivisionError):
            await manager.schedule(fail())
    await until(lambda: not any(map(alive, [*found, *far.nodes(), *far.launchers()])))


async def fail() -> None:
    _ = 1 / 0


async def fail_once(history: str) -> str:
    note(history, "try")
    if Path(history).read_text().count("try") < 2:
        raise ValueError("the first time")
    return "done"


async def schedule_inside(history: str) -> Any:
    return current_manager().schedule(begin(history, "inside"), timedelta(milliseconds=20))


async def test_options_successors_and_batches_are_as_on_one_machine(far: Far) -> None:
    history = str(far.history)
    async with Manager(engine=far.engine(1, 2), initializer=os.umask, initargs=(0o22,)) as manager:
        retry = Retry(wait_initial=0.01, wait_jitter=0.0)
        assert await manager.schedule(fail_once(history), retry=retry) == "done"
        with pytest.raises(TimeoutError):
            await manager.schedule(asyncio.sleep(60), timeout=0.05)
        await manager.schedule(schedule_inside(history))
        await manager.join()
        task = manager.schedule(give(1), FAR, id="one")
        assert manager.schedule(give(2), FAR, id="one") is task
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        task = await running(manager.schedule(asyncio.sleep(60)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert far.starts() == ["try", "try", "inside"]


@pytest.mark.parametrize("cls", [QueuedScheduler, LifoQueuedScheduler])
async def test_queues_keep_their_order(far: Far, cls: Any) -> None:
    engine = far.engine(1, 1)
    async with Manager(cls=cls, engine=engine) as manager:
        gate = await running(manager.schedule(asyncio.sleep(0.2)))
        for n in range(20):
            manager.schedule(begin(str(far.history), str(n)))
        await manager.join()
        assert gate.done()
    order = [int(n) for n in far.starts()]
    assert order == (list(range(20)) if cls is QueuedScheduler else list(range(20))[::-1])


async def test_timers_are_never_early_by_the_hosts_clock(far: Far) -> None:
    async with Manager(engine=far.engine()) as manager:
        due = time.time_ns() + 20_000_000
        tasks = [
            manager.schedule(stamp(), timedelta(milliseconds=20 + n)) for n in range(0, 200, 4)
        ]
        for n, task in enumerate(tasks):
            assert await task >= due + 4_000_000 * n


async def stamp() -> int:
    return time.time_ns()


async def missing() -> None:
    import there_is_no_such_module  # type: ignore[import-not-found]  # noqa: F401


async def test_a_missing_module_is_its_tasks_and_names_the_node(far: Far) -> None:
    async with Manager(engine=far.engine()) as manager:
        with pytest.raises(ModuleNotFoundError) as raised:
            await manager.schedule(missing())
        assert (
            "on node node1: what tasks import must be installed there" in raised.value.__notes__[0]
        )


def log_it() -> None:
    logging.getLogger("there").warning("said on the node")


async def test_logs_come_to_the_host(far: Far, caplog: pytest.LogCaptureFixture) -> None:
    async with Manager(engine=far.engine(), forward_logs=True) as manager:
        await manager.schedule(log_there())
        await until(lambda: "said on the node" in caplog.text)


async def log_there() -> None:
    log_it()


async def test_processes_are_recycled_there(far: Far) -> None:
    async with Manager(engine=far.engine(), max_tasks_per_worker=100) as manager:
        before = pids(manager)
        await manager.map(give, range(150))
        await until(lambda: manager.stats().recycled == 1 and pids(manager) not in ([], before))
        assert await manager.schedule(give(1)) == 1


async def test_what_only_this_machine_has_cannot_be_given_to_the_initializer(far: Far) -> None:
    queue = multiprocessing.get_context("spawn").Lock()
    with pytest.raises(NotShippable, match="only a process of this machine can be given"):
        Manager(engine=far.engine(), initializer=print, initargs=(queue,))


@durable("far.begin")
async def begin_durable(history: str, word: str, seconds: float = 0.0) -> None:
    await begin(history, word, seconds)


async def test_durable_tasks_outlive_the_host_there_as_well(far: Far, tmp_path: Path) -> None:
    path, history = tmp_path / "tasks.db", str(far.history)
    async with Manager(engine=far.engine(), store=path) as manager:
        await manager.schedule(begin_durable(history, "now"))
        manager.schedule(begin_durable(history, "then"), timedelta(seconds=2))
    async with Manager(engine=far.engine(), store=path) as manager:
        await manager.join()
    assert far.starts() == ["now", "then"]


# ---- faults


async def test_a_worker_that_is_killed_is_named_and_the_others_go_on(far: Far) -> None:
    async with Manager(engine=far.engine(1, 2)) as manager:
        tasks = [await far.hold(manager), await far.hold(manager)]
        first, second = pids(manager)
        kill(first)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        lost = [task for task in tasks if task.done()]
        assert len(lost) == 1
        error = lost[0].exception()
        assert isinstance(error, WorkerLost)
        assert (error.exitcode, error.started) == (-9, True)
        await until(lambda: len(pids(manager)) == 2 and first not in pids(manager))
        assert second in pids(manager)
        assert len(far.nodes()) == 1
        assert manager.stats().restarts == 1
        await manager.close(0)


async def test_last_words_arrive(far: Far, caplog: pytest.LogCaptureFixture) -> None:
    async with Manager(engine=far.engine()) as manager:
        with pytest.raises(WorkerLost, match="Segmentation fault") as raised:
            await manager.schedule(seg())
        assert raised.value.exitcode == -signal.SIGSEGV
        assert "on node node1 (pid" in caplog.text
        assert "in seg" in caplog.text


async def test_a_node_of_eight_costs_one_restart_and_nothing_runs_twice(far: Far) -> None:
    history = str(far.history)
    engine = far.engine(1, 8)
    async with Manager(engine=engine, max_restarts=(2, 30.0)) as manager:
        before = pids(manager)
        stay = [
            manager.schedule(begin(history, f"later{n}"), timedelta(seconds=3)) for n in range(16)
        ]
        run = [manager.schedule(begin(history, f"now{n}", 60), key=n) for n in range(8)]
        for task in run:
            await running(task)
        await until(lambda: len(far.starts()) == 8)
        kill(far.nodes()[0])
        done, _ = await asyncio.wait(run, timeout=20)
        assert len(done) == 8
        assert all(isinstance(task.exception(), WorkerLost) for task in run)
        assert "node node1 is lost" in str(run[0].exception())
        await asyncio.gather(*stay)
        assert len(far.nodes()) == 2
        assert not any(map(alive, before))
        assert manager.stats().restarts == 8
        assert {worker.node for worker in manager.stats().workers} == {"node2"}
    assert sorted(far.starts()) == sorted({*far.starts()})


async def test_a_node_all_of_whose_processes_die_at_once(far: Far) -> None:
    history = str(far.history)
    async with Manager(engine=far.engine(2, 1)) as manager:
        tasks = [manager.schedule(begin(history, str(n), 0.001)) for n in range(2000)]
        await until(lambda: len(far.starts()) > 50)
        for victim in (far.nodes()[0], pids(manager)[0]):
            kill(victim)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, WorkerLost | str) for end in ends)
        lost = sum(isinstance(end, WorkerLost) for end in ends)
    starts = far.starts()
    assert len(starts) == len(set(starts))
    assert len(starts) >= 2000 - lost


async def test_a_connection_that_is_reset_is_the_end_of_its_node(far: Far, tmp_path: Path) -> None:
    to = tmp_path / "to"
    proxy = Proxy(to)
    await proxy.start()
    async with Manager(engine=far.engine(1, 2, proxy=proxy.port, to=str(to))) as manager:
        old = pids(manager)
        task = await far.hold(manager)
        proxy.reset()
        with pytest.raises(WorkerLost):
            await task
        await until(lambda: not any(map(alive, old)))
        assert await manager.schedule(give(1)) == 1
    await proxy.close()


async def test_close_returns_while_nothing_comes_through(
    far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KILL_TIME", 0.3)
    to = tmp_path / "to"
    proxy = Proxy(to)
    await proxy.start()
    async with Manager(engine=far.engine(1, 2, proxy=proxy.port, to=str(to))) as manager:
        task = await far.hold(manager)
        proxy.swallows = True
        await manager.close(0.1)
        assert isinstance(task.exception(), WorkerLost)
        assert manager.stats().workers[0].state is WorkerState.STOPPED
    await proxy.close()
    await until(lambda: not any(map(alive, far.nodes())))


async def test_an_outpost_that_is_stopped_loses_nothing(far: Far) -> None:
    async with Manager(engine=far.engine(1, 1, lost_after=1.0)) as manager:
        task = await running(manager.schedule(asyncio.sleep(1.0, "done")))
        kill(far.nodes()[0], signal.SIGSTOP)
        await until(lambda: manager.stats().workers[0].state is WorkerState.SILENT)
        await asyncio.sleep(2.0)  # longer than `lost_after`: its kernel answers
        kill(far.nodes()[0], signal.SIGCONT)
        assert await task == "done"
        assert manager.stats().restarts == 0


async def test_a_host_that_is_blocked_loses_nothing(far: Far) -> None:
    """Even while the window to it is full."""
    async with Manager(engine=far.engine(1, 2, lost_after=1.0)) as manager:
        batch = manager.map(bytes, [1 << 20] * 40)
        await manager.flush()
        await asyncio.sleep(0.1)
        time.sleep(4)  # noqa: ASYNC251  longer than `lost_after`
        assert sum(len(result) for result in await batch) == 40 << 20
        assert manager.stats().restarts == 0


async def test_what_is_given_up_and_thawed_begins_nothing(far: Far) -> None:
    """Its outpost is frozen with its worker, and both learn late that they are alone."""
    history = str(far.history)
    async with Manager(engine=far.engine(1, 1, deaf=True)) as manager:
        node, worker = far.nodes()[0], pids(manager)[0]
        tasks = [
            manager.schedule(begin(history, str(n)), timedelta(milliseconds=300 + n))
            for n in range(50)
        ]
        for frozen in (node, worker):
            kill(frozen, signal.SIGSTOP)
        manager._remotes[0].supervisor.process._carrier.lost("the test gives it up")  # type: ignore[union-attr]
        await asyncio.gather(*tasks)
        for frozen in (worker, node):
            kill(frozen, signal.SIGCONT)
        await until(lambda: not alive(node) and not alive(worker))
    assert sorted(far.starts(), key=int) == [str(n) for n in range(50)]


async def test_a_launcher_that_is_killed_is_replaced_and_workers_go_on(far: Far) -> None:
    async with Manager(engine=far.engine(1, 1)) as manager:
        before = pids(manager)
        task = await running(manager.schedule(asyncio.sleep(0.5, "done")))
        kill(far.launchers()[0])
        await until(lambda: len(far.launchers()) == 2)
        assert await task == "done"
        assert pids(manager) == before
        kill(far.nodes()[0])
        await until(lambda: len(far.nodes()) == 2)
        assert await manager.schedule(give(1)) == 1
        assert manager.stats().restarts == 1


async def test_a_launcher_that_dies_before_a_node_is_there_is_asked_again(
    far: Far, tmp_path: Path
) -> None:
    waits = tmp_path / "waits"
    waits.touch()
    manager = Manager(engine=far.engine(1, 1, waits=str(waits)))
    manager.start()
    await until(lambda: far.launchers())
    await asyncio.sleep(0.5)  # until it has reported that it is up
    kill(far.launchers()[0])
    waits.unlink()
    assert await manager.schedule(give(1)) == 1
    assert manager.stats().restarts == 0
    assert len(far.launchers()) == 2
    await manager.close()


async def test_no_room_waits_and_is_said_and_close_withdraws_it(
    far: Far, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = tmp_path / "waits"
    waits.touch()
    manager = Manager(engine=far.engine(1, 2, waits=str(waits)))
    manager.start()
    await until(lambda: "there is no node" in caplog.text)
    assert {w.state for w in manager.stats().workers} == {WorkerState.STARTING}
    assert pids(manager) == []
    task = manager.schedule(give(1))
    began = time.monotonic()
    await manager.close()
    assert time.monotonic() - began < 10  # less than its workers would have had
    assert task.cancelled()
    assert not far.nodes()


async def test_a_replacement_that_cannot_be_had_is_asked_for_until_it_can(
    far: Far, tmp_path: Path
) -> None:
    """That costs nothing of the budget, which the death of the node has used up."""
    until_then = tmp_path / "then"
    engine = far.engine(1, 2, can=1, cannot="its node is dead as well", until=str(until_then))
    async with Manager(engine=engine, max_restarts=(1, 60.0)) as manager:
        task = manager.schedule(begin(str(far.history), "late"), timedelta(seconds=1))
        kill(far.nodes()[0])
        await until(lambda: manager.stats().restarts >= 8)
        until_then.touch()
        assert await task == "late"
    assert far.starts() == ["late"]


async def test_the_first_without_a_cluster_is_a_start_error(far: Far) -> None:
    with pytest.raises(WorkerStartError, match="there is no cluster"):
        async with Manager(engine=far.engine(2, 2, refuse="/nowhere")):
            pass
    await until(lambda: not any(map(alive, far.launchers())))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"claims": {"python": "3.8"}}, "node node1 has Python 3.8, and this host has"),
        ({"claims": {"aioscheduler": "1.0"}}, "has aioscheduler 1.0"),
        ({"host_code_version": "v2", "code_version": "v1"}, "has code_version 'v1'"),
        ({"cannot": "no aioscheduler is installed there"}, "no aioscheduler is installed there"),
        ({"garbage": "Traceback"}, "which cannot be handled"),
    ],
)
async def test_what_cannot_begin_says_why(far: Far, said: Any, message: str) -> None:
    with pytest.raises(WorkerStartError, match=message):
        async with Manager(engine=far.engine(1, 2, **said)):
            pass
    await until(lambda: not any(map(alive, far.nodes())))


async def test_connections_have_tls_if_the_engine_has_it(far: Far, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    engine = far.engine(1, 2, certificate=certificate, host_certificate=certificate)
    async with Manager(engine=engine) as manager:
        assert await manager.map(give, range(1000)) == list(range(1000))
        assert len(await manager.schedule(give(b"x" * (8 << 20)))) == 8 << 20
        kill(far.nodes()[0])
        await until(lambda: len(far.nodes()) == 2)
        assert await manager.schedule(give(1)) == 1


@pytest.mark.parametrize("side", ["certificate", "host_certificate"])
async def test_tls_on_one_side_alone_is_a_start_error(far: Far, tmp_path: Path, side: str) -> None:
    with pytest.raises(WorkerStartError, match="its outpost at 127.0.0.1"):
        async with Manager(engine=far.engine(1, 1, **{side: make_certificate(tmp_path)})):
            pass


async def test_a_launcher_that_is_not_there_is_a_start_error(
    far: Far, reports: list[dict[str, Any]]
) -> None:
    manager = Manager(engine=far.engine(command=["/no/such/launcher"]))
    with pytest.raises(WorkerStartError, match="No such file"):
        manager.start()
    assert "has failed" in reports.pop()["message"]
    await manager.close()


async def test_a_failed_initializer_is_a_start_error_with_its_traceback(far: Far) -> None:
    with pytest.raises(WorkerStartError, match="ZeroDivisionError"):
        async with Manager(engine=far.engine(), initializer=fail):
            pass


async def test_tasks_that_may_run_again_wait_until_the_node_is_dead(
    far: Far, caplog: pytest.LogCaptureFixture
) -> None:
    """The outpost is stopped, so that it does not notice; its worker goes on."""
    history = str(far.history)
    engine = far.engine(lost_after=60.0, deaf=True)
    async with Manager(engine=engine, on_worker_loss="rerun") as manager:
        task = await running(manager.schedule(begin(history, "once", 0.3)))
        await until(far.starts)
        kill(far.nodes()[0], signal.SIGSTOP)
        life: Any = manager._remotes[0].supervisor.process
        life._carrier.lost("the test gives it up")
        await asyncio.sleep(0.5)
        assert not task.done()
        assert "run again when the cluster says that it is dead" in caplog.text
        kill(far.nodes()[0])
        assert await task == "once"
        assert far.starts() == ["once", "once"]


async def test_large_payloads_leave_room_for_others(far: Far) -> None:
    async with Manager(2, engine=far.engine(1, 2)) as manager:
        large = manager.schedule(give(b"x" * (100 << 20)), key=0)
        small = [manager.schedule(give(n), key=1) for n in range(500)]
        await asyncio.gather(*small)
        assert len(await large) == 100 << 20


async def test_a_worker_that_does_not_read_holds_up_only_itself(far: Far) -> None:
    async with Manager(2, engine=far.engine(1, 2)) as manager:
        victim = manager._remotes[0].supervisor.process
        assert victim is not None
        assert victim.pid is not None
        kill(victim.pid, signal.SIGSTOP)
        stuck = [manager.schedule(give(b"x" * (1 << 20)), key=n) for n in range(40)]
        done = [task for task in stuck if task.ref is not None and task.ref.worker == 1]
        await asyncio.gather(*done)
        await manager.schedule(give(1), key=next(n for n, t in enumerate(stuck) if t in done))
        kill(victim.pid, signal.SIGCONT)
        await asyncio.gather(*stuck)
        assert manager.stats().restarts == 0


async def test_two_managers_do_not_meet(far: Far, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Far(tmp_path / "other")
    async with (
        Manager(engine=far.engine()) as one,
        Manager(engine=other.engine()) as two,
    ):
        kill(far.nodes()[0])
        assert await two.schedule(give(2)) == 2
        assert await one.schedule(give(1)) == 1
        assert two.stats().restarts == 0
    other.end()


async def test_an_outpost_of_which_the_host_was_never_told_ends_by_itself(far: Far) -> None:
    """Its launcher is killed too early; the next one starts another."""
    manager = Manager(engine=far.engine(mute=1, host_time=1.0))
    manager.start()
    await until(far.nodes)
    kill(far.launchers()[0])
    assert await manager.schedule(give(1)) == 1
    first, second = far.nodes()
    await until(lambda: not alive(first))
    assert alive(second)
    assert manager.stats().restarts == 0
    await manager.close()


async def test_many_managers_leave_nothing(far: Far) -> None:
    for _ in range(5):
        async with Manager(engine=far.engine()) as manager:
            assert await manager.schedule(give(1)) == 1
    await until(lambda: not any(map(alive, [*far.nodes(), *far.launchers()])))


def close_in_another_loop(manager: Manager) -> None:
    asyncio.run(manager.close())


async def open_and_leave(manager: Manager) -> None:
    await manager.__aenter__()
    assert await manager.schedule(give(1)) == 1


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_ends_first_ends_all_of_it(far: Far, closed: bool) -> None:
    manager = Manager(engine=far.engine(1, 1))
    with asyncio.Runner() as runner:
        runner.run(open_and_leave(manager))
    if closed:
        close_in_another_loop(manager)
    deadline = time.monotonic() + 10
    while any(map(alive, [*far.nodes(), *far.launchers()])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(alive, [*far.nodes(), *far.launchers()]))
