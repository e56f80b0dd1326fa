"""aioscheduler 1.4.2 itself, for the benchmarks: it needs Python 3.10 or older.

`run(what, count)` makes an environment for it, once, in the user's cache folder (as it has this
package's name), and runs this file there. Without such a Python there are no figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035  this file also runs on old Pythons

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "aioscheduler-1.4.2"


def find_python() -> Optional[str]:  # noqa: UP045
    """Return a Python that 1.4.2 runs on, if there is one."""
    for minor in (10, 9, 8):
        found = shutil.which(f"python3.{minor}")
        if found:
            works = subprocess.run([found, "-c", ""], capture_output=True, check=False)
            if works.returncode == 0:
                return found
    return None


def run(what: str, count: int) -> Optional[Dict[str, Any]]:  # noqa: UP006, UP045
    """Return the figures of 1.4.2, or None where it cannot be installed."""
    python = CACHE / "bin/python"
    try:
        if not python.exists():
            base = find_python()
            if base is None:
                return None
            subprocess.run([base, "-m", "venv", str(CACHE)], check=True)
            install = [str(python), "-m", "pip", "install", "-q", "aioscheduler==1.4.2", "psutil"]
            subprocess.run(install, check=True, capture_output=True)
        # -I: this folder and PYTHONPATH may hold the package of the same name.
        command = [str(python), "-I", "-W", "ignore", __file__, what, str(count)]
        done = subprocess.run(command, check=True, capture_output=True, timeout=300, text=True)
    except (OSError, subprocess.SubprocessError):
        return None
    figures: Dict[str, Any] = json.loads(done.stdout)  # noqa: UP006
    return figures


async def burst(count: int) -> Dict[str, Any]:  # noqa: UP006
    """Run tasks that are due together; return their rate and median lateness."""
    from aioscheduler import TimedScheduler  # 1.4.2's

    late: List[float] = []  # noqa: UP006
    done = asyncio.Event()

    async def job() -> None:
        late.append(time.time() - at)
        if len(late) == count:
            done.set()

    at = time.time() + 1 + count / 50_000
    when = datetime.utcfromtimestamp(at)  # noqa: DTZ004  it takes naive UTC only
    scheduler = TimedScheduler()
    scheduler.start()
    for _ in range(count):
        scheduler.schedule(job(), when)
    await done.wait()
    late.sort()
    return {"tasks/s": count / late[-1], "p50 ms": late[count // 2] * 1000}


async def memory(count: int) -> Dict[str, Any]:  # noqa: UP006
    """Return the bytes per pending task."""
    import psutil

    from aioscheduler import TimedScheduler  # 1.4.2's

    async def job(n: int) -> None:
        pass

    scheduler = TimedScheduler()
    scheduler.start()
    process = psutil.Process()
    before = process.memory_info().rss
    when = datetime.utcnow() + timedelta(hours=1)  # noqa: DTZ003
    for n in range(count):
        scheduler.schedule(job(n), when)
    return {"bytes": (process.memory_info().rss - before) / count}


if __name__ == "__main__":
    made = asyncio.run({"burst": burst, "memory": memory}[sys.argv[1]](int(sys.argv[2])))
    print(json.dumps(made), flush=True)
    os._exit(0)  # thousands of coroutines were never awaited
