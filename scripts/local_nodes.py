"""Several Ray nodes on this machine, each with a loopback address of its own, for trials and tests.

    with LocalNodes() as nodes:
        node = nodes.add(cpus=2)
        RayEngine(1, 2, address=nodes.address)
        node.cut_power()

They are made by `ray.cluster_utils.Cluster` in another process, so that the caller's has no Ray. It
ends with its standard input and leaves nothing behind: neither processes that Ray does not end
itself, nor files. The head has no CPU, and so no outpost.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psutil

from aioscheduler._outpost import leftovers

SET_CHILD_SUBREAPER = 36
FIRST = 2  # 127.0.0.2 and up: Ray replaces 127.0.0.1 by an outward address
QUICK = {  # the loss of a node is noticed in seconds, and not in half a minute
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class LocalNode:
    """A node.

    Attributes:
        address: Its address, which is its name in `WorkerStats.node`.
        raylet: The process id of its first process.
    """

    address: str
    raylet: int

    def processes(self) -> list[psutil.Process]:
        """Return its processes: the raylet first, then its descendants."""
        try:
            raylet = psutil.Process(self.raylet)
            return [raylet, *raylet.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def outposts(self) -> list[psutil.Process]:
        """Return the processes of outposts, which have worker processes as children."""
        return [each for each in self.processes() if _title(each).startswith("ray::Outpost")]

    def cut_power(self) -> None:
        """Kill all processes at once: none has time to report the end of another."""
        processes = self.processes()
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.suspend()
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class LocalNodes:
    """A head and as many nodes as are added; a context manager.

    Args:
        environment: Additional variables for all processes of the nodes.
        port: The head's port, such as that of a former head; 0: any.

    Attributes:
        address: The head's address, for `RayEngine(address=...)`.
        head: The head; `lose_head` ends it.
        nodes: The nodes that were added, including those that have ended.
    """

    address: str
    head: LocalNode

    def __init__(self, environment: dict[str, str] | None = None, port: int = 0) -> None:
        self._environment = environment or {}
        self._port = port
        self.nodes: list[LocalNode] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets' paths must be short
        paths = [*sys.path, os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is handled here
            env={
                **os.environ,
                "PYTHONPATH": ":".join(os.path.abspath(each) for each in paths if each),
                "RAY_TMPDIR": self._folder,
                "RAY_USAGE_STATS_ENABLED": "0",
                **self._environment,
            },
        )
        try:
            told = self._ask()
        except BaseException:
            self.__exit__()
            raise
        self.address = told["cluster"]
        self.head = LocalNode(told["address"], told["raylet"])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, cpus: int) -> LocalNode:
        """Start another node; return it once the head knows it."""
        told = self._ask(add=cpus)
        node = LocalNode(told["address"], told["raylet"])
        self.nodes.append(node)
        return node

    def lose_head(self) -> None:
        """Kill the head's own processes, and no others."""
        self._ask(lose_head=True)

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if order:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"Ray's nodes have ended: {self._process.wait()}")
        told = json.loads(line)
        if "failed" in told:
            raise RuntimeError(told["failed"])
        assert isinstance(told, dict)
        return told


def main() -> None:
    """Run the process of the nodes: it reads orders and writes answers, lines of JSON."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # as Ray prints
    # Become the parent of orphans, so that we can end and reap them.
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.environ.pop("RAY_ADDRESS", None)
    from ray.cluster_utils import Cluster

    def told(node: Any) -> dict[str, Any]:
        raylet = node.all_processes["raylet"][0].process.pid
        return {"address": node.node_ip_address, "raylet": raylet}

    def try_to(do: Callable[[], dict[str, Any]]) -> None:
        try:
            answer = do()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            answer = {"failed": repr(error)}
        out.write(json.dumps(answer) + "\n")

    cluster = Cluster()
    count = FIRST
    port = int(sys.argv[1])

    def add(cpus: int, **more: Any) -> dict[str, Any]:
        nonlocal count
        address, count = f"127.0.0.{count}", count + 1
        return told(cluster.add_node(num_cpus=cpus, node_ip_address=address, **more))

    def head() -> dict[str, Any]:
        nonlocal count
        more: dict[str, Any] = {"include_dashboard": False, "_system_config": QUICK}
        if port:
            more["gcs_server_port"] = port
        node = add(0, **more)
        count += 10 * (port > 0)  # the former head's nodes may still exist
        return {**node, "cluster": cluster.address}

    def lose_head() -> dict[str, Any]:
        cluster.head_node.kill_gcs_server(check_alive=False)
        return {}

    try_to(head)
    for line in sys.stdin:
        order = json.loads(line)
        if "add" in order:
            try_to(lambda cpus=order["add"]: add(cpus))  # type: ignore[misc]
        else:
            try_to(lose_head)
    # Exit even if Ray does not end in time.
    threading.Timer(10, end).start()
    with suppress(Exception):
        cluster.shutdown()
    end()


def end() -> None:
    leftovers.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
