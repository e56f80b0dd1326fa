"""`aioscheduler store` beside real hosts, and after their deaths."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import enduring
import pytest
from programs import Program
from rigs import Rig, letters

from aioscheduler import Manager, SQLiteStore
from aioscheduler._durable.records import Batch, Function, Opening, Row

HOUR = timedelta(hours=1)
READING: tuple[list[str], ...] = (["tasks"], ["dead"], ["dead", "--text"], [])
CHANGING = (["requeue", "--all", "--reason", "lost"], ["discard", "--all"])

Answer = subprocess.CompletedProcess[str]


def run(path: Path, *words: str, folder: Path | None = None, **environment: str) -> Answer:
    return subprocess.run(
        [sys.executable, "-m", "aioscheduler", "store", str(path), *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env=os.environ | environment,
        check=False,
    )


def answer(path: Path, *words: str) -> list[str]:
    """Return the lines of the output, once the last workers have gone."""
    while "is in use by" in (told := run(path, *words)).stderr:
        pass
    assert (told.returncode, told.stderr) == (0, "")
    return told.stdout.splitlines()


def refusal(path: Path, *words: str) -> str:
    """Return the one line that says why it failed."""
    told = run(path, *words)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.count("\n") == 1
    return told.stderr


def files(path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.parent.glob(f"{path.name}*")
    }


def opening_of(path: Path) -> Opening:
    """Return what the next host reads when it opens the file; leave it as it was."""
    store = SQLiteStore(path, wait=0)
    opening = store.open()
    store.close(opening.clean)
    return opening


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with thirty thousand tasks, whose host ended in order."""
    path = tmp_path / "many.db"
    store = SQLiteStore(path, wait=0)
    store.open()
    rows = [
        Row(number, 1_800_000_000_000_000_000 + number * 10**10, 1, bytes(100))
        for number in range(1, 30_001)
    ]
    function = Function(1, "über", "m:f", False)
    store.commit(Batch(functions=[function], puts=rows, next_row=30_001))
    store.close(True)
    return path


# ---- beside a host


@pytest.mark.parametrize("words", [*READING, *CHANGING, ["backup", "copy.db"]], ids=" ".join)
def test_of_a_host_at_work_the_process_is_named(rig: Rig, words: list[str]) -> None:
    host = rig.host("keep")
    host.hear()
    complaint = refusal(rig.path, *words)
    assert f" {host.process.pid}" in complaint
    if words[:1] == ["backup"]:
        assert "await manager.backup(path)" in complaint
    host.end()
    assert opening_of(rig.path).clean


def test_a_host_whose_lock_file_was_deleted_is_found(rig: Rig) -> None:
    host = rig.host("keep")
    host.hear()
    os.unlink(f"{rig.path}.lock")
    assert str(host.process.pid) in refusal(rig.path, "tasks")


async def test_a_letter_that_is_put_back_runs_in_the_next_host(rig: Rig) -> None:
    async with rig.manager(workers=0) as manager:
        task = manager.schedule(enduring.fail_at_once(7), id="id/7")
        with pytest.raises(LookupError):
            await task
        await manager.schedule(enduring.note(rig.log, "kept"), HOUR, id="kept").stored()
        (letter,) = await letters(manager)
    lines = answer(rig.path, "dead")
    assert "fail at once" in lines[1]
    assert lines[1].endswith("id/7  LookupError: 7")
    answer(rig.path, "requeue", str(letter.row))
    assert {"2 tasks", "0 dead letters"} <= set(answer(rig.path))
    async with rig.manager(workers=0) as manager:
        assert await manager.find("kept") is not None
        while not (found := await letters(manager)):
            await manager.sync()
        assert [(each.id, each.attempts, each.text.splitlines()[-1]) for each in found] == [
            ("id/7", 1, "LookupError: 7")
        ]
        assert found[0].row > letter.row
        assert letter.due < found[0].due <= datetime.now(UTC)
        assert (manager.stats().stored, manager.stats().dead_letters) == (1, 1)


# ---- after the death of a host, and an end in order


def test_what_was_under_way_is_seen_and_stays_so(rig: Rig) -> None:
    host = rig.host("hold_two", rig.gate)
    host.hear()
    host.kill()
    lines = answer(rig.path, "tasks")
    states = [line.split()[3:] for line in lines[1:]]
    assert states == [
        ["begun", "hold", "-"],
        ["begun", "hold", "once", "-"],
        *[["waits", "note", "-"]] * 3,
    ]
    before = files(rig.path)
    assert any("did not shut down cleanly" in line for line in answer(rig.path))
    for words in READING:
        answer(rig.path, *words)
    assert files(rig.path) == before
    lived = os.stat(f"{rig.path}.lock").st_mtime_ns
    for words in CHANGING:
        answer(rig.path, *words)
    opening = opening_of(rig.path)
    assert (opening.clean, opening.heartbeat, opening.tasks) == (False, lived, 5)


def test_a_task_that_kills_its_host_is_found_though_one_has_looked_into_the_file(
    rig: Rig,
) -> None:
    """It is a suspect because its host died, which a look in between must not hide."""
    deaths = 0
    while (host := rig.host("poison", 0, rig.folder)).process.wait(40) == -signal.SIGKILL:
        deaths += 1
        assert deaths <= 4
        for words in (*READING, *CHANGING):
            answer(rig.path, *words)
    assert host.process.returncode == 0
    assert host.hear() == "lost"


async def test_an_end_in_order_stays_one(rig: Rig) -> None:
    async with rig.manager(workers=0) as manager:
        await manager.schedule(enduring.note(rig.log, "later"), HOUR).stored()
    before = files(rig.path)
    lived = before["tasks.db.lock"][1]
    for words in (*READING, ["backup", str(rig.folder / "copy.db")]):
        answer(rig.path, *words)
    assert files(rig.path) == before
    for words in CHANGING:
        answer(rig.path, *words)
    opening = opening_of(rig.path)
    assert (opening.clean, opening.heartbeat) == (True, lived)
    assert opening_of(rig.folder / "copy.db").clean


async def test_a_copy_is_a_store(rig: Rig) -> None:
    host = rig.host("fill")
    while int(host.hear()) < 100:
        pass
    host.kill()
    copy = rig.folder / "copy.db"
    answer(rig.path, "backup", str(copy))
    assert len(answer(copy, "tasks")) >= 101
    async with Manager(store=copy, workers=0) as manager:
        assert len(manager) == len(answer(rig.path, "tasks")) - 1


def test_nothing_of_the_users_is_imported(rig: Rig) -> None:
    """Neither the module of a function, nor that of an argument."""
    (rig.folder / "jobs.py").write_text(
        "from aioscheduler import durable\n"
        "class Order: pass\n"
        "@durable('work')\n"
        "async def work(order): pass\n"
    )
    program = Program(
        *("durable_programs.py", "put", rig.path, "jobs", "jobs.work(jobs.Order())"),
        folder=rig.folder,
    )
    program.process.wait(50)
    program.close()
    trap = "from pathlib import Path\nPath('imported').touch()\n"
    (rig.folder / "jobs.py").write_text(trap)
    for words in (*READING, *CHANGING, ["backup", "copy.db"]):
        told = run(rig.path, *words, folder=rig.folder)
        assert told.returncode == 0
        assert "work" in told.stdout or words not in (["tasks"], [])
    assert not (rig.folder / "imported").exists()


# ---- unusable files


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    for words in (*READING, *CHANGING, ["backup", str(tmp_path / "copy.db")]):
        assert "there is no file" in refusal(tmp_path / "no.db", *words)
        assert "there is no file" in refusal(tmp_path / "no" / "no.db", *words)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE task(x)")
        connection.commit()
    before = files(path)
    for words in (*READING, *CHANGING):
        assert "another program" in refusal(path, *words)
    assert files(path) == before
    path.write_text("notes")
    assert "not a file of durable tasks" in refusal(path)


def test_around_a_corrupt_page_it_says_so(path: Path) -> None:
    content = path.read_bytes()
    pages = [n for n in range(20, len(content) // 4096) if content[n * 4096] == 10]
    whole = len(run(path, "tasks").stdout.splitlines())
    with open(path, "r+b") as file:
        file.seek(pages[len(pages) // 2] * 4096)
        file.write(b"\xff" * 4096)
    told = run(path, "tasks")
    assert told.returncode == 1
    assert whole - 200 < len(told.stdout.splitlines()) < whole
    assert "tasks at 1 place cannot be read" in told.stderr
    assert ".recover" in told.stderr
    assert told.stderr.count("\n") == 1
    told = run(path)
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert told.stdout.startswith(str(path.resolve()))
    assert run(path, "dead").returncode == 0


@pytest.fixture
def not_ours(short_path: Path) -> Iterator[Path]:
    """A store in a folder where only its owner may write."""
    path = short_path / "tasks.db"
    store = SQLiteStore(path)
    store.open()
    rows = [Row(1, 10**18, 1, b"x", id="one")]
    store.commit(Batch(functions=[Function(1, "f", "m:f", False)], puts=rows, next_row=2))
    shutil.copy(f"{path}-wal", short_path / "log")
    shutil.copy(path, short_path / "db")
    store.close(True)
    path.chmod(0o444)
    Path(f"{path}.lock").chmod(0o444)
    yield path
    short_path.chmod(0o755)


def ask_as_nobody(path: Path, *words: str) -> tuple[int, str]:
    program = Program("hosting.py", "ask_as_nobody", path, *words)
    said = program.output.read()
    status = program.process.wait(60)
    program.close()
    return status, said


@pytest.mark.parametrize("crashed", [False, True])
def test_in_a_folder_that_cannot_be_written_it_can_be_looked_into(
    not_ours: Path, crashed: bool
) -> None:
    if crashed:
        for name, end in (("db", ""), ("log", "-wal")):
            os.replace(not_ours.parent / name, f"{not_ours}{end}")
            Path(f"{not_ours}{end}").chmod(0o444)
    not_ours.parent.chmod(0o555)
    before = files(not_ours)
    status, said = ask_as_nobody(not_ours, "tasks")
    assert (status, said.split()[-1]) == (0, "one")
    status, said = ask_as_nobody(not_ours, "discard", "--all")
    assert (status, said) == (1, "")
    assert files(not_ours) == before


def test_in_such_a_folder_without_its_lock_file_it_is_refused(not_ours: Path) -> None:
    os.unlink(f"{not_ours}.lock")
    not_ours.parent.chmod(0o555)
    assert ask_as_nobody(not_ours, "tasks") == (1, "")
    assert os.listdir(not_ours.parent).count("tasks.db.lock") == 0


# ---- in a pipeline


def test_who_has_read_enough_ends_it_quietly(path: Path) -> None:
    command = [sys.executable, "-m", "aioscheduler", "store", str(path), "tasks"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline().startswith("        ROW")
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(60) == 141
    assert opening_of(path).clean


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("limit", ["1", "9999"])
def test_an_answer_that_cannot_be_written_is_an_error(path: Path, limit: str) -> None:
    command = [sys.executable, "-m", "aioscheduler", "store", str(path), "tasks", "--limit", limit]
    with open("/dev/full", "w") as full:
        told = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert told.returncode == 1
    assert "No space left" in told.stderr
    assert told.stderr.count("\n") == 1


def test_a_name_is_shown_on_any_terminal(path: Path) -> None:
    told = run(path, "tasks", "--limit", "1", PYTHONIOENCODING="ascii")
    assert (told.returncode, told.stderr) == (0, "")
    assert "\\xfcber" in told.stdout


def test_a_list_needs_no_memory(path: Path) -> None:
    """Thirty thousand lines, 20 MB if all were kept, take as much as one."""
    needed = []
    for limit in ("1", "30000"):
        words = [sys.executable, "-m", "aioscheduler", "store", str(path), "tasks"]
        with open(os.devnull, "w") as nothing:
            program = subprocess.Popen([*words, "--limit", limit], stdout=nothing)
            _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
        assert program.returncode == 0
        needed.append(usage.ru_maxrss)
    assert needed[1] < needed[0] * 1.1


def test_what_makes_no_sense_is_status_2(path: Path) -> None:
    told = run(path, "requeue")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("usage: aioscheduler store ")
