"""An outpost for tests, as the launcher of tests starts it: `python outpost_node.py SETTINGS`.

It prints where it listens, in a line, and then runs `agent.serve`. The settings can make it lie
about its versions, or begin late.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from far import tls

from aioscheduler._outpost import agent
from aioscheduler._outpost.versions import versions


async def main(settings: dict[str, Any]) -> None:
    if "host_time" in settings:
        agent.HOST_TIME = settings["host_time"]
    if "claims" in settings:
        claims = versions(settings.get("code_version")) | settings["claims"]
        vars(agent)["versions"] = lambda code_version: claims
    time.sleep(settings.get("late", 0.0))
    secret = bytes.fromhex(os.environ.pop("OUTPOST_SECRET"))
    ports = settings.get("ports")
    await agent.serve(
        secret,
        settings.get("listen", "127.0.0.1"),
        None if ports is None else (ports[0], ports[1]),
        settings.get("code_version"),
        tls(settings["certificate"], server=True) if "certificate" in settings else None,
        listening,
    )


def listening(host: str, port: int) -> None:
    print(json.dumps([host, port, os.getpid()]), flush=True)
    os.dup2(2, 1)  # its launcher may be gone when tasks print


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
