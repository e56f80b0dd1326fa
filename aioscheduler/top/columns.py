"""The columns of `top`: the text and colour of each cell, and which columns fit.

If not all columns fit at their least widths, the least important are left out. Spare room goes to
the sparklines, then to the long heads, then to the sparklines again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from ..stats import COUNTS, Kind
from . import figures
from .rates import Track

LATE, VERY_LATE = 0.01, 0.1  # seconds
HALF, MOST = 50, 80  # per cent of a core: yellow from the first, red from the second

STATE_STYLES = {
    "ready": "green",
    "starting": "cyan",
    "silent": "yellow",
    "draining": "yellow",
    "restarting": "yellow",
    "stopped": "red",
}


@dataclass(frozen=True)
class Row:
    """A line of the table: a host, a worker or a total.

    Attributes:
        name: The text of the first column.
        stats: Stats like a worker's; a missing one leaves its cell empty.
        track: Its recent rates and lateness.
        style: The style of the whole line.
        processes: The number of processes in it; a full bar is one core for each.
    """

    name: str
    stats: Mapping[str, Any]
    track: Track = field(default_factory=Track)
    style: str = ""
    processes: int = 1


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: Its name in this module.
        head: Its heading.
        short: Its heading where there is no room for `head`.
        least: Its least width; unless `fluid`, it grows with its cells.
        cell: Returns the cell for a row and a width.
        left: Whether it is aligned to the left.
        fluid: Whether its cells adapt to any width.
    """

    key: str
    head: str
    short: str
    least: int
    cell: Callable[[Row, int], Text]
    left: bool = False
    fluid: bool = False


# ---- cells


def _no_style(_: float) -> str:
    return ""


def _number(
    key: str, write: Callable[[float | None], str], style: Callable[[float], str] = _no_style
) -> Callable[[Row, int], Text]:
    def cell(row: Row, _: int) -> Text:
        if key not in row.stats:
            return Text()
        value = row.stats[key]
        return Text(write(value), "bright_black" if not value else style(value) or row.style)

    return cell


def lateness_style(late: float) -> str:
    """Return the colour of a lateness in seconds."""
    if late > VERY_LATE:
        return "bold red"
    return "yellow" if late > LATE else ""


def _bad(_: float) -> str:
    return "bold red"


def _name(row: Row, _: int) -> Text:
    return Text(row.name, row.style)


def _state(row: Row, width: int) -> Text:
    state = row.stats.get("state", "")
    text = Text(state, STATE_STYLES.get(state, row.style))
    text.truncate(width, overflow="ellipsis")
    return text


def _pid(row: Row, _: int) -> Text:
    pid = row.stats.get("pid")
    return Text("" if "pid" not in row.stats else str(pid or figures.NOTHING), "bright_black")


def _node(row: Row, _: int) -> Text:
    return Text(row.stats.get("node") or "", "bright_black")


def _cpu(row: Row, width: int) -> Text:
    value = row.stats.get("cpu_percent")
    number = Text(f"{figures.percent(value):>5}", row.style)
    if value is None:
        return number
    length = width - len(number)
    filled = min(length, round(length * value / row.processes / 100))
    filled = max(filled, value >= 5)  # even a short bar distinguishes little from nothing
    bar = Text()
    for index in range(length):
        share = 100 * index / length
        style = "green" if share < HALF else "yellow" if share < MOST else "red"
        bar.append(*(("■", style) if index < filled else ("·", "bright_black")))
    return bar + number


def _rate(row: Row, _: int) -> Text:
    if "finished" not in row.stats:
        return Text()
    value = row.track.rate
    return Text(figures.rate(value), "bright_black" if not value else row.style or "bold")


def _rates(row: Row, width: int) -> Text:
    values = list(row.track.rates)[-width:]
    top = max((value for value in values if value is not None), default=0.0)
    line = Text(" " * (width - len(values)))
    for value in values:
        line.append(figures.rate_block(value, top), "cyan" if value else "bright_black")
    return line


def _lates(row: Row, width: int) -> Text:
    values = list(row.track.lates)[-width:]
    line = Text(" " * (width - len(values)))
    for value in values:
        style = "" if value is None else lateness_style(value) or "green"
        line.append(figures.lateness_block(value), style.removeprefix("bold "))
    return line


# ---- the columns

_size, _time = figures.size, figures.seconds


def _counts(kind: Kind) -> Iterator[Column]:
    """Yield the columns of a kind of counts; all but those of the kind NOW are bad signs."""
    for name, count in COUNTS.items():
        if count.kind is kind and count.head:
            cell = _number(name, figures.count, _no_style if kind is Kind.NOW else _bad)
            # A count that goes up and down should not change the widths each time.
            least = max(len(count.short), 5 if kind is Kind.NOW else 0)
            yield Column(name, count.head, count.short, least, cell)


COLUMNS = (
    Column("worker", "worker", "worker", 6, _name, left=True),
    Column("pid", "pid", "pid", 5, _pid),
    Column("node", "node", "node", 4, _node, left=True),
    Column("state", "state", "state", 8, _state, left=True, fluid=True),
    Column("cpu", "cpu", "cpu", 10, _cpu, left=True, fluid=True),
    Column("memory", "memory", "memory", 7, _number("rss", _size)),
    *_counts(Kind.NOW),
    Column("done", "done/s", "done/s", 6, _rate),
    Column("rates", "throughput", "rates", 8, _rates, left=True, fluid=True),
    *_counts(Kind.OUTCOME),
    Column("p50", "late p50", "p50", 7, _number("lateness_p50", _time, lateness_style)),
    Column("lateness", "late p99", "p99", 7, _number("lateness_p99", _time, lateness_style)),
    Column("lates", "lateness", "lateness", 8, _lates, left=True, fluid=True),
    Column("lag", "loop lag", "lag", 7, _number("loop_lag", _time, lateness_style)),
    *_counts(Kind.EVENT),
)
SPARKS = ("rates", "lates")
RARE = tuple(name for name, count in COUNTS.items() if count.rare)
# The least important first; columns that are not here are never left out.
LEFT_OUT = (
    *(*SPARKS[::-1], "pid", "lag", "node", "running", "p50", "restarts"),
    *(*RARE[::-1], "memory", "failed"),
)
# The widths to which columns grow if there is room, step by step; the long heads come after the
# steps and before the longest sparklines.
GROWTH = ({"rates": 10, "lates": 10}, {"cpu": 12}, {"rates": 16, "lates": 16, "state": 10})
LONGEST = {"cpu": 17, "rates": figures.SAMPLES, "lates": figures.SAMPLES}

Fitted = Sequence[tuple[Column, int]]


def fit(rows: Iterable[Row], width: int, sparks: bool) -> Fitted:
    """Choose the columns for some rows and a width, and return each with its width."""
    widths: dict[str, int] = {}
    rows = list(rows)
    # There are no sparklines without a history.
    unused = set() if sparks else set(SPARKS)
    unused |= {name for name in (*RARE, "node") if not any(row.stats.get(name) for row in rows)}
    columns = [column for column in COLUMNS if column.key not in unused]
    for column in columns:
        needed = 0 if column.fluid else max((len(column.cell(row, 0)) for row in rows), default=0)
        widths[column.key] = max(column.least, needed)
    for key in LEFT_OUT:
        if key in widths and _spare(widths, width) < 0:
            del widths[key]
    left = [column for column in columns if column.key in widths]
    for wishes in (*GROWTH, {column.key: len(column.head) for column in left}, LONGEST):
        _grow(widths, wishes, width)
    return [(column, widths[column.key]) for column in left]


def _spare(widths: Mapping[str, int], width: int) -> int:
    return width - sum(widths.values()) - (len(widths) - 1)


def _grow(widths: dict[str, int], wishes: Mapping[str, int], width: int) -> None:
    """Distribute spare room, one character at a time, among columns below their wished width."""
    growing = [key for key in wishes if key in widths]
    while growing := [key for key in growing if widths[key] < wishes[key]]:
        for key in growing:
            if _spare(widths, width) <= 0:
                return
            widths[key] += 1


def line(cells: Iterable[Text], fitted: Fitted) -> Text:
    """Join cells into a line."""
    made = Text(no_wrap=True, overflow="crop")
    for index, (cell, (column, width)) in enumerate(zip(cells, fitted, strict=True)):
        if index:
            made.append(" ")
        cell.align("left" if column.left else "right", width)
        made.append_text(cell)
    return made
