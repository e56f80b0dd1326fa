"""A launcher for tests: its nodes are processes of this machine. See `_outpost.launcher`.

Settings, besides those of `outpost_node`:

- `notes`: a file to which the pid of each outpost is written, and that of the launcher as `own`
- `path`: where nodes import from
- `refuse`: a file without which there is no cluster
- `waits`: a file for whose removal each outpost waits
- `cannot`: why there is no outpost beyond the first `can`, until the file `until` exists
- `prefix`: a command that runs another
- `garbage`: a line to write first
- `proxy`: a port for the host to connect to instead, and `to`, a file with the real address
- `mute`: how many outposts are not reported
- `deaf`: whether to end no outpost
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

NODE = str(Path(__file__).with_name("outpost_node.py"))


class Launcher:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.processes: dict[int, asyncio.subprocess.Process] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    def say(self, **line: Any) -> None:
        os.write(1, json.dumps(line).encode() + b"\n")

    def note(self, *words: Any) -> None:
        if "notes" in self.settings:
            with open(self.settings["notes"], "a", encoding="utf-8") as file:
                file.write(json.dumps(words) + "\n")

    async def start(self, number: int, secret: str) -> None:
        settings = self.settings
        gone = "until" not in settings or not os.path.exists(settings["until"])
        if "cannot" in settings and number > settings.get("can", 0) and gone:
            self.say(lost=number, text=settings["cannot"])
            return
        while "waits" in settings and os.path.exists(settings["waits"]):
            self.say(waits=number, text="one outpost is asked for, and there is no node")
            await asyncio.sleep(0.05)
        process = self.processes[number] = await asyncio.create_subprocess_exec(
            *settings.get("prefix", ()),
            sys.executable,
            NODE,
            json.dumps(settings),
            env=os.environ | {"OUTPOST_SECRET": secret, "PYTHONPATH": settings["path"]},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line:
            host, port, pid = json.loads(line)
            self.note(number, pid)
            if "proxy" in settings:  # the test has a server there, which passes on
                Path(settings["to"]).write_text(f"{host} {port}", encoding="utf-8")
                host, port = "127.0.0.1", settings["proxy"]
            if number > settings.get("mute", 0):
                self.say(started=number, host=host, port=port, node=f"node{number}")
        code = await process.wait()
        del self.processes[number]
        self.say(lost=number, text=f"its process has ended with status {code}")

    async def main(self, reader: asyncio.StreamReader) -> None:
        self.note("own", os.getpid())
        if "garbage" in self.settings:
            os.write(1, self.settings["garbage"].encode() + b"\n")
        if "refuse" in self.settings and not os.path.exists(self.settings["refuse"]):
            self.say(refused="there is no cluster")
            return
        self.say(up=True)
        while line := await reader.readline():
            order = json.loads(line)
            if "start" in order:
                number = order["start"]
                run = self.start(number, order["secret"])
                self.tasks[number] = asyncio.create_task(run)
            elif self.settings.get("deaf"):
                continue
            elif order["end"] in self.processes:
                self.processes[order["end"]].kill()
            elif order["end"] in self.tasks:
                self.tasks[order["end"]].cancel()
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                process.kill()


async def main() -> None:
    reader = asyncio.StreamReader(limit=1 << 20)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    settings = json.loads(await reader.readline())["settings"]
    await Launcher(settings).main(reader)


if __name__ == "__main__":
    asyncio.run(main())
