"""The file of durable tasks between real processes, which really die."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hosting import row_of
from programs import Program
from stores import read_all

from aioscheduler._durable.records import Row
from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler.errors import StoreLocked

Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(deed: str, path: Path, *args: object) -> Program:
            host = Program("hosting.py", deed, path, *args)
            stack.callback(host.close)
            return host

        yield begin


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def rows_of(path: Path) -> list[Row]:
    """Return all rows of the file, which must be intact."""
    store = SQLiteStore(path, wait=30)
    opening = store.open()
    try:
        rows = [row for page in read_all(store) for row in page]
        assert store._connection is not None
        assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert opening.tasks == len(rows)
    finally:
        store.close(True)
    return rows


def first_rows(count: int) -> list[Row]:
    return [row_of(number) for number in range(1, count + 1)]


def test_one_host_at_a_time(start: Start, path: Path) -> None:
    first = start("hold", path)
    assert [first.hear(), first.hear()] == ["open 0 True", "stored"]
    with pytest.raises(StoreLocked, match=f"in use by process {first.process.pid}:") as caught:
        SQLiteStore(path, wait=0).open()
    assert caught.value.pids == (first.process.pid,)
    second = start("hold", path, 11)
    assert second.hear() == f"StoreLocked {first.process.pid}"
    first.tell()
    assert first.hear() == "stored"
    first.end()
    assert rows_of(path) == first_rows(20)


def test_a_host_waits_for_the_other_to_go(start: Start, path: Path) -> None:
    first = start("hold", path)
    assert [first.hear(), first.hear()] == ["open 0 True", "stored"]
    store = SQLiteStore(path, wait=30)
    assert first.process.stdin is not None
    first.process.stdin.close()
    assert store.open().tasks == 10
    store.close(True)


def test_what_was_acknowledged_outlives_kills(start: Start, path: Path) -> None:
    """Usually within a commit: all of a batch is there, or nothing of it."""
    chance = random.Random(1)
    acknowledged = 0
    for _ in range(5):
        host = start("write", path)
        assert host.hear() == f"open {acknowledged} {acknowledged == 0}"
        for _ in range(chance.randrange(1, 15)):
            acknowledged = int(host.hear())
        host.kill()
        said = host.output.read().split("\n")
        acknowledged = int(said[-2]) if len(said) > 1 else acknowledged
        copy = path.with_name("copy.db")
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{copy}{end}")
        rows = rows_of(copy)
        assert rows == first_rows(len(rows))
        assert len(rows) in {acknowledged + more for more in (0, 1, 7, 300)}
        acknowledged = len(rows)


def test_orphans_keep_the_lock_and_what_they_have_forked_does_not(start: Start, path: Path) -> None:
    host = start("with_worker", path)
    assert host.hear() == "open 0 True"
    worker, child = map(int, host.hear().split())
    try:
        host.kill()
        with pytest.raises(StoreLocked) as caught:
            SQLiteStore(path, wait=0).open()
        assert caught.value.pids == (worker,)
        os.kill(worker, signal.SIGKILL)
        assert rows_of(path) == []
        os.kill(child, 0)  # it is alive
    finally:
        for pid in (worker, child):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_deleted_lock_file_lets_nobody_in(start: Start, path: Path) -> None:
    first = start("hold", path)
    assert [first.hear(), first.hear()] == ["open 0 True", "stored"]
    os.unlink(f"{path}.lock")
    with pytest.raises(StoreLocked) as caught:  # by SQLite's own lock
        SQLiteStore(path, wait=0).open()
    assert caught.value.pids == (first.process.pid,)
    assert not os.path.exists(f"{path}.lock")
    first.tell()
    assert first.hear() == "StoreGone"
    assert first.process.stdin is not None
    first.process.stdin.close()
    assert [first.hear(), first.hear()] == ["StoreGone", "closed"]
    assert first.process.wait(30) == 0
    assert rows_of(path) == first_rows(10)


def test_a_host_that_has_lost_all_locks_does_the_next_no_harm(start: Start, path: Path) -> None:
    first = start("lose", path)
    assert [first.hear(), first.hear()] == ["open 0 True", "stored"]
    first.tell()
    assert first.hear() == "lost"
    second = start("hold", path, 11)
    assert [second.hear(), second.hear()] == ["open 10 False", "stored"]
    first.tell()
    assert [first.hear(), first.hear(), first.hear()] == ["StoreGone", "StoreGone", "closed"]
    second.tell()
    assert second.hear() == "stored"
    first.tell()
    assert first.process.wait(30) == 0  # with an interpreter's whole clean-up
    second.tell()
    assert second.hear() == "stored"
    second.kill()
    assert rows_of(path) == first_rows(40)


def test_a_forked_child_does_no_harm(start: Start, path: Path) -> None:
    host = start("fork", path)
    assert [host.hear(), host.hear(), host.hear()] == ["open 0 True", "ended with 7", "stored"]
    host.kill()
    assert rows_of(path) == first_rows(900)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_written_is_refused(start: Start, short_path: Path, what: str) -> None:
    path = short_path / "tasks.db"
    os.chmod(short_path, 0o777)
    store = SQLiteStore(path)
    store.open()
    store.close(True)
    os.chmod(path, 0o444 if what == "file" else 0o666)
    os.unlink(f"{path}.lock")
    before = path.read_bytes()
    if what == "folder":
        os.chmod(short_path, 0o555)
    host = start("as_nobody", path)
    try:
        assert host.hear() == "StoreError"
        told = host.hear()
        assert str(path) in told
        assert ("change its owner or mode" if what == "file" else "where this user may") in told
        assert path.read_bytes() == before
        assert [file.name for file in short_path.iterdir()] == ["tasks.db"]
    finally:
        os.chmod(short_path, 0o777)
