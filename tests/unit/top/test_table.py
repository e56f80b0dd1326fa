"""The table of `top`: blocks of managers, their order, and the cuts for a small screen."""

from __future__ import annotations

import time
from typing import Any

import pytest
from rich.text import Text
from screen import render, sampled, snapshot, worker

from aioscheduler._monitoring.statsserver import Snapshot
from aioscheduler.stats import WorkerState
from aioscheduler.top.columns import Row
from aioscheduler.top.rates import SORTS, Rates
from aioscheduler.top.sampling import NO_MANAGER
from aioscheduler.top.table import KEYS, Block, View, cut, plural


def test_a_manager_has_its_host_its_workers_and_their_total() -> None:
    shown, rates = sampled(1, worker(0), worker(1, state=WorkerState.SILENT))
    lines = render(shown, rates=rates, programs={77: "bot.py"}, view=View(clock="12:00:00"))
    assert lines[0].split() == ["aioscheduler", "top", "12:00:00", "1", "manager", "2", "workers"]
    assert lines[3].startswith("manager 0a1b2c3d  bot.py  pid 77 ───")
    heads, host, first, second, total = (line.split() for line in (lines[2], *lines[4:]))
    assert heads[:8] == ["worker", "pid", "state", "cpu", "memory", "pending", "running", "done/s"]
    assert [word for word in host if word.strip("■·")] == [
        "host", "77", "12%", "36.0", "MB", "2.00", "ms",
    ]  # fmt: skip
    assert [word for word in first if word.strip("■·")] == [
        "0", "1000", "ready", "45%", "28.6", "MB", "1.23", "M", "12", "10", "0",
        "0.08", "ms", "1.20", "ms", "1.00", "ms", "0",
    ]  # fmt: skip
    assert second[2] == "silent"
    assert [word for word in total if word.strip("■·")] == [
        "total", "102%", "93.2", "MB", "2.47", "M", "24", "20", "0",
        "0.08", "ms", "1.20", "ms", "1.00", "ms", "0",
    ]  # fmt: skip


def test_a_store_is_shown_beside_its_manager() -> None:
    told: dict[str, Any] = {
        "stored": 12_345,
        "dead_letters": 2,
        "commit_p50": 0.0012,
        "commit_p99": 0.05,
    }
    shown = [snapshot(worker(0), **told, store_bytes=4_300_000)]
    (line,) = [line for line in render(shown, width=200) if line.startswith("manager")]
    assert "  stored 12,345  dead letters 2  unsaved 0  commits 1.2/50.0 ms  4.3 MB " in line
    (line,) = [line for line in render([snapshot(worker(0))]) if line.startswith("manager")]
    assert "stored" not in line


REPEAT: dict[str, Any] = {
    "id": "report",
    "rule": "every 0:01:00",
    "name": "m:f",
    "last": None,
    "reason": None,
    "next": "2030-01-01T00:01:00+00:00",
    "ran": 1234,
    "skipped": 0,
    "running": 0,
    "paused": False,
}


def test_repeats_are_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    repeats = [
        REPEAT,
        REPEAT
        | {"id": "a\x1b[2J", "last": "2029-12-31T23:00:00+00:00", "skipped": 5, "running": 2},
        REPEAT | {"paused": True, "next": None},
        REPEAT | {"paused": True, "next": None, "reason": "its rule raised\nLookupError"},
        REPEAT | {"next": "?"},
    ]
    shown = [snapshot(worker(0), repeats=repeats, repeats_paused=2, name="bots")]
    shown[0].stats["repeats"] = 5  # type: ignore[index]
    lines = render(shown, width=200, view=View(repeats=True))
    assert "manager bots  pid 77  5 repeats  2 paused ──" in lines[3]
    assert lines[-5:] == [
        "↻ report  next 2030-01-01 01:01:00  every 1 min  m:f  last –  ran 1,234",
        "↻ a?[2J  next 2030-01-01 01:01:00  every 1 min  m:f  last 2030-01-01 00:00:00  "
        "ran 1,234  running 2  skipped 5",
        "↻ report  paused  every 1 min  m:f  last –  ran 1,234",
        "↻ report  paused: its rule raised?LookupError  every 1 min  m:f  last –  ran 1,234",
        "↻ report  next ?  every 1 min  m:f  last –  ran 1,234",
    ]
    assert not any(line.startswith("↻") for line in render(shown))
    # Repeats are cut first.
    short = render(shown, height=9, view=View(repeats=True))
    assert [line[0] for line in short[-3:]] == ["t", "↻", "↻"]
    assert len(render(shown, height=6, view=View(repeats=True))) == 6
    monkeypatch.undo()
    time.tzset()


def test_no_width_breaks_it() -> None:
    shown, rates = sampled(5, worker(0, lost=3), worker(1, pid=None, state=WorkerState.RESTARTING))
    for width in (*range(1, 130, 3), *range(130, 250, 20)):
        lines = render(shown, width, 24, rates=rates)
        assert len(lines) <= 24
        assert max(map(len, lines)) <= width


def test_a_manager_is_called_by_its_name_also_while_it_is_silent() -> None:
    told = snapshot(worker(0), name="bots")
    rates = Rates()
    for second, snapshots in enumerate(([told], [told._replace(stats=None)])):
        rates.add(float(second), snapshots)
        assert render(snapshots, rates=rates)[3].startswith("manager bots  pid 77")


def test_workers_are_sorted_inside_their_manager() -> None:
    shown = [
        snapshot(worker(0, pending=5), worker(1, pending=9), worker(2, pending=5)),
        snapshot(worker(0), worker(1), pid=78),
    ]

    def order(view: View) -> list[str]:
        lines = render(shown, view=view)
        return [line.split()[0] for line in lines[3:] if line[0].isdigit()]

    assert order(View()) == ["0", "1", "2", "0", "1"]
    assert order(View(reverse=True)) == ["2", "1", "0", "1", "0"]
    assert order(View("pending")) == ["1", "0", "2", "0", "1"]
    assert order(View("pending", reverse=True)) == ["0", "2", "1", "0", "1"]


def test_a_silent_manager_shows_its_last_answer_if_there_is_one() -> None:
    shown, rates = sampled(2, worker(0))
    silent = Snapshot(77, "0a1b2c3d", None)
    rates.add(3.0, [silent])
    lines = render([silent], rates=rates)
    assert "does not answer" in lines[3]
    assert [line.split()[0] for line in lines[4:]] == ["host", "0", "total"]
    lines = render([silent])
    assert "does not answer" in lines[3]
    assert len(lines) == 4


def test_without_a_manager_it_says_what_to_do() -> None:
    assert NO_MANAGER in render([])
    assert len(render([], 40, 24)) <= 24


def test_what_is_too_much_for_the_screen_is_cut_where_most_is() -> None:
    many = [
        snapshot(*map(worker, range(40))),
        snapshot(worker(0), worker(1), pid=78),
        snapshot(*map(worker, range(9)), pid=79),
    ]
    lines = render(many, height=24)
    assert len(lines) == 24
    assert [line for line in lines if "more" in line] == ["… 36 more workers", "… 5 more workers"]
    assert sum(line.startswith("total") for line in lines) == 3
    lines = render(many, height=10)
    assert lines[-1] == "… 2 more managers"
    for height in range(1, 70):
        assert len(render(many, height=height)) <= height


def test_with_no_workers_of_its_own_the_host_is_counted_once() -> None:
    lines = render([snapshot(worker(0, pid=77, rss=36_000_000, cpu_percent=12.0))])
    assert [w for w in lines[-1].split()[:4] if w.strip("■·")] == ["total", "12%", "36.0"]


def test_a_manager_of_another_version_may_tell_less() -> None:
    shown = snapshot(worker(0))
    assert shown.stats is not None
    shown.stats["workers"] = [{"worker": 0, "state": "dozing", "pid": 5, "finished": 1}]
    shown.stats["host"] = {"pid": 77}
    assert "dozing" in render([shown])[5]


def test_there_is_a_key_for_each_order() -> None:
    assert {sort for _, sort in KEYS if sort} == set(SORTS)


def test_the_order_and_a_pause_can_be_seen() -> None:
    def header(view: View) -> list[str]:
        return render([snapshot(worker(0))], view=view)[:2]

    assert "paused" not in header(View())[0]
    assert "paused" in header(View(paused=True))[0]
    assert "q quit" in header(View())[1]
    assert "q quit" not in header(View(keys=False))[1]


def blocks(*workers: int) -> list[Block]:
    rows: list[list[Row]] = [[Row(str(n), {}) for n in range(count)] for count in workers]
    return [
        Block(Text(), host=[Row("host", {})], workers=row, total=[Row("total", {})], shown=len(row))
        for row in rows
    ]


@pytest.mark.parametrize(
    ("room", "shown", "left_out"),
    [
        (16, [4, 6], 0),  # all: 7 lines and 9
        (15, [4, 4], 0),  # two workers make room for the line that counts them
        (14, [2, 4], 0),
        (10, [1, 1], 0),
        (9, [1], 1),
        (4, [1], 1),
    ],
)
def test_workers_go_before_managers(room: int, shown: list[int], left_out: int) -> None:
    left, out = cut(blocks(4, 6), room)
    assert ([block.shown for block in left], out) == (shown, left_out)


def test_one_manager_is_shown_however_small_the_screen() -> None:
    left, out = cut(blocks(1, 1, 1), 0)
    assert (len(left), out) == (1, 2)


def test_numbers_are_counted_in_words() -> None:
    assert [plural(n, "worker") for n in (0, 1, 2)] == ["0 workers", "1 worker", "2 workers"]
