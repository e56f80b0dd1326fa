"""A file that no host has open: what can be seen and changed, and what stays."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storesuite import letters_of, rows_of, some_rows

from aioscheduler._durable import offline, schema
from aioscheduler._durable.lock import Lock
from aioscheduler._durable.offline import Look, Outcome, change, look
from aioscheduler._durable.offlinerecords import TaskLine
from aioscheduler._durable.records import (
    Batch,
    Begun,
    Burial,
    Function,
    Letter,
    Opening,
    Reason,
    Row,
)
from aioscheduler._durable.sqlite import SQLiteStore
from aioscheduler.errors import StoreError, StoreLocked, UnknownTask

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
REMIND, PAY = Function(1, "remind", "jobs:remind", False), Function(2, "pay", "jobs:pay", True)
ROWS = [
    Row(1, NOW + 900 * 10**13, 1, b"late", id="ada/1"),
    Row(2, NOW + 7, 1, b"b", "key", "bob/1", b"note", Begun.YES, 3, 2, 1, NOW),
    Row(3, NOW + 5, 2, b"c", begun=Begun.ONCE),
    Row(4, NOW + 7, 1, b"d", id="ada/2"),
]
DEAD = [
    Row(11, NOW, 1, b"eleven", "key", "ada/11", b"note"),
    Row(12, NOW, 2, b"twelve"),
    Row(13, NOW, 1, b"thirteen", id="ada/1"),  # another task has its id by now
]
DUES = random.Random(1).choices(range(5), k=20_000)
LETTERS = [
    Burial(DEAD[0].bucket, 11, 4, Reason.FAILED, "Traceback\nValueError: 11", NOW + 1),
    Burial(DEAD[1].bucket, 12, 1, Reason.LOST, "its host died", NOW + 2),
    Burial(DEAD[2].bucket, 13, 1, Reason.FAILED, "ValueError: 13", NOW + 3),
]


def fill(store: SQLiteStore) -> None:
    store.commit(Batch(functions=[REMIND, PAY], puts=DEAD))
    store.commit(Batch(burials=LETTERS))
    store.commit(Batch(puts=ROWS, next_row=14))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file whose host ended in order."""
    path = tmp_path / "tasks.db"
    store = SQLiteStore(path, wait=0)
    store.open()
    fill(store)
    store.close(True)
    os.utime(f"{path}.lock", ns=(NOW, NOW))
    return path


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A file whose host was killed: most of it is in its log."""
    path = tmp_path / "crashed" / "tasks.db"
    path.parent.mkdir()
    store = SQLiteStore(tmp_path / "alive.db", wait=0)
    store.open()
    fill(store)
    for end in ("", "-wal", ".lock"):
        shutil.copy(tmp_path / f"alive.db{end}", f"{path}{end}")
    store.close(True)
    os.utime(f"{path}.lock", ns=(NOW, NOW))
    return path


def files(path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in path.parent.iterdir()
        if file.is_file()
    }


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def opening_of(path: Path) -> Opening:
    """Return what the next host reads when it opens the file; leave it as it was."""
    store = SQLiteStore(path, wait=0)
    opening = store.open()
    store.close(opening.clean)
    return opening


def see(path: Path) -> list[Any]:
    with look(str(path)) as found:
        return [
            *found.info[1:],
            found.names,
            found.count_tasks(),
            found.count_letters(),
            [line.row for line in found.tasks()],
            [letter.row for letter in found.letters()],
        ]


# ---- inspection


def test_repeats_are_counted(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for n in range(3):
            columns = "id, text, terms, func, payload, next, ran, skipped, paused"
            connection.execute(
                f"INSERT INTO repeat({columns}) VALUES(?, '', x'', 1, x'', 5, 0, 0, ?)",  # noqa: S608
                (f"r{n}", n == 1),
            )
    with look(str(path)) as found:
        assert found.count_repeats() == (3, 1)


def test_all_contents_are_seen(path: Path) -> None:
    with look(str(path)) as found:
        assert found.info == (
            *(str(path.resolve()), schema.SCHEMA, False, path.stat().st_size, 0),
            *(True, NOW, True),
        )
        assert found.names == {1: "remind", 2: "pay"}
        assert found.count_tasks() == {"remind": (3, NOW + 7), "pay": (1, NOW + 5)}
        assert found.count_letters() == {"failed": 2, "lost": 1}
        assert found.count_repeats() == (0, 0)
        assert list(found.tasks()) == [
            TaskLine(3, "pay", None, NOW + 5, 1, Begun.ONCE),
            TaskLine(2, "remind", "bob/1", NOW + 7, 3, Begun.YES),
            TaskLine(4, "remind", "ada/2", NOW + 7, 1, Begun.NO),
            TaskLine(1, "remind", "ada/1", NOW + 900 * 10**13, 1, Begun.NO),
        ]
        first, *others = found.letters()
        assert first == Letter(
            *(11, NOW, 1, "remind", None, "key", "ada/11", b"note", 4, Reason.FAILED),
            *("Traceback\nValueError: 11", NOW + 1),
        )
        assert [letter.row for letter in others] == [12, 13]


def test_the_log_is_read(crashed: Path, path: Path) -> None:
    assert os.path.getsize(f"{crashed}-wal") > os.path.getsize(crashed)
    with look(str(crashed)) as found:
        assert found.info.log_size == os.path.getsize(f"{crashed}-wal")
        assert not found.info.clean
    assert see(crashed)[6:] == see(path)[6:]


def test_looking_leaves_no_trace(path: Path, crashed: Path, tmp_path: Path) -> None:
    for each in (path, crashed):
        before = files(each)
        see(each)
        with look(str(each)) as found:
            found.backup(str(tmp_path / f"copy of {each.parent.name}"))
            during = files(each)
        (tmp_path / f"copy of {each.parent.name}").unlink()
        assert files(each) == before
        during.pop(f"copy of {each.parent.name}", None)
        assert during == before  # should this process be killed


def test_without_a_lock_file_none_stays(path: Path) -> None:
    Path(f"{path}.lock").unlink()
    os.utime(path, ns=(NOW + 3, NOW + 3))
    before = files(path)
    with look(str(path)) as found:
        assert (found.info.lived, found.info.had_host) == (NOW + 3, False)
        with pytest.raises(StoreLocked):
            Lock(str(path.resolve())).take(0)
    assert files(path) == before


def test_no_host_can_come_meanwhile(path: Path) -> None:
    with look(str(path)):
        with pytest.raises(StoreLocked) as caught:
            SQLiteStore(path, wait=0).open()
        assert caught.value.pids == (os.getpid(),)
    opening_of(path)


def test_a_file_that_a_host_has_is_refused(path: Path) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    for way in (look, change):
        with pytest.raises(StoreLocked, match=str(os.getpid())), way(str(path)):
            pass
    store.close(True)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_file_that_a_shell_has_open_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM task").fetchone()
        with pytest.raises(StoreLocked) as caught, look(str(path)):
            pass
    assert caught.value.pids == (os.getpid(),)


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ({"name": "remind"}, [2, 4, 1]),
        ({"name": "pay"}, [3]),
        ({"id_prefix": "ada/"}, [4, 1]),
        ({"id_prefix": "b"}, [2]),
        ({"id_prefix": "c"}, []),
        ({"name": "pay", "id_prefix": "ada"}, []),
        ({"limit": 2}, [3, 2]),
        ({"name": "remind", "id_prefix": "ada/", "limit": 1}, [4]),
        ({"limit": 0}, []),
    ],
)
def test_some_tasks_are_listed(path: Path, wanted: dict[str, Any], rows: list[int]) -> None:
    with look(str(path)) as found:
        assert [line.row for line in found.tasks(**wanted)] == rows


def test_a_name_that_the_file_does_not_know_is_refused(path: Path) -> None:
    with look(str(path)) as found, pytest.raises(UnknownTask, match="it knows pay, remind"):
        found.tasks("remnid")


@pytest.fixture(scope="module")
def in_memory() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.fill(connection)
        yield connection


TEXT = st.text(st.sampled_from("a/é\x7f\uffff\U0010ffff\ud800"), max_size=4)


@given(TEXT.filter(bool), st.sets(TEXT, max_size=8))
def test_ids_are_found_by_whatever_they_begin_with(prefix: str, ids: set[str]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        schema.fill(connection)
        values = [
            (n, id_.encode("utf-8", "surrogatepass") if "\ud800" in id_ else id_)
            for n, id_ in enumerate(sorted(ids))
        ]
        connection.executemany(
            "INSERT INTO task(bucket, row, due, func, payload, id) VALUES(0, ?, 0, 1, x'00', ?)",
            values,
        )
        found = offline.Look(__file__, connection, Lock(__file__))
        lines = [line.id for line in found.tasks(id_prefix=prefix)]
    assert lines == [id_ for id_ in sorted(ids) if id_.startswith(prefix)]


def test_who_asks_by_id_goes_by_the_index(in_memory: sqlite3.Connection) -> None:
    asked: list[str] = []
    in_memory.set_trace_callback(asked.append)
    list(offline.Look(__file__, in_memory, Lock(__file__)).tasks(id_prefix="ada/"))
    in_memory.set_trace_callback(None)
    plan = in_memory.execute(f"EXPLAIN QUERY PLAN {asked[-1]}").fetchall()
    steps = [step[-1] for step in plan]
    assert sum("USING INDEX task_id" in step for step in steps) == 2
    assert not [step for step in steps if step.startswith("SCAN")]


def test_tasks_are_sorted_by_buckets_alone(in_memory: sqlite3.Connection) -> None:
    """A file may have more of them than there is memory."""
    asked: list[str] = []
    in_memory.set_trace_callback(asked.append)
    list(offline.Look(__file__, in_memory, Lock(__file__)).tasks())
    in_memory.set_trace_callback(None)
    plan = in_memory.execute(f"EXPLAIN QUERY PLAN {asked[-1]}").fetchall()
    sorts = [step[-1] for step in plan if "ORDER BY" in step[-1]]
    assert len(sorts) == 1
    assert "RIGHT PART" in sorts[0] or "LAST 2 TERMS" in sorts[0]  # by the version of SQLite


def test_malformed_values_are_shown_as_missing(path: Path) -> None:
    edit(
        path,
        "UPDATE task SET func=77, state=5, id=CAST(x'ff' AS TEXT) WHERE row=1",
        "UPDATE task SET due='soon', attempt=x'00' WHERE row=3",
        "UPDATE dead_letter SET reason=x'ff' WHERE row=12",
    )
    with look(str(path)) as found:
        assert found.count_tasks() == {
            "remind": (2, NOW + 7),
            "pay": (1, None),
            None: (1, NOW + 900 * 10**13),
        }
        lines = {line.row: line for line in found.tasks()}
        assert lines[1] == (1, None, None, NOW + 900 * 10**13, 1, None)
        assert lines[3] == (3, "pay", None, None, None, Begun.ONCE)
        assert found.count_letters() == {"failed": 2, "?": 1}
        assert [letter.reason.value for letter in found.letters()] == [
            *("failed", "unreadable", "failed")
        ]
        assert list(found.letters(Reason.LOST)) == []


def test_letters_of_one_reason_over_many_pages(path: Path) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    rows = some_rows(100, 600)
    reasons = [Reason.FAILED, Reason.TOO_LATE]
    store.commit(Batch(puts=rows))
    store.commit(
        Batch(burials=[Burial(r.bucket, r.row, 1, reasons[r.row % 2], "", 5) for r in rows])
    )
    store.close(True)
    with look(str(path)) as found:
        late = [letter.row for letter in found.letters(Reason.TOO_LATE)]
    assert late == list(range(101, 700, 2))


# ---- files that cannot be inspected


def refused(path: Path, text: str) -> None:
    """Check that `look` and `change` both refuse, and make or change nothing."""
    before = files(path)
    for way in (look, change):
        with pytest.raises(StoreError, match=text), way(str(path)):
            pass
        assert files(path) == before


def test_what_is_not_there_is_not_made(tmp_path: Path) -> None:
    refused(tmp_path / "tasks.db", "there is no file")
    with pytest.raises(StoreError, match="there is no file"), look(str(tmp_path / "no" / "x.db")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_left_empty(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.touch()
    refused(path, "is empty: nothing was ever stored")


def test_a_log_without_its_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "tasks.db-wal").write_bytes(b"log")
    refused(tmp_path / "tasks.db", "is gone, but")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").mkdir()
    refused(tmp_path / "tasks.db", "is not a file")


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_text("Dear diary, " * 100)
    refused(path, "not a file of durable tasks")
    path.unlink()
    edit(path, "CREATE TABLE theirs(x)")
    refused(path, "another program")


def test_a_newer_file_is_refused(path: Path) -> None:
    edit(path, "UPDATE meta SET value=999 WHERE name='schema'")
    refused(path, r"newer aioscheduler \(schema 999")


def test_a_file_without_its_tables_is_corrupt(path: Path) -> None:
    edit(path, "DROP TABLE func")
    refused(path, "cannot be read: no such table: func")


def test_an_older_file_is_read_and_not_upgraded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SCHEMA", schema.SCHEMA + 1)
    before = files(path)
    assert see(path)[:2] == [schema.SCHEMA - 1, True]
    assert files(path) == before


def test_an_older_file_that_is_too_different_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(path, "ALTER TABLE task RENAME COLUMN attempt TO tried")
    monkeypatch.setattr(schema, "SCHEMA", schema.SCHEMA + 1)
    with (
        look(str(path)) as found,
        pytest.raises(StoreError, match="older aioscheduler.*the next host will upgrade it"),
    ):
        list(found.tasks())


def spoil_one(path: Path, kind: int, rows: bytes) -> None:
    """Spoil a page of tasks (10) or dead letters (13) whose rows have these bytes."""
    content = path.read_bytes()
    pages = [
        n
        for n in range(len(content) // 4096)
        if content[n * 4096] == kind and content.count(rows, n * 4096, (n + 1) * 4096)
    ]
    with open(path, "r+b") as file:
        file.seek(pages[len(pages) // 2] * 4096)
        file.write(b"\xff" * 4096)


def test_around_a_bad_page_tasks_are_listed_in_their_order(path: Path) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    hour = 3600 * SECOND
    puts = [
        row._replace(id=f"{'new' if row.row % 2 else 'old'}/{row.row}", due=NOW + due * hour)
        for row, due in zip(some_rows(1000, 20_000, payload=b"\xee" * 99), DUES, strict=True)
    ]
    store.commit(Batch(puts=puts))
    store.close(True)
    whole = see(path)
    with look(str(path)) as found:
        lines = {line.row: line for line in found.tasks()}
        assert not found.complaint
    spoil_one(path, 10, b"\xee" * 99)
    with look(str(path)) as found:
        rows = [line.row for line in found.tasks()]
        assert 19_900 < len(rows) < 20_004
        known = set(rows)
        assert len(known) == len(rows)
        assert rows == [row for row in whole[-2] if row in known]
        assert re.search(r"tasks at 1 place cannot be read.*\.recover", found.complaint)
        assert [lines[row] for row in rows] == list(found.tasks())
        some = [row for row in rows if (lines[row].id or "").startswith("old/")]
        assert [line.row for line in found.tasks(id_prefix="old/")] == some
        assert [line.row for line in found.tasks("pay")] == [3]
        assert [line.row for line in found.tasks(limit=12_000)] == rows[:12_000]
        assert sum(count for count, _ in found.count_tasks().values()) == len(rows)
        assert found.count_tasks()["pay"] == (1, NOW + 5)
        assert see_letters(found) == ({"failed": 2, "lost": 1}, [11, 12, 13])


def see_letters(found: Look) -> tuple[dict[str, int], list[int]]:
    return found.count_letters(), [letter.row for letter in found.letters()]


@pytest.fixture
def spoilt(path: Path) -> Path:
    """A file of 500 dead letters, some of which are on a bad page."""
    store = SQLiteStore(path, wait=0)
    store.open()
    rows = some_rows(100, 500, payload=b"\xee" * 100)
    store.commit(Batch(puts=rows))
    store.commit(Batch(burials=[Burial(r.bucket, r.row, 1, Reason.UNKNOWN, "", 5) for r in rows]))
    store.close(True)
    spoil_one(path, 13, b"\xee" * 100)
    return path


def test_around_a_bad_page_letters_are_listed(spoilt: Path) -> None:
    with look(str(spoilt)) as found:
        counts, rows = see_letters(found)
        assert "tasks at 1 place cannot be read" in found.complaint
        assert [letter.row for letter in found.letters(Reason.UNKNOWN)] == rows[3:]
    assert 450 < len(rows) < 490
    assert rows[:3] == [11, 12, 13]
    assert rows[-1] == 599
    assert counts == {"failed": 2, "lost": 1, "unknown": len(rows) - 3}


def test_around_a_bad_page_letters_are_put_back_and_dropped(spoilt: Path) -> None:
    with change(str(spoilt)) as file:
        rows = list(file.rows(Reason.UNKNOWN))
        assert "tasks at 1 place cannot be read" in file.complaint
        outcomes = list(file.requeue(rows[:300], NOW))
        why = "a corrupt page of the file is in the way"
        assert {each.why for each in outcomes if each.task is None} <= {why}
        back = {outcome.row for outcome in outcomes if outcome.task is not None}
        assert len(back) > 200
        left = list(file.rows(Reason.UNKNOWN))
        assert left == [row for row in rows if row not in back]
        count, stay = file.discard(file.rows(Reason.UNKNOWN))
        assert count > 100
        assert count + len(stay) == len(left)
        assert list(file.rows(Reason.UNKNOWN)) == stay
        assert len(stay) < 60


def test_a_letter_with_a_bad_payload_takes_no_other_along(path: Path) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    rows = some_rows(100, 3)
    rows[1] = rows[1]._replace(payload=b"\xab" * 8192 + b"\xcd" * 8192)  # on pages of its own
    store.commit(Batch(puts=rows))
    store.commit(Batch(burials=[Burial(r.bucket, r.row, 1, Reason.UNKNOWN, "", 5) for r in rows]))
    store.close(True)
    content = path.read_bytes()
    with open(path, "r+b") as file:  # its chain of overflow pages is broken
        for at in range(0, len(content), 4096):
            if content[at + 4 : at + 4096] == b"\xab" * 4092:
                file.seek(at)
                file.write(b"\x7f\xff\xff\xff")
    outcomes = requeue(path, 100, 101, 102)
    assert [(each.row, each.task is None) for each in outcomes] == [
        *((101, True), (100, False), (102, False))
    ]
    assert outcomes[0].why == "a corrupt page of the file is in the way"
    with change(str(path)) as changed:
        # Even unreadable ones can be dropped.
        assert changed.discard([11, 12, 101]) == (3, [])


def test_a_file_that_vanishes_is_a_store_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(name: str) -> tuple[int, ...]:
        raise PermissionError(13, "not yours", name)

    monkeypatch.setattr(offline, "holders", vanish)
    with pytest.raises(StoreError, match="cannot be opened: .*not yours"), look(str(path)):
        pass
    monkeypatch.undo()
    opening_of(path)  # the lock was released


# ---- copies


def test_a_copy_is_whole_and_tells_when_its_host_lived(crashed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with look(str(crashed)) as found:
        found.backup(str(copy))
    opening = opening_of(copy)
    assert (opening.clean, opening.heartbeat) == (False, NOW)
    assert see(copy)[6:] == see(crashed)[6:]


def test_a_copy_of_a_file_in_order_is_in_order(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with look(str(path)) as found:
        found.backup(str(copy))
        with pytest.raises(StoreError, match="there already"):
            found.backup(str(copy))
        with pytest.raises(StoreError, match="could not be copied"):
            found.backup(str(tmp_path / "no" / "copy.db"))
    assert opening_of(copy).clean


# ---- changes


def requeue(path: Path, *rows: int, now: int = NOW + 99) -> list[Outcome]:
    with change(str(path)) as file:
        return list(file.requeue(rows, now))


def stored(path: Path) -> tuple[dict[int, Row], dict[int, Letter]]:
    store = SQLiteStore(path, wait=0)
    opening = store.open()
    found = {row.row: row for row in rows_of(store)}, {x.row: x for x in letters_of(store)}
    store.close(opening.clean)
    return found


def test_a_letter_is_a_task_again(path: Path) -> None:
    ((row, task, why),) = requeue(path, 11)
    assert (row, why) == (11, "")
    rows, letters = stored(path)
    assert task is not None
    assert rows.pop(task) == Row(task, NOW + 99, 1, b"eleven", "key", "ada/11", b"note")
    assert sorted(rows) == [1, 2, 3, 4]
    assert sorted(letters) == [12, 13]


def test_a_number_is_never_given_again(path: Path) -> None:
    first = requeue(path, 11)[0].task
    second = requeue(path, 12)[0].task
    assert first is not None
    assert second is not None
    assert 14 <= first < second < opening_of(path).next_row


def test_in_a_queue_it_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    store = SQLiteStore(path, wait=0)
    opening = store.open()
    rows = [Row(opening.next_row + n, 0, 1, b"%d" % n) for n in range(2)]
    store.commit(Batch(functions=[REMIND], puts=rows, next_row=opening.next_row + 2))
    store.commit(Batch(burials=[Burial(0, rows[0].row, 1, Reason.FAILED, "", NOW)]))
    store.close(True)
    requeue(path, rows[0].row)
    with look(str(path)) as found:
        assert [(line.row == rows[1].row, line.due) for line in found.tasks()] == [
            (True, 0),
            (False, 0),
        ]


def test_a_letter_whose_id_is_taken_stays_and_others_go(path: Path) -> None:
    outcomes = requeue(path, 11, 12, 13)
    assert [(row, task is not None, why) for row, task, why in outcomes] == [
        (11, True, ""),
        (12, True, ""),
        (13, False, "another task has its id, ada/1"),
    ]
    rows, letters = stored(path)
    assert len(rows) == 6
    assert sorted(letters) == [13]
    assert requeue(path, 13)[0].task is None


def test_of_two_letters_with_one_id_the_first_goes(path: Path) -> None:
    edit(path, "UPDATE dead_letter SET id='same'")
    outcomes = requeue(path, 11, 12, 13)
    assert [outcome.task is not None for outcome in outcomes] == [True, False, False]
    assert sorted(stored(path)[1]) == [12, 13]


def test_a_damaged_letter_stays(path: Path) -> None:
    edit(
        path,
        "UPDATE dead_letter SET payload='text' WHERE row=11",
        "UPDATE dead_letter SET func=77 WHERE row=12",
    )
    assert requeue(path, 11, 12) == [
        Outcome(11, None, "it is damaged in the file"),
        Outcome(12, None, "it is damaged in the file"),
    ]
    assert see(path)[-1] == [11, 12, 13]


def test_many_are_put_back_in_lots(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    rows = some_rows(100, 700)
    store.commit(Batch(puts=rows))
    store.commit(Batch(burials=[Burial(r.bucket, r.row, 1, Reason.UNKNOWN, "", 5) for r in rows]))
    store.close(True)
    sizes: list[int] = []
    commit = SQLiteStore.commit

    def watched(self: SQLiteStore, batch: Batch) -> None:
        sizes.append(len(batch.puts))
        commit(self, batch)

    monkeypatch.setattr(SQLiteStore, "commit", watched)
    monkeypatch.setattr(offline, "MOST_BYTES", 500)
    with change(str(path)) as file:
        outcomes = list(file.requeue(file.rows(Reason.UNKNOWN), NOW))
    assert [outcome.row for outcome in outcomes] == [row.row for row in rows]
    assert sum(sizes) == 700
    assert max(sizes) <= 256  # and about 500 bytes
    assert len(sizes) > 3
    assert len(stored(path)[0]) == 704


@pytest.mark.parametrize(
    ("reason", "before", "rows"),
    [
        (None, None, [11, 12, 13]),
        (Reason.FAILED, None, [11, 13]),
        (None, NOW + 3, [11, 12]),
        (Reason.FAILED, NOW + 3, [11]),
        (Reason.TOO_LATE, None, []),
    ],
)
def test_only_chosen_letters_are_dropped(
    path: Path, reason: Reason | None, before: int | None, rows: list[int]
) -> None:
    with change(str(path)) as file:
        assert file.discard(file.rows(reason, before)) == (len(rows), [])
    assert sorted(stored(path)[1]) == sorted({11, 12, 13} - set(rows))


def test_a_letter_that_is_not_there_is_unknown(path: Path) -> None:
    with change(str(path)) as file:
        assert file.find(11).row == 11
        with pytest.raises(UnknownTask, match="no dead letter 1$"):
            file.find(1)
        with pytest.raises(UnknownTask):
            list(file.requeue([99], NOW))


@pytest.mark.parametrize("locked", [True, False])
def test_who_changes_it_leaves_the_marks_of_the_last_host(
    crashed: Path, path: Path, locked: bool
) -> None:
    for each, clean in ((crashed, False), (path, True)):
        if not locked:  # a copy without its lock file: its own time is that of its host
            Path(f"{each}.lock").unlink()
            for end in ("", "-wal"):
                if os.path.exists(f"{each}{end}"):
                    os.utime(f"{each}{end}", ns=(NOW, NOW))
        see(each)
        requeue(each, 11)
        with change(str(each)) as file:
            file.discard([12])
        opening = opening_of(each)
        assert (opening.clean, opening.heartbeat) == (clean, NOW)


def test_the_marks_stay_when_a_change_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SQLiteStore, batch: Batch) -> None:
        raise StoreError("full")

    monkeypatch.setattr(SQLiteStore, "commit", fail)
    with pytest.raises(StoreError, match="full"):
        requeue(path, 11)
    monkeypatch.undo()
    opening = opening_of(path)
    assert (opening.clean, opening.heartbeat) == (True, NOW)
    assert len(stored(path)[1]) == 3
