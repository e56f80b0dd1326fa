"""Whole programs, run as users do: from a file, -c, standard input, IPython, a terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from aioscheduler import Manager

# Programs in the shapes of 1.4.2's README: no `__main__` guard, no close(), naive UTC times.
MANAGER = """
import asyncio
from aioscheduler import Manager, QueuedScheduler

async def work(n):
    print(f"working on {n}")

async def main():
    manager = Manager(5, cls=QueuedScheduler)
    manager.start()
    for i in range(30000):
        manager.schedule(work(i))
    await asyncio.sleep(5)

asyncio.run(main())
"""

TIMED = """
import asyncio
from datetime import datetime, timedelta
from aioscheduler import TimedScheduler

async def work(n):
    print(f"working on {n}")

async def main():
    start = datetime.utcnow()
    scheduler = TimedScheduler()
    scheduler.start()
    for i in range(60):
        scheduler.schedule(work(i), start + timedelta(seconds=0.5 + i / 100))
    await asyncio.sleep(2)

asyncio.run(main())
"""

ASK = """
import asyncio, os
from dataclasses import dataclass
from aioscheduler import Manager

OFFSET = 40

@dataclass
class Answer:
    value: int
    pid: int

def helper(n):
    return Answer(n + OFFSET, os.getpid())

async def work(n):
    return helper(n)

async def ask():
    async with Manager(workers=2) as manager:
        answer = await manager.schedule(work(2))
        assert type(answer) is Answer and answer.pid != os.getpid()
        print(answer.value, await manager.schedule((lambda n: work(n))(1)) is not None)
"""

ENDINGS = """
import asyncio, os, signal, sys, time
from aioscheduler import Manager

async def spin():
    while True:
        pass

async def spin_in_c():
    sum(range(10**13))

async def main():
    manager = Manager(2, workers=2)
    manager.start()
    await manager.ready()
    manager.schedule({busy}())
    manager.schedule(asyncio.sleep(100))
    await asyncio.sleep(0.3)
    print(*(link.supervisor.process.pid for link in manager._remotes), flush=True)
    {end}

asyncio.run(main())
"""

CTRL_C = """
import asyncio, sys
from aioscheduler import Manager

async def nap():
    try:
        await asyncio.sleep(100)
    finally:
        print("cleaned up")

async def main():
    async with Manager(2, workers=2) as manager:
        for _ in range(4):
            manager.schedule(nap())
        await asyncio.sleep(0.3)
        print("ready", *(link.supervisor.process.pid for link in manager._remotes), flush=True)
        await asyncio.sleep(100)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("stopped")
    sys.exit(130)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(program: str, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(program)
        return subprocess.run(
            [sys.executable, *(args or [str(path)])],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            cwd=tmp_path,
        )

    return run


def complaints(stderr: str) -> list[str]:
    """Return the lines of stderr, without Python's own warnings on utcnow()."""
    lines = stderr.splitlines()
    return [line for line in lines if "utcnow" not in line]


def gone(pids: list[int], within: float = 2.0) -> bool:
    """Return whether processes end in time; a zombie has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_manager_program_prints_each_line_once_from_several_processes(run: Run) -> None:
    done = run(MANAGER.replace('{n}"', '{n}", __import__("os").getpid()'))
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    words = [line.split() for line in done.stdout.splitlines()]
    assert sorted(int(number) for _, _, number, _ in words) == list(range(30000))
    assert len({pid for *_, pid in words}) == min(5, len(os.sched_getaffinity(0)))


def test_the_timed_program_runs(run: Run) -> None:
    done = run(TIMED)
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert done.stdout.splitlines() == [f"working on {n}" for n in range(60)]


def test_from_a_command_line_and_from_standard_input(run: Run) -> None:
    program = ASK + "\nasyncio.run(ask())"
    for done in (run("", "-c", program), run("", "-", stdin=program), run(program)):
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "42 True\n")


ODD_JOBS = """
import asyncio, time
from collections import namedtuple
from datetime import datetime
from aioscheduler import Manager

async def tell_time():
    return f"{datetime(2030, 1, 2):%Y}"  # C code that imports looks for __builtins__ of globals

async def parse_time():
    return time.strptime("2030", "%Y").tm_year

async def make_class():
    Point = namedtuple("Point", "x y")  # its __new__ has globals of its own
    return Point(1, 2)

async def fail():
    raise LookupError("no")  # this line is shown

async def main():
    for job in (tell_time, parse_time, make_class):
        async with Manager(workers=1) as manager:
            print(await manager.schedule(job()))
    async with Manager(workers=1) as manager:
        try:
            await manager.schedule(fail())
        except LookupError as error:
            print("this line is shown" in str(error.__cause__), __file__ in str(error.__cause__))

asyncio.run(main())
"""


def test_functions_of_main_can_do_what_those_of_modules_can(run: Run) -> None:
    done = run(ODD_JOBS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["2030", "2030", "Point(x=1, y=2)", "True True"]


def test_from_ipython(run: Run) -> None:
    pytest.importorskip("IPython")
    done = run(ASK + "\nawait ask()", "-m", "IPython", "--no-banner", "-c", ASK + "\nawait ask()")
    assert done.returncode == 0, done.stderr
    assert "42 True" in done.stdout


def test_a_later_cell_sees_what_it_redefined(run: Run) -> None:
    cells = (
        ASK
        + """
manager = Manager(workers=1)
manager.start()
print((await manager.schedule(work(2))).value)
OFFSET = 50
def helper(n):
    return Answer(n + OFFSET, os.getpid())
async def work(n):
    return helper(n)
print((await manager.schedule(work(2))).value)
await manager.close()
"""
    )
    pytest.importorskip("IPython")
    done = run("", "-m", "IPython", "--no-banner", "-c", cells)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["42", "52"]


ENDS = {
    "return": 0,
    "raise RuntimeError('boo')": 1,
    "sys.exit(3)": 3,
    "os._exit(4)": 4,
    "os.kill(os.getpid(), signal.SIGKILL)": -9,
    "os.kill(os.getpid(), signal.SIGTERM)": -15,
}


# Each beside a task that never leaves C; an orderly and a sudden end beside Python code, too.
ENDINGS_OF_THE_HOST = [
    *(("spin_in_c", *end) for end in ENDS.items()),
    *(
        pytest.param("spin", *end, marks=() if end[1] in (0, -9) else pytest.mark.long)
        for end in ENDS.items()
    ),
]


@pytest.mark.parametrize(("busy", "end", "status"), ENDINGS_OF_THE_HOST)
def test_no_process_outlives_the_host(run: Run, busy: str, end: str, status: int) -> None:
    done = run(ENDINGS.format(busy=busy, end=end))
    assert done.returncode == status
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert gone(pids)
    assert done.stderr.count("Traceback") == (1 if status == 1 else 0)


def test_a_host_killed_while_workers_start_leaves_none(run: Run) -> None:
    done = run(ENDINGS.format(busy="spin", end="").replace("await manager.ready()", """
    print(*(link.supervisor.process.pid for link in manager._remotes), flush=True)
    time.sleep(0.03)
    os.kill(os.getpid(), signal.SIGKILL)
"""))  # fmt: skip
    assert done.returncode == -9
    assert gone([int(pid) for pid in done.stdout.split()])


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_a_terminal_is_one_clean_stop(tmp_path: Path, times: int) -> None:
    """The terminal sends SIGINT to the whole group: host and workers."""
    path = tmp_path / "program.py"
    path.write_text(CTRL_C)
    pid, terminal = _in_terminal(path)
    output = b""
    pressed = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 4096)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            output += data
        while b"ready" in output and b"\n" in output[output.index(b"ready") :] and pressed < times:
            os.write(terminal, b"\x03")
            pressed += 1
            time.sleep(0.02)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    text = output.decode()
    pids = [int(word) for word in text.split("ready")[1].splitlines()[0].split()]
    assert gone(pids)
    assert os.waitstatus_to_exitcode(status) in ((130,) if times == 1 else (130, -signal.SIGINT, 1))
    if times == 1:
        assert "Traceback" not in text
        assert text.count("cleaned up") == 4
        assert text.rstrip().endswith("stopped")


SPAWNS = """
import asyncio, signal
from multiprocessing import util
from aioscheduler import Manager

spawn = util.spawnv_passfds

def look(path, args, fds):
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    return spawn(path, args, fds)

async def main():
    util.spawnv_passfds = look
    async with Manager(workers=2):
        print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

asyncio.run(main())
"""


def test_ctrl_c_does_not_meet_a_worker_that_begins(run: Run) -> None:
    """The first start also starts multiprocessing's resource tracker."""
    assert run(SPAWNS).stdout.split() == ["True", "True", "True", "False"]


async def start_program(path: Path, how: str) -> None:
    program = subprocess.Popen(["sleep", "60"], start_new_session="session" in how)
    path.write_text(f"{program.pid}\n")
    if "stuck" in how:
        time.sleep(60)  # noqa: ASYNC251  the worker is killed
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        if how == "ended":
            program.terminate()
        raise


@pytest.mark.parametrize(
    ("how", "ends"),
    [("left", False), ("ended", True), ("stuck", True), ("stuck, session", False)],
)
async def test_the_program_of_a_task_at_the_close(tmp_path: Path, how: str, ends: bool) -> None:
    path = tmp_path / "pid"
    async with Manager(1, workers=1) as manager:
        manager.schedule(start_program(path, how))
        while not (path.exists() and path.read_text().endswith("\n")):
            await asyncio.sleep(0.01)
        pid = int(path.read_text())
        await manager.close(0)
    try:
        assert gone([pid], 2.0 if ends else 0.1) == ends
    finally:
        if not ends:
            os.kill(pid, signal.SIGKILL)


def _in_terminal(path: Path) -> tuple[int, int]:
    """Start a program as the leader of a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, termios; os.setsid();"
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            "os.execv(sys.executable, [sys.executable, sys.argv[1]])",
            str(path),
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    process.returncode = 0  # we wait for it ourselves
    return process.pid, ours


def test_a_forked_child_of_the_host_cannot_reach_the_workers(run: Run) -> None:
    done = run("""
import asyncio, os, warnings
from aioscheduler import Manager
warnings.simplefilter("ignore")

async def work(n):
    return n

async def main():
    async with Manager(workers=1) as manager:
        assert await manager.schedule(work(1)) == 1
        child = os.fork()
        if child == 0:
            try:
                manager.schedule(work(2))
                manager._remotes[0]._sender.now()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert await manager.schedule(work(3)) == 3
        print(len(manager))

asyncio.run(main())
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_a_manager_that_is_dropped_takes_its_workers_along(run: Run) -> None:
    done = run("""
import asyncio, gc, psutil
from aioscheduler import Manager

async def work(n):
    return n

async def main():
    manager = Manager(workers=2)
    manager.start()
    await manager.schedule(work(1))
    return [link.supervisor.process.pid for link in manager._remotes]

pids = asyncio.run(main())
gc.collect()
print([pid for pid in pids if psutil.pid_exists(pid)])
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


IN_A_THREAD = """
import asyncio, threading, time
from aioscheduler import Manager

async def spin():
    while True:
        pass

async def begin():
    global manager
    manager = Manager(workers=2)
    manager.start()
    await manager.ready()
    if {busy}:
        manager.schedule(spin())
        await asyncio.sleep(0.1)
    print(*(link.supervisor.process.pid for link in manager._remotes), flush=True)

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
asyncio.run_coroutine_threadsafe(begin(), loop).result(20)
"""


@pytest.mark.parametrize(
    "busy", [False, True, *(pytest.param(False, marks=pytest.mark.long) for _ in range(2))]
)
def test_the_main_thread_ends_while_the_loop_runs_in_another(run: Run, busy: bool) -> None:
    """One run in three hung when the loop could replace workers that the exit had ended."""
    done = run(IN_A_THREAD.format(busy=busy))
    assert (done.returncode, done.stderr) == (0, "")
    assert gone([int(pid) for pid in done.stdout.split()], within=0.5)


STARTED_BY_A_THREAD = """
import asyncio, os, signal, threading, time
from aioscheduler import Manager

async def spin_in_c():
    sum(range(10**13))

async def start_others():
    from concurrent.futures import ProcessPoolExecutor
    global kept
    kept = ProcessPoolExecutor(1), await asyncio.create_subprocess_exec("sleep", "60")
    in_pool = await asyncio.get_running_loop().run_in_executor(kept[0], os.getpid)
    return in_pool, kept[1].pid

async def start():
    manager = Manager(2, workers=2)
    manager.start()
    await manager.ready()
    return manager

loop = asyncio.new_event_loop()
thread = threading.Thread(target=lambda: out.append(loop.run_until_complete(start())))
out = []
thread.start()
thread.join()
manager, = out

async def go_on():
    print(*await manager.schedule(start_others()))
    manager.schedule(spin_in_c())
    await asyncio.sleep(0.5)
    print(manager.stats().restarts)
    if not os.fork():
        time.sleep(4)
        os._exit(0)
    print(*(link.supervisor.process.pid for link in manager._remotes), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

loop.run_until_complete(go_on())
"""


def test_a_worker_outlives_the_thread_that_started_it_and_not_the_host(tmp_path: Path) -> None:
    """Nor does a surviving child that the host has forked keep workers alive."""
    path = tmp_path / "program.py"
    path.write_text(STARTED_BY_A_THREAD)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as host:
        assert host.stdout is not None
        others, restarts, pids = (host.stdout.readline() for _ in range(3))
        assert host.wait() == -9
        assert restarts == "0\n"
        assert gone([int(pid) for pid in (others + pids).split()])
