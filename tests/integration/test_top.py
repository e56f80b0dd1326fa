"""`aioscheduler top` beside real programs, in a terminal and without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import asyncio, sys
from datetime import timedelta
from aioscheduler import Manager

async def work(n):
    await asyncio.sleep(0.001)

async def main():
    async with Manager(workers=1, monitor=True) as manager:
        manager.schedule(work(0), timedelta(hours=1))
        print("ready", flush=True)
        while True:
            manager.map(work, range(20))
            await asyncio.sleep(0.02)

asyncio.run(main())
"""
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"  # the alternate screen
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"  # the cursor

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def own_sockets(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide managers of other tests, and of the user who runs them."""
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(short_path))
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program with a manager."""
    path = tmp_path / "bot.py"
    path.write_text(PROGRAM)
    running: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        running.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        return program

    yield start
    for program in running:
        program.kill()
        program.communicate()


def environment() -> dict[str, str]:
    """Return os.environ: else a child would also inherit what readline has set in C."""
    return dict(os.environ)


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aioscheduler", "top", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment())


def document() -> Any:
    return json.loads(run("--json").stdout, parse_constant=pytest.fail)


class Screen:
    """`aioscheduler top` in a terminal of its own."""

    def __init__(self, *options: str, columns: int = 140) -> None:
        self.terminal, inside = pty.openpty()
        self.written = ""
        self.resize(24, columns)
        self._before = termios.tcgetattr(inside)
        self._inside = inside
        command = [sys.executable, "-m", "aioscheduler", "top", *options]
        self.process = subprocess.Popen(
            command,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env=environment(),
        )

    def resize(self, lines: int, columns: int) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)

    def press(self, key: str) -> None:
        os.write(self.terminal, key.encode())

    def read(self, wait: float) -> None:
        if select.select([self.terminal], [], [], wait)[0]:
            self.written += os.read(self.terminal, 1 << 16).decode(errors="replace")

    def until(self, pattern: str, within: float = 15.0) -> str:
        """Read until the text, without its colours, has something; then forget it."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.written)
            if re.search(pattern, text):
                self.written = ""
                return text
            self.read(0.1)
        raise AssertionError(f"no {pattern!r} in {self.written[-3000:]!r}")

    def ends(self, within: float = 5.0) -> int:
        """Wait for its end, check that the terminal is as it was, and return the status."""
        deadline = time.monotonic() + within
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read(0.05)
        self.read(0.05)
        assert self.process.poll() is not None
        assert self.written.rindex(LEAVE) > self.written.rfind(ENTER)
        assert self.written.rindex(SHOW) > self.written.rfind(HIDE)
        assert termios.tcgetattr(self._inside) == self._before
        assert "Traceback" not in self.written
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)
        os.close(self._inside)


@pytest.fixture
def screen() -> Iterator[Callable[..., Screen]]:
    opened: list[Screen] = []

    def open_screen(*options: str, columns: int = 140) -> Screen:
        opened.append(Screen("--interval", "0.2", *options, columns=columns))
        return opened[-1]

    yield open_screen
    for made in opened:
        made.close()


# ---- for scripts


def test_once_shows_several_managers(start: Start) -> None:
    programs = start(), start()
    done = run("--once")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "2 managers  2 workers" in lines[0]
    assert sum(line.startswith("manager ") for line in lines) == 2
    assert sum("bot.py" in line for line in lines) == 2
    for program in programs:
        assert any(line.startswith("host") and str(program.pid) in line for line in lines)
    workers = [line.split() for line in lines if line.startswith("0 ")]
    assert all(worker[2] == "ready" for worker in workers)
    assert "\x1b" not in done.stdout


def test_json_has_rates_and_what_stats_gives(start: Start) -> None:
    program = start()
    managers = document()["managers"]
    assert [(m["pid"], m["program"]) for m in managers] == [(program.pid, "bot.py")]
    (worker,) = managers[0]["stats"]["workers"]
    assert worker["state"] == "ready"
    assert worker["pending"] >= 1
    assert worker["done_per_second"] > 100
    assert managers[0]["stats"]["done_per_second"] == worker["done_per_second"]


def test_without_a_manager_the_status_is_1() -> None:
    for options in (["--once"], ["--json"]):
        done = run(*options)
        assert done.returncode == 1
        assert "Manager(monitor=True)" in done.stderr


def test_whoever_has_seen_enough_may_leave(start: Start) -> None:
    start()
    for option in ("--once", "--json"):
        command = f"{sys.executable} -m aioscheduler top {option} | true"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30)
        assert done.stderr == ""


def test_a_stopped_host_is_silent(start: Start) -> None:
    program = start()
    program.send_signal(signal.SIGSTOP)
    assert [manager["stats"] for manager in document()["managers"]] == [None]
    assert "does not answer" in run("--once").stdout


# ---- live


def test_managers_come_and_go(start: Start, screen: Callable[..., Screen]) -> None:
    shown = screen()
    shown.until("no running manager of this user found")
    program = start()
    shown.until(f"manager [0-9a-f]{{8}}  bot.py  pid {program.pid}")
    shown.until(r"ready.*[1-9]\d\d")
    shown.until("[▂▃▄▅▆▇]{3}")
    program.kill()
    shown.until("no running manager of this user found")
    shown.press("q")
    assert shown.ends() == 0


def test_a_killed_worker_is_replaced_and_a_stopped_host_does_not_answer(
    start: Start, screen: Callable[..., Screen]
) -> None:
    program = start()
    worker = document()["managers"][0]["stats"]["workers"][0]["pid"]
    shown = screen()
    shown.until(f"0 +{worker} ready")
    os.kill(worker, signal.SIGKILL)
    text = shown.until(f"0 +(?!{worker})[0-9]+ ready.* 1\\b")
    replacement = re.findall(r"0 +([0-9]+) ready", text)[-1]
    os.kill(int(replacement), signal.SIGSTOP)
    shown.until(f"0 +{replacement} silent", within=5)
    os.kill(int(replacement), signal.SIGCONT)
    shown.until(f"0 +{replacement} ready")
    program.send_signal(signal.SIGSTOP)
    shown.until("does not answer")
    shown.press("q")  # it is obeyed while the program waits for that manager
    assert shown.ends(within=0.9) == 0


def test_keys_and_sizes(start: Start, screen: Callable[..., Screen]) -> None:
    start()
    shown = screen(columns=140)
    shown.until("late p99|p99 +lateness")
    shown.press(" ")
    shown.until("paused")
    shown.resize(24, 80)
    shown.until("fail +p50 +p99 +rst")
    shown.press(" ")
    shown.resize(24, 160)
    shown.until("late p99 lateness +loop lag")
    shown.press("lr")
    shown.until("p99")
    # This terminal is not a controlling one, so that the test can read it afterwards; all that can
    # be checked is that Ctrl-C and Ctrl-Z would be signals.
    assert termios.tcgetattr(shown._inside)[3] & (termios.ISIG | termios.ICANON) == termios.ISIG
    shown.press("q")
    assert shown.ends() == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -15), (signal.SIGINT, 0)])
def test_signals_leave_the_terminal_as_it_was(
    screen: Callable[..., Screen], number: int, status: int
) -> None:
    shown = screen()
    shown.until("no running manager")
    shown.process.send_signal(number)
    assert shown.ends() == status


def test_it_can_be_stopped_and_go_on(screen: Callable[..., Screen]) -> None:
    shown = screen()
    shown.until("no running manager")
    shown.process.send_signal(signal.SIGTSTP)
    os.waitid(os.P_PID, shown.process.pid, os.WSTOPPED | os.WNOWAIT)
    while LEAVE not in shown.written:
        shown.read(0.1)
    assert termios.tcgetattr(shown._inside) == shown._before
    shown.written = ""
    shown.process.send_signal(signal.SIGCONT)
    shown.until("no running manager")
    shown.press("q")
    assert shown.ends() == 0
