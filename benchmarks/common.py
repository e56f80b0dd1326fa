"""What the benchmarks share: the machine line, medians side by side, the table, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from pathlib import Path
from typing import Any

SEED = 20260  # of everything random here


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Makes a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    made.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    return made


def machine() -> str:
    """Says where the figures are from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Prints the rows, which have the same keys, as a table, and saves them if asked to."""
    print(machine())
    columns = list(rows[0])
    texts = [columns, *([_text(row[column]) for column in columns] for row in rows)]
    widths = [max(len(text[index]) for text in texts) for index in range(len(columns))]
    for text in texts:
        print("  ".join(cell.rjust(width) for cell, width in zip(text, widths, strict=True)))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


def median(values: list[float]) -> float:
    """Gives the middle value."""
    return statistics.median(values)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    return str(value)
