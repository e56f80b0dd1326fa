"""`aioscheduler store`: its arguments, its output, and its exit status."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from aioscheduler import SQLiteStore, __main__, storecli
from aioscheduler._durable.records import Batch, Burial, Function, Reason, Row

SECOND = 10**9
NOW = 1_800_000_000 * SECOND  # 2027-01-15T08:00Z
TASKS = [
    Row(1, NOW + SECOND, 1, b"a", id="ada/1"),
    Row(2, NOW, 2, b"b", id="bob/1"),
    Row(3, NOW + 2 * SECOND, 1, b"c", id="ada/2"),
]
DEAD = [
    Row(11, NOW, 1, b"x", id="ada/11"),
    Row(12, NOW, 2, b"y"),
    Row(13, NOW, 1, b"z", id="ada/1"),
]

Ask = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.db"
    store = SQLiteStore(path, wait=0)
    store.open()
    functions = [Function(1, "remind", "m:f", False), Function(2, "pay\x1b[2J", "m:g", False)]
    store.commit(Batch(functions=functions, puts=DEAD))
    reasons = Reason.FAILED, Reason.LOST, Reason.FAILED
    burials = [
        Burial(row.bucket, row.row, 1, reason, f"Traceback\nValueError: {row.row}\x07", NOW + n)
        for n, (row, reason) in enumerate(zip(DEAD, reasons, strict=True))
    ]
    store.commit(Batch(burials=burials))
    store.commit(Batch(puts=TASKS, next_row=14))
    store.close(True)
    return path


@pytest.fixture
def ask(path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: str, file: Path = path) -> tuple[int, list[str], str]:
        """Return the status, the lines of output, and the error."""
        status = __main__.main(["store", str(file), *words])
        told = capsys.readouterr()
        assert "\x1b" not in told.out + told.err
        return status, told.out.splitlines(), told.err

    return ask


def rows_in(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines[1:]]


def test_without_a_verb_it_is_summed_up(ask: Ask, path: Path) -> None:
    status, lines, complaint = ask()
    assert (status, complaint) == (0, "")
    assert lines[0] == str(path.resolve())
    assert "lived until" in lines[3]
    assert lines[3].endswith("shut down cleanly")
    assert lines[4:6] == ["", "3 tasks"]
    assert [line.split()[:3] for line in lines[6:8]] == [
        ["1", "pay\\x1b[2J", "next"],
        ["2", "remind", "next"],
    ]
    assert [line.strip() for line in lines[8:]] == [
        *("", "3 dead letters", "2  failed", "1  lost"),
    ]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ([], [2, 1, 3]),
        (["--name", "remind"], [1, 3]),
        (["--id-prefix", "ada/"], [1, 3]),
        (["--limit", "1"], [2]),
        (["--id-prefix", "c"], []),
    ],
)
def test_tasks_are_listed(ask: Ask, words: list[str], rows: list[int]) -> None:
    status, lines, complaint = ask("tasks", *words)
    assert (status, complaint) == (0, "")
    assert lines[0].split() == ["ROW", "DUE", "ATTEMPT", "STATE", "NAME", "ID"]
    assert rows_in(lines) == rows


def test_an_unknown_name_is_one_line(ask: Ask) -> None:
    status, lines, complaint = ask("tasks", "--name", "remnid")
    assert (status, lines) == (1, [])
    assert "knows no function remnid; it knows pay\\x1b[2J, remind" in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ([], [11, 12, 13]),
        (["--reason", "failed"], [11, 13]),
        (["--reason", "failed", "--limit", "1"], [11]),
        (["--reason", "unknown"], []),
        (["--limit", "0"], []),
    ],
)
def test_letters_are_listed(ask: Ask, words: list[str], rows: list[int]) -> None:
    status, lines, complaint = ask("dead", *words)
    assert (status, complaint) == (0, "")
    assert rows_in(lines) == rows
    for row, line in zip(rows, lines[1:], strict=True):
        assert line.endswith(f"ValueError: {row}\\x07")


def test_their_texts_are_shown_when_asked_for(ask: Ask) -> None:
    lines = ask("dead", "--text", "--limit", "1")[1]
    assert lines[2:] == [
        "    due 2027-01-15T08:00:00.000Z",
        "    Traceback",
        "    ValueError: 11\\x07",
    ]


def test_a_letter_is_requeued(ask: Ask) -> None:
    status, lines, complaint = ask("requeue", "11")
    assert (status, complaint) == (0, "")
    row = int(lines[0].removeprefix("dead letter 11 is now task "))
    assert row in rows_in(ask("tasks", "--id-prefix", "ada/11")[1])
    assert rows_in(ask("dead")[1]) == [12, 13]


def test_several_are_requeued(ask: Ask) -> None:
    status, lines, complaint = ask("requeue", "12", "13", "11", "12")
    assert [line.rpartition(" is now task ")[0] for line in lines] == [
        "dead letter 12",
        "dead letter 11",
    ]
    assert status == 1
    assert complaint == "dead letter 13 was not requeued: another task has its id, ada/1\n"
    assert rows_in(ask("dead")[1]) == [13]


def test_whose_id_is_taken_is_left(ask: Ask) -> None:
    status, lines, complaint = ask("requeue", "13")
    assert (status, lines) == (1, [])
    assert complaint == "dead letter 13 was not requeued: another task has its id, ada/1\n"
    assert rows_in(ask("dead")[1]) == [11, 12, 13]


def test_all_of_a_reason_are_requeued(ask: Ask) -> None:
    status, lines, complaint = ask("requeue", "--all", "--reason", "failed")
    assert (status, lines) == (1, ["1 requeued"])
    assert complaint == "dead letter 13 was not requeued: another task has its id, ada/1\n"
    assert ask("requeue", "--all", "--reason", "lost")[:2] == (0, ["1 requeued"])
    assert ask("requeue", "--all", "--reason", "lost")[:2] == (0, ["0 requeued"])


@pytest.mark.parametrize(
    ("words", "count", "left"),
    [
        (["12"], 1, [11, 13]),
        (["13", "11", "13"], 2, [12]),
        (["--all"], 3, []),
        (["--all", "--reason", "failed"], 2, [12]),
        (["--all", "--before", "2027-01-15T08:00Z"], 0, [11, 12, 13]),
        (["--all", "--before", "2027-01-15T10:00:01+02:00"], 3, []),
        (["--all", "--before", "2027-01-15T08:00:01Z", "--reason", "lost"], 1, [11, 13]),
    ],
)
def test_letters_are_discarded(ask: Ask, words: list[str], count: int, left: list[int]) -> None:
    assert ask("discard", *words) == (0, [f"{count} discarded"], "")
    assert rows_in(ask("dead")[1]) == left


@pytest.mark.parametrize("verb", ["requeue", "discard"])
def test_a_letter_that_is_not_there(ask: Ask, verb: str) -> None:
    assert ask(verb, "1") == (1, [], "there is no dead letter 1\n")
    assert ask(verb, "11", "1", "12") == (1, [], "there is no dead letter 1\n")
    assert rows_in(ask("dead")[1]) == [11, 12, 13]  # nothing is done by halves


def test_a_copy_is_made(ask: Ask, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert ask("backup", str(copy)) == (0, [], "")
    assert rows_in(ask("tasks", file=copy)[1]) == [2, 1, 3]
    status, _, complaint = ask("backup", str(copy))
    assert status == 1
    assert complaint == f"{copy} is there already: give the backup a name of its own\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["requeue"], "one of the arguments ROW --all is required"),
        (["requeue", "--all"], "--all needs a --reason"),
        (["requeue", "1", "--reason", "failed"], "need --all"),
        (["requeue", "1", "--all", "--reason", "failed"], "not allowed with"),
        (["requeue", "-1"], ""),
        (["requeue", "1_0"], "must be a whole number, 0 or more, not '1_0'"),
        (["requeue", str(1 << 63)], "must be a whole number, 0 or more"),
        (["discard"], "one of the arguments ROW --all is required"),
        (["discard", "1", "--before", "2027-01-15T08:00Z"], "need --all"),
        (["discard", "--all", "--before", "2027-01-15T08:00"], "a time with an offset"),
        (["discard", "--all", "--before", "noon"], "a time with an offset"),
        (["dead", "--reason", "bad"], "one of failed, unreadable, unknown, lost, too_late"),
        (["dead", "--limit", "x"], "must be a whole number, 0 or more"),
        (["backup"], "the following arguments are required: DEST"),
        (["drop"], "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_status_2(
    path: Path, words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = path.read_bytes()
    with pytest.raises(SystemExit) as caught:
        __main__.main(["store", str(path), *words])
    assert caught.value.code == 2
    told = capsys.readouterr()
    assert problem in told.err
    assert told.err.startswith("usage: aioscheduler store ")
    assert not told.out
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], storecli.ASK_HOST),
        (["tasks"], storecli.ASK_HOST),
        (["discard", "--all"], storecli.ASK_HOST),
        (["backup", "copy.db"], storecli.BACKUP_BY_HOST),
    ],
)
def test_of_a_host_its_process_and_its_call_are_named(
    ask: Ask, path: Path, words: list[str], hint: str
) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    status, lines, complaint = ask(*words)
    store.close(True)
    assert (status, lines) == (1, [])
    assert str(os.getpid()) in complaint
    assert complaint.endswith(f". {hint}\n")
    assert complaint.count("\n") == 1


def test_the_head_is_there_before_a_bad_part_is_told(ask: Ask, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE task RENAME TO missing")
    status, lines, complaint = ask()
    assert status == 1
    assert lines[0] == str(path.resolve())
    assert "cannot be read: no such table: task" in complaint


def test_what_can_be_read_is_listed_and_what_cannot_is_told(ask: Ask, path: Path) -> None:
    store = SQLiteStore(path, wait=0)
    store.open()
    rows = [Row(row, NOW, 1, b"\xee" * 100) for row in range(100, 600)]
    store.commit(Batch(puts=rows))
    burials = [Burial(row.bucket, row.row, 1, Reason.UNKNOWN, "", NOW) for row in rows]
    store.commit(Batch(burials=burials, next_row=600))
    store.close(True)
    content = path.read_bytes()
    pages = [
        at
        for at in range(0, len(content), 4096)
        if content[at] == 13 and b"\xee" * 100 in content[at : at + 4096]
    ]
    with open(path, "r+b") as file:
        file.seek(pages[len(pages) // 2])
        file.write(b"\xff" * 4096)
    status, lines, complaint = ask("dead")
    assert status == 1
    assert 450 < len(lines) < 490
    assert "tasks at 1 place cannot be read" in complaint
    status, summed, again = ask()
    assert (status, again) == (1, complaint)
    assert f"{len(lines) - 1} dead letters" in summed
    assert ask("tasks")[::2] == (0, "")
    status, said, complaint = ask("requeue", "--all", "--reason", "unknown")
    assert (status, complaint.count("tasks at 1 place cannot be read")) == (1, 1)
    assert 400 < int(said[0].split()[0]) == len(lines) - 4 - complaint.count("was not requeued: ")
    status, said, complaint = ask("discard", "--all")
    assert status == 1
    assert said[0].endswith(" discarded")
    assert " stay: a corrupt page of the file is in the way. " in complaint


def test_a_file_that_is_not_there(ask: Ask, tmp_path: Path) -> None:
    missing = tmp_path.resolve() / "no.db"
    assert ask(file=missing) == (1, [], f"there is no file {missing}\n")
    assert not missing.exists()
