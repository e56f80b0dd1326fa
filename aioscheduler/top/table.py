"""The table of `top`: a block for each manager with its host, its workers and their total. Pure.

The order of managers is fixed; the workers of each are sorted. If the table is too long for the
screen, the largest blocks are cut first, and always from their ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.text import Text

from .._monitoring.statsserver import Snapshot
from ..stats import STORE_FIGURES
from . import figures
from .columns import Column, Fitted, Row, fit, line
from .rates import SORTS, Rates
from .sampling import NO_MANAGER

SILENT = "does not answer: it is stopped, or a task keeps its loop busy"
KEYS = (  # the text shown, and the order that the key selects
    ("q quit", ""),
    ("c cpu", "cpu"),
    ("m memory", "memory"),
    ("p pending", "pending"),
    ("d done", "done"),
    ("l lateness", "lateness"),
    ("w worker", "worker"),
    ("r reverse", ""),
    ("e repeats", ""),
    ("space pause", ""),
)
WORST = ("lateness_p50", "lateness_p99", "loop_lag")  # the total has the worst worker's


@dataclass(frozen=True)
class View:
    """The way the table should look.

    Attributes:
        sort: The order of workers, a key of `SORTS`.
        reverse: Whether that order is reversed.
        clock: The time of day.
        keys: Whether to show the keys.
        paused: Whether the display is paused.
        repeats: Whether to show repeats.
    """

    sort: str = "worker"
    reverse: bool = False
    clock: str = ""
    keys: bool = True
    paused: bool = False
    repeats: bool = False


@dataclass
class Block:
    """A manager's part of the table.

    Attributes:
        title: Its first line.
        old: Whether its manager does not answer, and the rows are from its last answer.
        host, workers, total: Its rows.
        repeats: A line for each repeat, as far as there is room.
        shown: How many workers there is room for.
    """

    title: Text
    old: bool = False
    host: list[Row] = field(default_factory=list)
    workers: list[Row] = field(default_factory=list)
    total: list[Row] = field(default_factory=list)
    repeats: list[Text] = field(default_factory=list)
    shown: int = 0

    @property
    def rows(self) -> list[Row]:
        """All of them."""
        return [*self.host, *self.workers, *self.total]

    @property
    def height(self) -> int:
        """The number of its lines."""
        cut = self.shown < len(self.workers)
        return 1 + len(self.host) + self.shown + cut + len(self.total) + len(self.repeats)


def draw(
    snapshots: Sequence[Snapshot],
    rates: Rates,
    view: View,
    width: int,
    height: int | None = None,
    programs: Mapping[int, str] | None = None,
) -> Group:
    """Draw the table.

    Args:
        snapshots: The managers' answers, in the order in which to show them.
        rates: The rates, to which these snapshots have been added.
        view: The way it should look.
        width: Its width in characters.
        height: The most lines; None for no limit.
        programs: The names of the hosts' programs, by pid.
    """
    lines = _header(snapshots, view, width)
    if not snapshots:
        lines += [Text(), Text(NO_MANAGER, "yellow")]
        return Group(*lines[:height])
    blocks = [_block(snapshot, rates, view, programs or {}) for snapshot in snapshots]
    sparks = any(len(row.track.rates) > 2 for block in blocks for row in block.rows)
    fitted = fit((row for block in blocks for row in block.rows), width, sparks)
    width = min(width, sum(room + 1 for _, room in fitted) - 1)
    lines.append(_heads(fitted, view, width))
    left_out = 0
    if height is not None:
        blocks, left_out = cut(blocks, height - len(lines))
    for block in blocks:
        lines += _lines(block, fitted, width)
    if left_out:
        lines.append(_more(left_out, "manager"))
    return Group(*lines[:height])


def cut(blocks: list[Block], room: int) -> tuple[list[Block], int]:
    """Cut repeats, then workers, then whole blocks until the rest fits.

    Args:
        blocks: The blocks, which are changed.
        room: The number of lines.

    Returns:
        The blocks that fit, and the number of those left out, for which one line is reserved.
    """
    while sum(block.height for block in blocks) > room:
        longest = max(blocks, key=lambda block: len(block.repeats))
        if longest.repeats:
            longest.repeats.pop()
            continue
        largest = max(blocks, key=lambda block: block.shown)
        if largest.shown <= 1:
            break
        # Removing the first makes no room: its line then says how many are missing.
        largest.shown -= 2 if largest.shown == len(largest.workers) else 1
    kept, used = 0, 0
    for block in blocks:
        last = kept == len(blocks) - 1
        if kept and used + block.height > room - (not last):
            break
        kept, used = kept + 1, used + block.height
    return blocks[:kept], len(blocks) - kept


# ---- the contents of a block


def _block(snapshot: Snapshot, rates: Rates, view: View, programs: Mapping[int, str]) -> Block:
    pid, manager, stats = snapshot
    old = stats is None
    if stats is None:
        stats = rates.last(snapshot)
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(f"manager {manager if stats is None else stats['name']}", "bold cyan")
    if pid in programs:
        title.append(f"  {programs[pid]}", "bold")
    title.append(f"  pid {pid}", "bright_black")
    if old:
        title.append(f"  {SILENT}", "yellow")
    if stats is None:
        return Block(title, old)
    title.append(_store(stats), "bright_black")
    if stats["repeats"]:
        title.append(f"  {plural(stats['repeats'], 'repeat')}", "bright_black")
    if stats["repeats_paused"]:
        title.append(f"  {stats['repeats_paused']:,} paused", "yellow")
    workers = [(worker, rates.track(snapshot, worker["worker"])) for worker in stats["workers"]]
    order = SORTS[view.sort]
    # The sort is stable, also in reverse: of equals, the lower slot comes first.
    workers.sort(key=lambda pair: order(*pair), reverse=view.reverse)
    rows = [Row(str(worker["worker"]), worker, track) for worker, track in workers]
    total: dict[str, Any] = {
        key: value for key, value in stats.items() if isinstance(value, int | float)
    }
    processes = [*stats["workers"], stats["host"]]
    # With `workers=0` the host is the worker, and is counted once.
    processes = list({process["pid"]: process for process in processes if process["pid"]}.values())
    for key in ("cpu_percent", "rss"):
        total[key] = sum(process.get(key, 0) for process in processes)
    for key in WORST:
        total[key] = max((worker.get(key, 0.0) for worker in stats["workers"]), default=0.0)
    track = rates.track(snapshot)
    return Block(
        title,
        old,
        host=[Row("host", stats["host"], style="cyan")],
        workers=rows,
        total=[Row("total", total, track, "bold", max(1, len(processes)))],
        repeats=[repeat_line(each) for each in stats["next_repeats"]] if view.repeats else [],
        shown=len(rows),
    )


def _store(stats: Mapping[str, Any]) -> str:
    """Return the figures of a manager's store, if it has one."""
    if not any(stats.get(name) for name in STORE_FIGURES):
        return ""
    p50, p99 = stats["commit_p50"] * 1000, stats["commit_p99"] * 1000
    return (
        f"  stored {stats['stored']:,}  dead letters {stats['dead_letters']:,}"
        f"  unsaved {stats['unsaved']:,}  commits {p50:.1f}/{p99:.1f} ms"
        f"  {stats['store_bytes'] / 1e6:,.1f} MB"
    )


def repeat_line(repeat: Mapping[str, Any]) -> Text:
    """Return the line of a repeat, from its manager's answer."""
    made = Text(no_wrap=True, overflow="ellipsis")
    made.append(f"↻ {_plain(repeat['id'])}", "cyan")
    if repeat["reason"] is not None:
        made.append(f"  paused: {_plain(repeat['reason'])}", "bold red")
    elif repeat["paused"]:
        made.append("  paused", "yellow")
    else:
        made.append(f"  next {_moment(repeat['next'])}")
    rule = figures.rule(repeat["rule"])
    made.append(f"  {_plain(rule)}  {_plain(repeat['name'])}", "bright_black")
    made.append(f"  last {_moment(repeat['last'])}  ran {repeat['ran']:,}")
    for what, style in (("running", ""), ("skipped", "yellow")):
        if repeat[what]:
            made.append(f"  {what} {repeat[what]:,}", style)
    return made


def _moment(text: str | None) -> str:
    """Format a time of an answer in local time."""
    if text is None:
        return figures.NOTHING
    try:
        return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # the answer is from another program
        return "?"


def _plain(text: str) -> str:
    """Return a program's text as one line that a terminal shows but does not obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


# ---- lines


def _header(snapshots: Sequence[Snapshot], view: View, width: int) -> list[Text]:
    first = Text(no_wrap=True, overflow="ellipsis")
    first.append("aioscheduler top", "bold")
    workers = sum(len(snapshot.stats["workers"]) for snapshot in snapshots if snapshot.stats)
    for words in (view.clock, plural(len(snapshots), "manager"), plural(workers, "worker")):
        first.append(f"  {words}")
    if view.paused:
        first.append("  ")
        first.append("paused", "black on yellow")
    if not view.keys:
        return [first]
    second = Text(no_wrap=True, overflow="ellipsis")
    gap = "  " if sum(len(words) + 2 for words, _ in KEYS) <= width + 2 else " "
    for words, sort in KEYS:
        key, _, meaning = words.partition(" ")
        second.append(gap if second else "")
        second.append(key, "bold cyan")
        second.append(" ")
        second.append(meaning, "black on cyan" if sort == view.sort else "bright_black")
    return [first, second]


def _heads(fitted: Fitted, view: View, width: int) -> Text:
    def head(column: Column, room: int) -> Text:
        words = column.head if len(column.head) <= room else column.short
        return Text(words, "black on cyan" if column.key == view.sort else "")

    made = line([head(*pair) for pair in fitted], fitted)
    made.align("left", width)
    made.stylize_before("black on green")
    return made


def _lines(block: Block, fitted: Fitted, width: int) -> list[Text]:
    title = block.title.copy()
    title.append(" ")
    title.append("─" * max(0, width - title.cell_len), "bright_black")
    lines = [_cells(row, fitted) for row in (*block.host, *block.workers[: block.shown])]
    if block.shown < len(block.workers):
        lines.append(_more(len(block.workers) - block.shown, "worker"))
    lines += [_cells(row, fitted) for row in block.total]
    lines += block.repeats
    if block.old:
        for old in lines:
            old.stylize("dim")
    return [title, *lines]


def _cells(row: Row, fitted: Fitted) -> Text:
    return line([column.cell(row, room) for column, room in fitted], fitted)


def _more(number: int, what: str) -> Text:
    return Text(f"… {number} more {what}{'s' * (number > 1)}", "bright_black")


def plural(number: int, what: str) -> str:
    """Format a number of things: `1 worker`, `2 workers`."""
    return f"{number} {what}{'s' * (number != 1)}"
