"""Hosts and nodes that lose each other: a host that dies, a machine that falls silent."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import far_driver
import pytest
from far import Far, alive, begin, until

from aioscheduler import Manager


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    made = Far(tmp_path)
    yield made
    made.end()


class Driver:
    """Start the host in a process of its own."""

    def __init__(self, folder: Path, *prefix: str, **settings: Any) -> None:
        command = [*prefix, sys.executable, far_driver.__file__, str(folder), json.dumps(settings)]
        path = os.pathsep.join(sys.path)
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("spins", [True, False])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_nothing_outlives_its_host(
    far: Far, tmp_path: Path, number: signal.Signals, spins: bool
) -> None:
    """Not even a worker whose loop is blocked."""
    driver = Driver(tmp_path, nodes=2, spins=spins)
    try:
        workers = await asyncio.to_thread(driver.hear)
        assert len(workers) == 2
        assert all(map(alive, [*workers, *far.nodes(), *far.launchers()]))
        os.kill(driver.process.pid, number)
        left = [*workers, *far.nodes(), *far.launchers()]
        await until(lambda: not any(map(alive, left)), 30)
    finally:
        driver.close()


async def test_a_host_that_is_stopped_loses_nothing(far: Far, tmp_path: Path) -> None:
    """Its kernel answers, for longer than `lost_after`."""
    driver = Driver(tmp_path, nodes=1, spins=False, lost_after=1.0)
    try:
        workers = await asyncio.to_thread(driver.hear)
        os.kill(driver.process.pid, signal.SIGSTOP)
        await asyncio.sleep(4)
        os.kill(driver.process.pid, signal.SIGCONT)
        await asyncio.sleep(1.5)  # it looks at its connections once a second
        assert all(map(alive, [*workers, *far.nodes()]))
    finally:
        driver.close()


# ---- a machine that falls silent


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def apart() -> Iterator[tuple[str, str, str]]:
    """Make two network namespaces whose link can be cut; yield names, and the second's address."""
    one, two = f"aio-host-{os.getpid()}", f"aio-node-{os.getpid()}"
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root, and iproute2")
    try:
        for name in (one, two):
            ip("netns", "add", name)
        ip("link", "add", "v0", "netns", one, "type", "veth", "peer", "name", "v1", "netns", two)
        for name, link, address in ((one, "v0", "10.213.77.1"), (two, "v1", "10.213.77.2")):
            ip("-n", name, "address", "add", f"{address}/30", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        for name in (one, two):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        pytest.skip(f"network namespaces cannot be had here: {error.stderr!r}")
    yield one, two, "10.213.77.2"
    for name in (one, two):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


async def test_a_machine_that_is_not_heard_is_lost_on_both_sides(
    far: Far, tmp_path: Path, apart: tuple[str, str, str]
) -> None:
    one, two, address = apart
    driver = Driver(
        tmp_path,
        *("ip", "netns", "exec", one),
        nodes=1,
        spins=False,
        lost_after=2.0,
        prefix=["ip", "netns", "exec", two],
        listen=address,
        deaf=True,
        can=1,
        cannot="there is no other",
    )
    try:
        workers = await asyncio.to_thread(driver.hear)
        await asyncio.sleep(3)  # nothing is lost by being idle for longer than `lost_after`
        assert all(map(alive, [*workers, *far.nodes()]))
        ip("-n", two, "link", "set", "v1", "down")
        ended = await asyncio.to_thread(driver.hear)
        # Either side may notice first; if it is the node, the launcher reports its end.
        assert "nothing has been heard of its machine" in ended or "its process has ended" in ended
        await until(lambda: not any(map(alive, [*workers, *far.nodes()])), 30)
        assert driver.process.poll() is None
    finally:
        driver.close()


# ---- a machine with another clock


async def stamp() -> int:
    return time.time_ns()


async def test_another_clock_makes_no_task_early(far: Far) -> None:
    """The node's monotonic clock is off by a day; its time of day is this machine's."""
    shift = ["unshare", "--time", "--monotonic", "86400", "--boottime", "86400", "--fork"]
    if subprocess.run([*shift, "true"], check=False, capture_output=True).returncode:
        pytest.skip("time namespaces need root, and Linux 5.6")
    async with Manager(engine=far.engine(prefix=[*shift, "--kill-child"])) as manager:
        assert await manager.schedule(monotonic()) - time.monotonic() > 80_000
        due = time.time_ns() + 20_000_000
        tasks = [
            manager.schedule(stamp(), timedelta(milliseconds=20 + n)) for n in range(0, 1500, 10)
        ]
        for n, task in enumerate(tasks):
            assert await task >= due + 10_000_000 * n
        assert await manager.schedule(begin(str(far.history), "x")) == "x"


async def monotonic() -> float:
    return time.monotonic()
