"""The file of durable tasks from one version of a program to the next."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from enduring import lines_of
from programs import Program

from aioscheduler import SQLiteStore

JOBS = """
from enduring import say
from aioscheduler import current_attempt, durable

@durable("work")
async def work(number, *more):
    say("log", number, current_attempt())
"""
ARGUMENTS = """
from dataclasses import dataclass

@dataclass
class Order:
    number: int
"""

WORKERS = pytest.mark.parametrize("workers", [1, pytest.param(0, marks=pytest.mark.long)])


class App:
    """A program and its modules, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(source)
        for cached in self.folder.glob("__pycache__/*"):
            cached.unlink()  # a version of the same second and size would be used

    def put(self, modules: str, *calls: str) -> None:
        program = Program(
            "durable_programs.py", "put", "tasks.db", modules, *calls, folder=self.folder
        )
        try:
            assert program.process.wait(50) == -signal.SIGKILL
        finally:
            program.close()

    def run(self, modules: str = "", workers: int = 1, requeue: str = "") -> list[Any]:
        """Run all tasks; return the names, reasons and attempts of the dead letters."""
        program = Program(
            *("durable_programs.py", "run", "tasks.db", modules, workers, requeue),
            folder=self.folder,
        )
        try:
            stored, letters = json.loads(program.hear())
            assert program.process.wait(50) == 0
        finally:
            program.close()
        assert stored == 0
        self.texts = [letter.pop() for letter in letters]
        return letters  # type: ignore[no-any-return]

    def said(self) -> list[str]:
        return sorted(lines_of(self.folder / "log"))


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@WORKERS
def test_a_function_that_was_renamed_and_moved_goes_on(app: App, workers: int) -> None:
    app.write("jobs", JOBS)
    app.put("jobs", "jobs.work(1)")
    app.write("jobs", "")
    app.write("tasks", JOBS.replace("def work", "def labour"))
    assert app.run("tasks", workers) == []
    assert app.said() == ["1 1"]


def test_a_module_that_the_host_has_not_imported_is_imported_by_the_worker(app: App) -> None:
    app.write("jobs", JOBS + "import sys; say('log', 'in', sys.argv[0][-20:])")
    app.put("jobs", "jobs.work(1)")
    (app.folder / "log").unlink()
    assert app.run() == []
    assert [line.split()[0] for line in app.said()] == ["1", "in"]  # once: not in the host


@WORKERS
def test_an_unknown_name_waits_as_a_dead_letter_for_the_next_deploy(app: App, workers: int) -> None:
    app.write("jobs", JOBS)
    app.write("more", JOBS.replace('"work"', '"more"'))
    app.put("jobs more", "jobs.work(1)", "more.work(2)")
    app.write("jobs", "")
    assert app.run("more", workers) == [["work", "unknown", 0]]
    assert "no function is registered as 'work', which was jobs:work" in app.texts[0]
    assert app.said() == ["2 1"]  # nothing waited for it
    app.write("jobs", JOBS)
    assert app.run("jobs", workers, "unknown") == []
    assert app.said() == ["1 1", "2 1"]


@WORKERS
def test_arguments_whose_class_is_gone_are_unreadable(app: App, workers: int) -> None:
    app.write("jobs", JOBS)
    app.write("arguments", ARGUMENTS)
    calls = "jobs.work(1)", "jobs.work(2, arguments.Order(2))", "jobs.work(3)"
    app.put("jobs arguments", *calls)
    app.write("arguments", "")
    assert app.run("jobs", workers) == [["work", "unreadable", 0]]
    assert "AttributeError" in app.texts[0]
    assert "Order" in app.texts[0]
    assert app.said() == ["1 1", "3 1"]
    app.write("arguments", ARGUMENTS)
    assert app.run("jobs", workers, "unreadable") == []
    assert app.said() == ["1 1", "2 1", "3 1"]


@WORKERS
def test_a_signature_that_does_not_fit_is_unreadable(app: App, workers: int) -> None:
    app.write("jobs", JOBS)
    app.put("jobs", "jobs.work(1, 1)", "jobs.work(2)")
    app.write("jobs", JOBS.replace(", *more", ""))
    assert app.run("jobs", workers) == [["work", "unreadable", 0]]
    assert "TypeError: work() takes 1 positional argument but 2 were given" in app.texts[0]
    assert app.said() == ["2 1"]


def test_a_module_that_raises_or_ends_its_process(app: App) -> None:
    """An import that raises makes it unreadable at once; one that exits is a loss, of three."""
    names = "raising", "exiting", "ending"
    for name in names:
        app.write(name, JOBS.replace('"work"', f'"{name}"'))
    app.write("jobs", JOBS)
    app.put("jobs raising exiting ending", *(f"{name}.work(0)" for name in names), "jobs.work(1)")
    app.write("raising", "raise ValueError('not today')")
    app.write("exiting", "import sys; sys.exit(3)")
    app.write("ending", "import os; os._exit(3)")
    found = app.run("jobs")
    reasons = {name: reason for name, reason, _ in found}
    assert reasons == {"raising": "unreadable", "exiting": "unreadable", "ending": "lost"}
    texts = dict(zip((letter[0] for letter in found), app.texts, strict=True))
    assert "ValueError: not today" in texts["raising"]
    assert "SystemExit: 3" in texts["exiting"]
    assert "exited with status 3" in texts["ending"]
    assert app.said() == ["1 1"]


SCRIPT = """
import asyncio, os, signal, sys
from datetime import timedelta
from aioscheduler import Manager, SQLiteStore, durable

def helper(n):
    return n + OFFSET

@durable("remind")
async def remind(n):
    print("reminded of", helper(n), flush=True)

OFFSET = int(sys.argv[1])

async def main():
    async with Manager(store=SQLiteStore("script.db", wait=30), workers=1) as manager:
        if OFFSET == 10:
            await manager.schedule(remind(1), timedelta(seconds=0.5), id="r").stored()
            os.kill(os.getpid(), signal.SIGKILL)
        await manager.join()

asyncio.run(main())
"""


def test_functions_of_the_script_itself(tmp_path: Path) -> None:
    """They use the running script's, whatever these were when they were scheduled."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def start(offset: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "script.py", str(offset)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
        )

    assert start(10).returncode == -signal.SIGKILL
    done = start(20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "reminded of 21\n", "")


@WORKERS
def test_a_program_that_ends_without_a_close_stores_what_it_has_scheduled(
    app: App, workers: int
) -> None:
    app.write("jobs", JOBS)
    program = Program(
        *("durable_programs.py", "leave", "tasks.db", "jobs", 3000, workers), folder=app.folder
    )
    try:
        assert program.process.wait(50) == 0
    finally:
        program.close()
    store = SQLiteStore(app.folder / "tasks.db", wait=30)
    opening = store.open()
    store.close(clean=False)
    assert opening.tasks == 3000
    assert not opening.clean
