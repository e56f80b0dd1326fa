"""A host whose workers are on nodes, for tests to end it: `python far_driver.py FOLDER SETTINGS`.

It prints the pids of its workers when all of them run a task that does not end, and then how the
first such task has ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from far import Far, busy, pids, running

from aioscheduler import Manager, WorkerLost


async def main(folder: str, said: str) -> None:
    settings = json.loads(said)
    nodes, spins = settings.pop("nodes"), settings.pop("spins")
    async with Manager(
        2, engine=Far(Path(folder)).engine(nodes, 2 // nodes, **settings)
    ) as manager:
        task = busy(3600) if spins else asyncio.sleep(3600)
        tasks = [
            manager.schedule(task, key=0),
            manager.schedule(busy(3600) if spins else asyncio.sleep(3600), key=1),
        ]
        for each in tasks:
            await running(each)
        print(json.dumps(pids(manager)), flush=True)
        try:
            await tasks[0]
        except WorkerLost as error:
            print(json.dumps(str(error)), flush=True)
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
