"""The cells of `top`, their colours, and the columns that fit a width."""

from __future__ import annotations

import re
from typing import Any

import pytest
from screen import render, sampled, snapshot, worker

from aioscheduler.stats import WorkerState
from aioscheduler.top.columns import COLUMNS, GROWTH, LEFT_OUT, LONGEST, RARE, Row, fit, line
from aioscheduler.top.rates import SORTS


def test_the_first_sample_has_no_rate() -> None:
    lines = render([snapshot(worker(0, 500))])
    assert lines[-2].split().count("–") == 1


WORDS = {  # the heads that fit
    70: "worker state cpu memory pending done/s fail p99 rst",
    80: "worker state cpu memory pending run done/s fail p50 p99 rst",
    100: "worker pid state cpu memory pending run done/s fail p50 p99 lag rst",
    120: "worker pid state cpu memory pending run done/s throughput fail p50 p99 lateness lag rst",
    160: "worker pid state cpu memory pending running done/s throughput failed late p50 late p99 "
    "lateness loop lag restarts",
}


@pytest.mark.parametrize("width", [40, *WORDS, 300])
def test_every_width_is_filled_and_not_exceeded(width: int) -> None:
    shown, rates = sampled(70, worker(0), worker(1), worker(2))
    lines = render(shown, width, rates=rates)
    assert max(map(len, lines)) <= width
    if width in WORDS:
        assert " ".join(lines[2].split()) == WORDS[width]
    if 120 <= width <= 200:
        assert max(map(len, lines)) == width
        assert "▇▇▇▇▇▇▇▇" in lines[4 + 1]
    if width < 120:
        assert not any(block in "".join(lines) for block in "▁▂▃▄▅▆▇█")


def test_what_was_lost_is_shown_in_every_width() -> None:
    shown, rates = sampled(3, worker(0, lost=3))
    for width in (70, 80, 120, 160):
        lines = render(shown, width, rates=rates)
        assert " lost " in lines[2]
        assert lines[5].split().count("3") == 1


def test_what_was_retried_or_too_late_is_shown_where_it_happened() -> None:
    shown, rates = sampled(3, worker(0, retried=5, too_late=7))
    heads, values = (render(shown, 160, rates=rates)[row] for row in (2, 5))
    assert " retried " in heads
    assert " too late" in heads
    assert [values.split().count(value) for value in ("5", "7")] == [1, 1]
    shown, rates = sampled(3, worker(0, retried=5, lost=3))
    assert " retry" not in render(shown, 70, rates=rates)[2]  # what was lost matters more


def test_every_key_of_the_columns_is_one() -> None:
    keys = {column.key for column in COLUMNS}
    assert keys > {*LEFT_OUT, *LONGEST, *(key for step in GROWTH for key in step)}
    assert keys >= set(SORTS)  # the head of the sorted column is highlighted


RED, YELLOW, GREEN = "31m", "33m", "32m"


@pytest.mark.parametrize(
    ("more", "text", "colour"),
    [
        ({"state": WorkerState.READY}, "ready", GREEN),
        ({"state": WorkerState.SILENT}, "silent", YELLOW),
        ({"state": WorkerState.DRAINING}, "draining", YELLOW),
        ({"state": WorkerState.RESTARTING}, "restarting", YELLOW),
        ({"state": WorkerState.STOPPED}, "stopped", RED),
        ({"lateness_p99": 0.02}, "20.0 ms", YELLOW),
        ({"lateness_p99": 0.2}, "200 ms", RED),
        ({"failed": 17}, "17", RED),
        ({"lost": 17}, "17", RED),
        ({"restarts": 17}, "17", RED),
        ({"cpu_percent": 40.0}, "■", GREEN),
        ({"cpu_percent": 75.0}, "■", YELLOW),
        ({"cpu_percent": 98.0}, "■", RED),
    ],
)
def test_what_matters_is_coloured(more: dict[str, Any], text: str, colour: str) -> None:
    line = render([snapshot(worker(0, **more))], styles=True)[5]
    assert re.search(f"{colour} *{text}", line)


def test_what_does_not_matter_is_not() -> None:
    line = render([snapshot(worker(0))], styles=True)[5]
    assert RED not in line
    assert YELLOW not in line


def cell(key: str, row: Row, width: int) -> str:
    (column,) = (column for column in COLUMNS if column.key == key)
    return column.cell(row, width).plain


def test_a_missing_figure_is_blank_and_not_0() -> None:
    empty = Row("host", {"finished": 0})
    for column in COLUMNS:
        if column.key in ("worker", "cpu", "done", "rates", "lates"):
            continue
        assert not cell(column.key, empty, column.least).strip(), column.key
    assert cell("cpu", empty, 10).strip() == "–"
    assert cell("pid", Row("0", {"pid": None}), 5) == "–"
    assert cell("lost", Row("0", {"lost": 0}), 4) == "0"


def test_nodes_have_a_column_where_there_are_any() -> None:
    for node in (None, "10.0.0.7"):
        rows = [Row("0", {"node": node}), Row("total", {})]
        assert ("node" in {column.key for column, _ in fit(rows, 200, sparks=True)}) is bool(node)
        assert cell("node", rows[0], 10) == (node or "")
        assert cell("node", rows[1], 10) == ""


@pytest.mark.parametrize(
    ("percent", "processes", "filled"),
    [(0.0, 1, 0), (4.0, 1, 0), (5.0, 1, 1), (50.0, 1, 5), (100.0, 1, 10), (180.0, 1, 10),
     (100.0, 2, 5), (200.0, 2, 10)],
)  # fmt: skip
def test_a_full_bar_is_a_core_for_each_process(percent: float, processes: int, filled: int) -> None:
    text = cell("cpu", Row("total", {"cpu_percent": percent}, processes=processes), 15)
    assert len(text) == 15
    assert (text.count("■"), text.count("·")) == (filled, 10 - filled)


def test_the_least_important_columns_go_first() -> None:
    rows = [Row("0", dict.fromkeys(RARE, 1) | {"node": "n1"})]
    before = {column.key for column in COLUMNS}
    left_out: list[str] = []
    for width in range(200, 0, -1):
        keys = {column.key for column, _ in fit(rows, width, sparks=True)}
        assert keys <= before  # a column left out does not come back
        left_out += sorted(before - keys, key=LEFT_OUT.index)
        before = keys
    assert left_out == list(LEFT_OUT)
    assert before == {"worker", "state", "cpu", "pending", "done", "lateness"}


def test_cells_stand_in_the_widths_of_their_columns() -> None:
    fitted = fit([Row("7", {})], 60, sparks=False)
    row = Row("7", {"state": "a state that nobody knows", "pending": 5})
    cells = [column.cell(row, width) for column, width in fitted]
    text = line(cells, fitted).plain
    assert len(text) == sum(width + 1 for _, width in fitted) - 1
    assert text.startswith("7      a state")
    assert "…" in text
