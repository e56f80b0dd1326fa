"""Start a Ray cluster of three nodes on this machine, and cut the power of one while tasks run.

    python scripts/try_nodes.py [--seconds 20] [--rate 1000]

It needs only `pip install aioscheduler[ray]`. Each task appends a line to a file when it begins, so
that the result does not rely on the manager's word: every task is accounted for, and none has begun
twice. Otherwise it exits with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from local_nodes import LocalNodes

from aioscheduler import Manager, WorkerLost
from aioscheduler.ray import RayEngine

NODES, WORKERS = 3, 2  # each node has as many CPUs as workers


async def begin(path: str, number: int) -> int:
    """Append a line, which no other tears and no death undoes, and wait as if for an answer."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{number}\n".encode())
    os.close(descriptor)
    await asyncio.sleep(0.02)
    return number


def say(begun: float, text: str) -> None:
    print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)


def nodes_of(manager: Manager) -> str:
    counts = Counter(worker.node or "starting" for worker in manager.stats().workers)
    return ", ".join(f"{node}: {count} workers" for node, count in sorted(counts.items()))


async def run(
    nodes: LocalNodes, path: str, seconds: float, rate: int, begun: float
) -> list[object]:
    """Run tasks for some seconds, and cut the power of a node after a third of them."""
    engine = RayEngine(NODES, WORKERS, address=nodes.address)
    async with Manager(engine=engine) as manager:
        say(begun, f"the manager is ready: {nodes_of(manager)}")
        tasks = [
            manager.schedule(begin(path, number), timedelta(seconds=1 + number / rate))
            for number in range(int(rate * seconds))
        ]
        say(begun, f"{len(tasks):,} tasks are scheduled, {rate:,} a second from now on")
        await asyncio.sleep(1 + seconds / 3)
        name = manager.stats().workers[0].node
        for node in nodes.nodes:
            if node.address == name:
                node.cut_power()
        say(begun, f"the power of {name} is cut: every process there is killed at once")
        spare = asyncio.create_task(asyncio.to_thread(nodes.add, WORKERS))
        while not manager.stats().restarts:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        say(begun, f"the manager has noticed: {nodes_of(manager)}")
        while not all(worker.state == "ready" for worker in manager.stats().workers):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        say(begun, f"all are replaced: {nodes_of(manager)}")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await spare
    return list(results)


def judge(results: list[object], counts: Counter[int]) -> int:
    """Print the ends of the tasks, and return the exit status."""
    finished = {n for n, result in enumerate(results) if result == n}
    lost = {n for n, result in enumerate(results) if isinstance(result, WorkerLost)}
    rest = len(results) - len(finished) - len(lost)
    twice = sum(count > 1 for count in counts.values())
    silent = sum(n not in counts for n in finished)
    print(
        f"{len(results):,} tasks: {len(finished):,} finished, {len(lost):,} ended as WorkerLost "
        f"({sum(n in counts for n in lost):,} of these had begun), {rest:,} ended otherwise"
    )
    print(f"begun twice: {twice}; reported as finished but never begun: {silent}")
    good = not (twice or silent or rest)
    print("every task is accounted for, and none ran twice" if good else "THIS IS A FAULT")
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=1000, help="tasks a second (default 1000)")
    options = parser.parse_args()
    begun = time.monotonic()
    say(begun, f"starting a Ray cluster of {NODES} nodes on this machine")
    with tempfile.TemporaryDirectory() as folder, LocalNodes() as nodes:
        for _ in range(NODES):
            nodes.add(WORKERS)
        path = Path(folder) / "begun"
        results = asyncio.run(run(nodes, str(path), options.seconds, options.rate, begun))
        return judge(results, Counter(map(int, path.read_text().split())))


if __name__ == "__main__":
    sys.exit(main())
