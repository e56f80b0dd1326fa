"""A host with very many far-off tasks, which a test kills.

Run as `python far_host.py PATH LOG COUNT`, it prints its tasks' references as JSON when it has
changed some of them, and waits.
"""

from __future__ import annotations

import asyncio
import json
import sys

from enduring import note
from farstores import FIRST, put_many

from aioscheduler import Manager

USERS = 40


async def main(path: str, log: str, count: str) -> None:
    async with Manager(store=path, workers=1) as manager:
        await put_many(manager, int(count))
        tasks = [
            manager.schedule(note(log, f"user {n}"), 2 * FIRST, id=f"user/{n}")
            for n in range(USERS)
        ]
        await manager.sync()
        refs = [task.ref for task in tasks]
        del tasks
        for ref in refs[:10]:
            assert manager.cancel(ref)
        for ref in refs[10:20]:
            assert manager.reschedule(ref, 3 * FIRST)
        for n in range(20, 30):
            manager.schedule(note(log, f"new {n}"), 2 * FIRST, id=f"user/{n}", replace=True)
        await manager.sync()
        print(json.dumps(refs), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
