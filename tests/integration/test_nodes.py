"""Managers whose workers are on the nodes of a Ray cluster: four of them, on this machine.

Tests that do not concern Ray (connections, clocks, windows, versions) are in `test_outposts*`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from noting import note, noted, whereabouts

from aioscheduler import Manager, WorkerLost, WorkerStartError

if find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install aioscheduler[ray]", allow_module_level=True)

from local_nodes import LocalNode, LocalNodes

from aioscheduler.ray import RayEngine

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(120)]
FOREVER = timedelta(days=1)


@pytest.fixture(scope="session")
def all_nodes() -> Iterator[LocalNodes]:
    with LocalNodes() as nodes:
        yield nodes


@pytest.fixture
def nodes(all_nodes: LocalNodes) -> LocalNodes:
    """Return three nodes of two CPUs each, whatever the last test has done to them."""
    while len(alive(all_nodes)) < 3:
        all_nodes.add(cpus=2)
    return all_nodes


def alive(nodes: LocalNodes) -> list[LocalNode]:
    return [node for node in nodes.nodes if runs(node.raylet)]


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def engine(nodes: LocalNodes, count: int = 2, workers: int = 2, **more: Any) -> RayEngine:
    return RayEngine(count, workers, address=nodes.address, **more)


def launcher() -> psutil.Process:
    """Return the launcher of this process."""
    (found,) = [
        each
        for each in psutil.Process().children()
        if any(word.endswith("ray_launcher.py") for word in each.cmdline())
    ]
    return found


async def until(condition: Any) -> None:
    """Wait, up to the test's time limit."""
    while not condition():
        await asyncio.sleep(0.05)


def on(nodes: LocalNodes, manager: Manager, worker: int = 0) -> LocalNode:
    """Return the node of a worker."""
    name = manager.stats().workers[worker].node
    (found,) = [node for node in alive(nodes) if node.address == name]
    return found


async def outcomes(tasks: list[Any]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def kinds(results: list[Any]) -> set[type]:
    return {type(each) for each in results}


async def outposts_end(nodes: LocalNodes) -> None:
    await until(lambda: not any(node.outposts() for node in alive(nodes)))


async def test_the_same_calls_run_on_the_nodes(nodes: LocalNodes, tmp_path: Path) -> None:
    async with Manager(engine=engine(nodes)) as manager:
        tasks = [manager.schedule(note(str(tmp_path / "notes"), n)) for n in range(100)]
        assert await outcomes(tasks) == list(range(100))
        places = {worker.node for worker in manager.stats().workers}
        pids = {worker.pid for worker in manager.stats().workers}
        assert places < {node.address for node in nodes.nodes}
        assert len(places) == 2  # SPREAD
        assert {
            pid for pid, _ in [await manager.schedule(whereabouts()) for _ in range(40)]
        } <= pids
        assert "ray" not in sys.modules
    assert set(noted(tmp_path / "notes").values()) == {1}
    await outposts_end(nodes)
    assert not [pid for pid in pids if pid is not None and runs(pid)]


async def test_a_node_without_power_loses_only_what_had_begun(
    nodes: LocalNodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "notes"
    async with Manager(engine=engine(nodes)) as manager:
        running = [manager.schedule(whereabouts(3600)) for _ in range(8)]
        later = [
            manager.schedule(note(str(path), n), timedelta(seconds=2 + n / 400)) for n in range(800)
        ]
        await asyncio.sleep(0.5)
        gone = on(nodes, manager)
        gone.cut_power()
        results = await outcomes(later)
        lost = [n for n, each in enumerate(results) if isinstance(each, WorkerLost)]
        assert kinds(results) <= {int, WorkerLost}
        assert lost == []  # none was due at that time
        assert noted(path) == dict.fromkeys(range(800), 1)
        assert gone.address not in {worker.node for worker in manager.stats().workers}
        ended = [task for task in running if task.done()]
        assert ended
        assert {type(task.exception()) for task in ended} == {WorkerLost}
        assert manager.stats().restarts >= 2
        for task in running:
            task.cancel()
        await outcomes(running)


async def test_twenty_power_cuts_begin_nothing_twice(nodes: LocalNodes, tmp_path: Path) -> None:
    path, count, cuts = tmp_path / "notes", 0, 20
    results: list[Any] = []
    async with Manager(engine=engine(nodes), max_restarts=(10 * cuts, 60.0)) as manager:
        for cut in range(cuts):
            tasks = [
                manager.schedule(note(str(path), count + n), timedelta(seconds=n / 2000))
                for n in range(2000)
            ]
            count += len(tasks)
            await asyncio.sleep(0.4 + cut / 50)
            on(nodes, manager, cut % 4).cut_power()
            nodes.add(cpus=2)
            results += await outcomes(tasks)
            await until(lambda: all(worker.node for worker in manager.stats().workers))
    begun = noted(path)
    lost = {n for n, each in enumerate(results) if isinstance(each, WorkerLost)}
    assert kinds(results) <= {int, WorkerLost}
    assert [n for n, times in begun.items() if times > 1] == []
    assert [n for n in range(count) if n not in lost and n not in begun] == []


async def test_a_raylet_s_death_takes_its_outpost_along(nodes: LocalNodes) -> None:
    async with Manager(engine=engine(nodes)) as manager:
        node = on(nodes, manager)
        rest = node.processes()[1:]
        agents = [each for each in rest if "ray::Outpost" not in " ".join(each.cmdline())]
        outposts = node.outposts()
        psutil.Process(node.raylet).kill()
        await until(lambda: not any(runs(each.pid) for each in outposts))
        await until(lambda: manager.stats().restarts >= 2)
        await until(lambda: all(worker.node for worker in manager.stats().workers))
        assert node.address not in {worker.node for worker in manager.stats().workers}
        assert len(await manager.map(whereabouts, [0.0] * 100)) == 100
        for each in agents:  # Ray leaves two of them behind
            if each.is_running():
                each.kill()


@pytest.mark.parametrize("by", ["ray.kill", "the kernel"])
async def test_an_outpost_that_is_taken_is_replaced(
    by: str, nodes: LocalNodes, caplog: pytest.LogCaptureFixture
) -> None:
    """An autoscaler, or Ray's memory monitor, does that."""
    async with Manager(engine=engine(nodes, count=1)) as manager:
        task = manager.schedule(whereabouts(3600))
        pending = manager.schedule(whereabouts(), timedelta(seconds=4))
        await asyncio.sleep(0.3)
        (outpost,) = on(nodes, manager).outposts()
        if by == "ray.kill":
            code = f"""
                import ray
                from ray.util import list_named_actors
                ray.init({nodes.address!r}, namespace="aioscheduler", logging_level="error")
                for name in list_named_actors():
                    ray.kill(ray.get_actor(name))
            """
            await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", textwrap.dedent(code)],
                check=True,
                capture_output=True,
            )
        else:
            outpost.kill()
        await until(lambda: manager.stats().restarts >= 2)
        await until(lambda: all(worker.node for worker in manager.stats().workers))
        assert (await pending)[0]
        task.cancel()
        [result] = await outcomes([task])
        assert isinstance(result, WorkerLost | asyncio.CancelledError)


async def test_a_dead_head_stops_nothing_that_runs_until_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "3")  # for the launcher alone
    path = tmp_path / "notes"
    with ExitStack() as stack:
        nodes = stack.enter_context(LocalNodes({"RAY_gcs_rpc_server_reconnect_timeout_s": "60"}))
        node = nodes.add(cpus=2)
        async with Manager(engine=engine(nodes, count=1)) as manager:
            first = launcher()
            nodes.lose_head()
            tasks = [
                manager.schedule(note(str(path), n), timedelta(seconds=n / 10)) for n in range(100)
            ]
            await until(lambda: not runs(first.pid))  # Ray has ended its driver's process
            assert await outcomes(tasks) == list(range(100))
            assert manager.stats().restarts == 0
            # Start another head at its address, and a node, where the old outpost is replaced.
            port = int(nodes.address.rpartition(":")[2])
            again = stack.enter_context(LocalNodes(port=port))
            other = again.add(cpus=2)
            node.cut_power()
            await until(
                lambda: [each.node for each in manager.stats().workers] == [other.address] * 2
            )
            assert len(await manager.map(whereabouts, [0.0] * 100)) == 100
    assert set(noted(path).values()) == {1}
    assert "the launcher is gone" in caplog.text


async def test_a_dead_launcher_is_not_missed(
    nodes: LocalNodes, caplog: pytest.LogCaptureFixture
) -> None:
    async with Manager(engine=engine(nodes)) as manager:
        pending = manager.schedule(whereabouts(), timedelta(seconds=3))
        first = launcher()
        first.kill()
        assert len(await manager.map(whereabouts, [0.0] * 100)) == 100
        assert manager.stats().restarts == 0
        await until(lambda: not runs(first.pid))
        # Now another is needed, while there is no launcher to start it.
        on(nodes, manager).outposts()[0].kill()
        await until(lambda: manager.stats().restarts >= 2)
        await until(lambda: all(worker.node for worker in manager.stats().workers))
        assert (await pending)[0]
    await outposts_end(nodes)


async def test_without_room_the_start_waits_and_may_be_left(
    nodes: LocalNodes, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(engine=engine(nodes, count=1, options={"num_cpus": 50}))
    manager.start()
    task = manager.schedule(whereabouts())
    ready = asyncio.ensure_future(manager.ready())
    await asyncio.sleep(3)
    assert [worker.state for worker in manager.stats().workers] == ["starting"] * 2
    assert [worker.pid for worker in manager.stats().workers] == [None] * 2
    assert not ready.done()
    assert not task.done()
    await manager.close(timeout=1)
    assert kinds(await outcomes([ready, task])) == {WorkerStartError, asyncio.CancelledError}


async def test_a_replacement_without_room_waits_for_a_node(
    nodes: LocalNodes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    count = len(alive(nodes))  # as many as there is room for
    async with Manager(engine=engine(nodes, count=count), max_restarts=(3, 60.0)) as manager:
        pending = [manager.schedule(whereabouts(), timedelta(seconds=1)) for _ in range(60)]
        on(nodes, manager).cut_power()
        await until(lambda: manager.stats().restarts >= 2)
        await asyncio.sleep(3)
        states = [worker.state for worker in manager.stats().workers]
        assert [state.value for state in states].count("ready") == 2 * count - 2
        nodes.add(cpus=2)
        assert len(await outcomes(pending)) == 60
        await until(lambda: all(worker.node for worker in manager.stats().workers))
        assert manager.stats().restarts >= 2


async def test_a_node_without_the_library_says_what_to_do(
    nodes: LocalNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # Ray's own processes import from there
    (tmp_path / "aioscheduler.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'aioscheduler'\")"
    )
    with pytest.raises(WorkerStartError) as caught:
        async with Manager(engine=engine(nodes, count=1)):
            pass
    text = str(caught.value)
    assert "No module named 'aioscheduler'" in text
    assert "pip install aioscheduler[ray]" in text
    assert "runtime_env" in text
    assert any(node.address in text for node in nodes.nodes)
    await outposts_end(nodes)


async def test_a_module_that_is_missing_is_its_task_s_failure(
    nodes: LocalNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_the_host_has_it.py").write_text("async def work(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    from only_the_host_has_it import work  # type: ignore[import-not-found]

    async with Manager(engine=engine(nodes, count=1)) as manager:
        [result] = await outcomes([manager.schedule(work())])
        assert type(result) is ModuleNotFoundError
        assert "only_the_host_has_it" in str(result)
        node = manager.stats().workers[0].node
        assert node is not None
        assert any(node in note for note in [str(result), *getattr(result, "__notes__", ())])
    shipped = engine(nodes, count=1, runtime_env={"working_dir": str(tmp_path)})
    async with Manager(engine=shipped) as manager:
        assert await manager.schedule(work()) == 1


async def test_a_node_without_a_free_port_is_named(nodes: LocalNodes) -> None:
    with ExitStack() as stack:
        # A port that is free on the first node is taken on all.
        port = 0
        for node in alive(nodes):
            server = stack.enter_context(socket.create_server((node.address, port)))
            port = server.getsockname()[1]
        text = rf"on the node 127\.0\.0\.\d+: .*none of ports=\({port}, {port}\) is free there"
        with pytest.raises(WorkerStartError, match=text):
            async with Manager(engine=engine(nodes, 1, ports=(port, port))):
                pass
    async with Manager(engine=engine(nodes, 1, ports=(port, port))):
        pass


async def test_a_node_with_other_code_is_refused(nodes: LocalNodes) -> None:
    stale = {"env_vars": {"AIOSCHEDULER_CODE_VERSION": "monday"}}
    with pytest.raises(WorkerStartError, match="code_version 'monday', and this host has 'tuesda"):
        async with Manager(engine=engine(nodes, 1, code_version="tuesday", runtime_env=stale)):
            pass
    async with Manager(engine=engine(nodes, 1, code_version="monday", runtime_env=stale)):
        pass
    async with Manager(engine=engine(nodes, 1, runtime_env=stale)):  # no code version to compare
        pass


async def test_two_managers_stay_apart(nodes: LocalNodes) -> None:
    asked = engine(nodes, count=1)
    async with Manager(engine=asked) as one:
        pids = {pid for pid, _ in await one.map(whereabouts, [0.0] * 20)}
        async with Manager(engine=asked) as other:
            others = {pid for pid, _ in await other.map(whereabouts, [0.0] * 20)}
            assert not pids & others
        assert {pid for pid, _ in await one.map(whereabouts, [0.0] * 20)} <= pids
        assert one.stats().restarts == 0


async def test_a_ray_of_its_own_is_started_and_ended(tmp_path: Path) -> None:
    own = psutil.Process()
    before = {each.pid for each in own.children(recursive=True)}
    async with Manager(engine=RayEngine(2, 1, address="local")) as manager:
        started = [each for each in own.children(recursive=True) if each.pid not in before]
        assert len(await manager.map(whereabouts, [0.0] * 100)) == 100
    await until(lambda: not any(runs(each.pid) for each in started))


async def test_a_dead_address_is_named() -> None:
    with pytest.raises(WorkerStartError, match=r"nothing answers at the address '127\.0\.0\.1:1'"):
        async with Manager(engine=RayEngine(1, 1, address="127.0.0.1:1")):
            pass


def test_the_script_that_cuts_the_power_counts() -> None:
    script = Path(__file__).parents[2] / "scripts" / "try_nodes.py"
    command = [sys.executable, str(script), "--seconds", "6", "--rate", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the power of 127.0.0." in done.stdout
    assert "begun twice: 0; reported as finished but never begun: 0\n" in done.stdout
