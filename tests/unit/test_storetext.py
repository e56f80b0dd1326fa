"""The lines that `aioscheduler store` prints about a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioscheduler._durable.offlinerecords import StoreInfo, TaskLine
from aioscheduler._durable.records import Begun, Letter, Reason
from aioscheduler._scheduling.clock import SECOND
from aioscheduler.storetext import (
    head_of_letters,
    head_of_tasks,
    line_of_task,
    lines_of_info,
    lines_of_letter,
    lines_of_reasons,
    lines_of_repeats,
    lines_of_tasks,
    show,
    show_distance,
    show_lines,
    show_size,
    show_time,
    width_of,
)

NOW = 1_800_000_000 * SECOND  # 2027-01-15T08:00Z
HOUR = 3600 * SECOND
INFO = StoreInfo("/srv/x.db", 1, False, 36_864, 0, True, NOW - 3 * HOUR, True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße an ada/7 \\ 🎉", "Grüße an ada/7 \\ 🎉"),
        ("\x1b[2J\a\0\x7f", "\\x1b[2J\\x07\\x00\\x7f"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b31m\u202etxt\u2028\ud800", "\\x9b31m\\u202etxt\\u2028\\ud800"),
    ],
)
def test_nothing_is_left_that_a_terminal_obeys(text: str, shown: str) -> None:
    assert show(text) == shown
    assert shown.isprintable()


def test_the_lines_of_a_text_stay_lines() -> None:
    assert list(show_lines("a\r\n\tb\x1b\n\n")) == ["a", "    b\\x1b"]


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (NOW, "2027-01-15T08:00:00.000Z"),
        (NOW + 1_234_567, "2027-01-15T08:00:00.001Z"),
        (0, "-"),
        (None, "?"),
        ((1 << 63) - 1, "2262-04-11T23:47:16.854Z"),
        (-(1 << 63), "1677-09-21T00:12:43.145Z"),
    ],
)
def test_times_are_in_utc(at: int | None, shown: str) -> None:
    assert show_time(at) == shown


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        (0, "0 s ago"),
        (-59 * SECOND, "59 s ago"),
        (-60 * SECOND, "1 min ago"),
        (HOUR, "in 1 h"),
        (71 * HOUR, "in 2 d"),
    ],
)
def test_distances_are_said_in_one_unit(span: int, shown: str) -> None:
    assert show_distance(NOW + span, NOW) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (36_864, "36.9 kB"),
        (999_600, "1 MB"),
        (4_900_000_000, "4.9 GB"),
        (5 * 10**15, "5,000 TB"),
    ],
)
def test_sizes_have_three_digits(size: int, shown: str) -> None:
    assert show_size(size) == shown


def test_a_file_whose_host_ended_in_order() -> None:
    assert list(lines_of_info(INFO, NOW)) == [
        "/srv/x.db",
        "schema     1",
        "size       36.9 kB",
        "last host  lived until 2027-01-15T05:00:00.000Z (3 h ago), and shut down cleanly",
    ]


def test_a_file_that_was_copied_from_a_host() -> None:
    info = INFO._replace(path="/\x1b", older=True, log_size=1000, clean=False, had_host=False)
    assert list(lines_of_info(info, NOW)) == [
        "/\\x1b",
        "schema     1, which the next host upgrades",
        "size       36.9 kB, and 1 kB of log beside it",
        "last host  did not shut down cleanly: tasks that had begun may run again; when it lived "
        "is not known, but the file was written at 2027-01-15T05:00:00.000Z (3 h ago)",
    ]


def test_tasks_are_counted_by_function_the_next_first() -> None:
    counts = {
        "later": (1200, NOW + HOUR),
        "\x1b": (1, NOW - HOUR),
        None: (2, NOW + 2 * HOUR),
        "odd": (3, None),
    }
    assert list(lines_of_tasks(counts, NOW)) == [
        "",
        "1,206 tasks",
        "            3  odd  ?",
        "            1  \\x1b  next 2027-01-15T07:00:00.000Z (1 h ago)",
        "        1,200  later  next 2027-01-15T09:00:00.000Z (in 1 h)",
        "            2  ?  next 2027-01-15T10:00:00.000Z (in 2 h)",
    ]
    assert list(lines_of_tasks({"q": (1, 0)}, NOW)) == ["", "1 task", "            1  q  queued"]
    assert list(lines_of_tasks({}, NOW)) == ["", "0 tasks"]


def test_repeats_are_counted() -> None:
    assert list(lines_of_repeats(0, 0)) == []
    assert list(lines_of_repeats(1, 0)) == ["", "1 repeat"]
    assert list(lines_of_repeats(3000, 2)) == ["", "3,000 repeats, 2 paused"]


def test_letters_are_counted_by_reason() -> None:
    assert list(lines_of_reasons({"lost": 1, "failed": 1000})) == [
        "",
        "1,001 dead letters",
        "        1,000  failed",
        "            1  lost",
    ]


def test_the_columns_of_tasks() -> None:
    width = width_of(["remind", "\x1b"])
    task = TaskLine(7, "remind", "ada/7", NOW, 2, Begun.NO)
    assert [
        head_of_tasks(width),
        line_of_task(task, width),
        line_of_task(TaskLine(1 << 40, "\x1b", "\x1b", 0, 1, Begun.ONCE), width),
        line_of_task(task._replace(id=None, begun=Begun.YES), width),
        line_of_task(TaskLine(None, None, None, None, None, None), width),
    ] == [
        "        ROW  DUE                       ATTEMPT  STATE  NAME    ID",
        "          7  2027-01-15T08:00:00.000Z        2  waits  remind  ada/7",
        "1099511627776  -                               1  begun  \\x1b    \\x1b",
        "          7  2027-01-15T08:00:00.000Z        2  begun  remind  -",
        "          ?  ?                               ?  ?      ?       -",
    ]
    assert width_of([]) == 0
    assert width_of(["x" * 1000]) == 40
    assert head_of_tasks(0).endswith("NAME  ID")


LETTER = Letter(
    *(5, NOW - HOUR, 1, "pay\x1b", None, None, "id\n1", None, 3, Reason.FAILED),
    *("Traceback:\n  x\nValueError: \x1b[2J\n", NOW),
)


def test_a_dead_letter_is_one_line_with_the_end_of_its_text() -> None:
    assert [head_of_letters(7), *lines_of_letter(LETTER, 7, False)] == [
        "        ROW  SINCE                     REASON      ATTEMPTS  NAME     ID",
        "          5  2027-01-15T08:00:00.000Z  failed             3  pay\\x1b  id\\n1"
        "  ValueError: \\x1b[2J",
    ]
    (line,) = lines_of_letter(LETTER._replace(text="x" * 200, id=None, name=""), 1, False)
    assert line.endswith("  ?  -  " + "x" * 79 + "…")
    (line,) = lines_of_letter(LETTER._replace(text=""), 1, False)
    assert line.endswith("id\\n1")


def test_a_dead_letter_with_its_text() -> None:
    assert list(lines_of_letter(LETTER, 7, True)) == [
        "          5  2027-01-15T08:00:00.000Z  failed             3  pay\\x1b  id\\n1",
        "    due 2027-01-15T07:00:00.000Z",
        "    Traceback:",
        "      x",
        "    ValueError: \\x1b[2J",
    ]


def test_the_page_shows_what_is_printed() -> None:
    path = "/srv/bot/reminders.db"
    info = StoreInfo(path, 2, False, 49_152, 32_992, False, NOW - 180 * SECOND, True)
    counts: dict[str | None, tuple[int, int | None]] = {
        "bill": (2, NOW + 24 * HOUR),
        "remind": (1204, NOW + HOUR // 2),
    }
    letter = LETTER._replace(
        row=41,
        name="bill",
        id="order 7",
        at=NOW - 2 * HOUR,
        text="Traceback\nConnectionRefusedError: [Errno 111] Connection refused\n",
    )
    width = width_of(["bill", "remind"])
    lines = [
        "```text",
        "$ aioscheduler store reminders.db",
        *lines_of_info(info, NOW),
        *lines_of_tasks(counts, NOW),
        *lines_of_reasons({"failed": 1}),
        "$ aioscheduler store reminders.db dead",
        head_of_letters(width),
        *lines_of_letter(letter, width, False),
        "```",
    ]
    page = Path(__file__).parents[2] / "docs/durable.md"
    assert "\n".join(lines) in page.read_text()
