"""The output of `bench_cores.py` in a terminal: the progress bar, and tables in colour.

Colour only repeats what the figures say. There is none if the output goes to a file or a pipe, if
NO_COLOR is set, or without rich, an extra: then tables are plain, and progress is a line a second.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from judge_cores import BUSY, FULL

RICH = importlib.util.find_spec("rich") is not None
Tell = Callable[[str, int, int | None], None]  # title, tasks done, tasks in all

RUN = (  # columns of the tables: fields with their formats
    "work workers tasks:, tasks_per_s:,.0f speedup:.2f efficiency:.0% "
    "lateness_p50_ms:.2f lateness_p99_ms:.2f early lost others_percent:.0f"
)
PROCESS = "work workers process cpu_percent:.0f rss_mb:.1f"


def make_console(file: TextIO) -> Any:
    from rich.console import Console  # an extra

    # With NO_COLOR alone rich still writes bold text; with `color_system` None it does not.
    plain = bool(os.environ.get("NO_COLOR")) or not file.isatty()
    width = None if file.isatty() else 120
    colors: Any = None if plain else "auto"
    return Console(file=file, width=width, color_system=colors, highlight=False)


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """Show progress on stderr: a bar in a terminal if rich is installed, else a line a second."""
    if not RICH or not sys.stderr.isatty():
        yield _tell_in_lines()
        return
    from rich import progress as bars  # an extra

    columns = (
        bars.TextColumn("[bold]{task.description:<19}"),
        bars.BarColumn(bar_width=30, complete_style="cyan"),
        bars.TextColumn("{task.fields[count]}"),
        bars.TextColumn("[cyan]{task.fields[rate]:>9}"),
        bars.TextColumn("[dim]{task.fields[left]}"),
    )
    empty: dict[str, Any] = {"count": "", "rate": "", "left": ""}
    # The host is measured while it draws: draw only as often as needed to look alive.
    options: dict[str, Any] = {"refresh_per_second": 4, "transient": True}
    with bars.Progress(*columns, console=make_console(sys.stderr), **options) as bar:
        line = bar.add_task("", total=None, **empty)
        title, begun = "", 0.0

        def tell(now: str, done: int, total: int | None) -> None:
            nonlocal title, begun
            if now != title:
                title, begun = now, time.monotonic()
                bar.reset(line, total=total, description=title, **empty)
            elapsed = time.monotonic() - begun
            if total is not None and done and elapsed:
                rate = done / elapsed
                left = f"{math.ceil((total - done) / rate)} s left"
                count = f"{done:>{len(f'{total:,}')},} / {total:,}"
                bar.update(line, completed=done, count=count, rate=f"{rate:,.0f}/s", left=left)

        yield tell


def _tell_in_lines() -> Tell:
    told = -math.inf

    def tell(title: str, done: int, total: int | None) -> None:
        nonlocal told
        if time.monotonic() >= told + 1:
            told = time.monotonic()
            of = f": {done:,} of {total:,} tasks" if total else ""
            print(f"{title}{of}", file=sys.stderr, flush=True)

    return tell


def style(name: str, row: dict[str, Any]) -> str:
    """Return the style of a field: green good, yellow so-so, red bad; bold: a full core."""
    value = row[name]
    if name in ("speedup", "efficiency"):
        near = row["efficiency"]
        if row["workers"] == 1:
            return ""  # the baseline of the others
        return "green" if near >= 0.85 else "yellow" if near >= 0.6 else "red"
    if name in ("early", "lost"):
        return "bold red" if value else "green"
    if name == "others_percent":
        return "yellow" if (value or 0.0) >= BUSY else ""
    if name == "cpu_percent":
        return "bold magenta" if (value or 0.0) >= FULL else ""
    return {"work": "bold", "tasks_per_s": "bold"}.get(name, "")


def say(sentence: str) -> None:
    """Print a sentence, in bold and wrapped between words where possible."""
    if RICH and sys.stdout.isatty():
        make_console(sys.stdout).print(sentence, style="bold", markup=False)
    else:
        print(sentence)


def show(columns: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print a table with rich, or without."""
    rows = list(rows)
    fields = [column.partition(":")[::2] for column in columns.split()]
    heads = [
        name.replace("_per_", "/").replace("_percent", " %").replace("ness_", " ").replace("_", " ")
        for name, _ in fields
    ]
    cells = [
        ["-" if row[name] is None else format(row[name], form) for name, form in fields]
        for row in rows
    ]
    if not RICH:
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        for line in (heads, *cells):
            print(*(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), sep="  ")
        print()
        return
    from rich import box  # an extra
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify = "right"
    for line, row in zip(cells, rows, strict=True):
        texts = zip(line, fields, strict=True)
        table.add_row(*(Text(cell, style(name, row)) for cell, (name, _) in texts))
    make_console(sys.stdout).print(table)
