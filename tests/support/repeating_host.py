"""A host of durable repeats, which a test kills: `python repeating_host.py PATH LOG WORKERS`.

It prints "ready"; when its input ends it lets all runs end, and prints each repeat's progress.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime

from enduring import say

from aioscheduler import Every, Manager, SQLiteStore, current_due, durable
from aioscheduler._scheduling.clock import to_ns

START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = {"allow": 0.05, "queue": 0.1, "skip": 0.07, "once": 0.11, "jitter": 0.25}
"""Seconds from one nominal time to the next, by the repeats' ids."""


@durable("repeating.mark")
async def mark(log: str, id_: str) -> None:
    due = current_due()
    assert due is not None
    say(log, id_, to_ns(due, 0))


@durable("repeating.mark_once", on_loss="fail")
async def mark_once(log: str, id_: str) -> None:
    due = current_due()
    assert due is not None
    say(log, id_, to_ns(due, 0))


def ask(manager: Manager, log: str) -> None:
    for id_, step in STEPS.items():
        function = mark_once if id_ == "once" else mark
        manager.repeat(
            function(log, id_),
            Every(step, start=START),
            id=id_,
            missed="all",
            overlap="queue" if id_ == "queue" else "skip" if id_ == "skip" else "allow",
            jitter=0.3 if id_ == "jitter" else 0,
        )


async def main(path: str, log: str, workers: int) -> None:
    async with Manager(2, workers=workers, store=SQLiteStore(path, wait=30)) as manager:
        ask(manager, log)
        await manager.sync()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for repeat in manager.repeats():
            await repeat.pause()
        await manager.join()
        letters = [letter.id async for letter in manager.dead_letters()]
        told = {
            repeat.id: [repeat._progress.next, repeat.ran, repeat.skipped]
            for repeat in manager.repeats()
        }
        print(json.dumps({"repeats": told, "letters": letters}), flush=True)
    print("closed", flush=True)


if __name__ == "__main__":
    path, log, workers = sys.argv[1:]
    asyncio.run(main(path, log, int(workers)))
