"""What `bench_all.py` writes: Markdown between markers, and charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import as_text
from goals import Figures, find

INK, OURS, PEERS = "#24292f", "#2563eb", "#9ca3af"


def write_between(page: Path, marker: str, text: str) -> None:
    """Replaces what stands between `<!-- marker -->` and `<!-- /marker -->`."""
    before, rest = page.read_text().split(f"<!-- {marker} -->\n")
    _, after = rest.split(f"<!-- /{marker} -->")
    page.write_text(f"{before}<!-- {marker} -->\n\n{text}\n\n<!-- /{marker} -->{after}")


def all_tables(results: dict[str, Figures]) -> str:
    """Gives the rows of all benchmarks as Markdown tables."""
    parts: list[str] = []
    for name in next(iter(results.values())):
        parts.append(f"### `bench_{name}.py`")
        parts += [
            f"{figures[name]['machine']}\n\n{_table(figures[name]['rows'])}"
            for figures in results.values()
            if name in figures
        ]
    return "\n\n".join(parts)


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(as_text(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def charts(results: dict[str, Figures], folder: Path) -> None:
    """Draws the figures of the newest Python."""
    import matplotlib.pyplot as plt  # needed here only, and slow to import

    figures = list(results.values())[-1]
    folder.mkdir(exist_ok=True)
    plt.rcParams.update(
        {
            "font.size": 9,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.hashsalt": "aioscheduler",
        }
    )
    titles = {
        "throughput": ("Tasks a second, end to end with results, 2 processes", "tasks/s"),
        "burst": ("Tasks due at one instant: worked off a second", "tasks/s"),
        "memory": ("Bytes of a pending task, all processes together", "bytes"),
        "lateness": ("Lateness in the middle at 1,000 tasks a second", "ms"),
    }
    for name, (title, unit) in titles.items():
        bars = _bars(name, figures)
        drawing, axes = plt.subplots(figsize=(7, 0.42 * len(bars) + 1), layout="constrained")
        colors = [OURS if "Manager" in who else PEERS for who in bars]
        drawn = axes.barh(list(bars), list(bars.values()), color=colors)
        axes.bar_label(drawn, [as_text(value) for value in bars.values()], padding=4)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{title} ({unit})\n{figures[name]['machine']}", loc="left", fontsize=9)
        drawing.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
        plt.close(drawing)


def _bars(name: str, figures: Figures) -> dict[str, float]:
    rows = figures[name]["rows"]
    if name == "memory":
        most = max(row["pending"] for row in rows if "Manager" in row["who"])
        rows = [find(figures, name, who=who) for who in {row["who"]: None for row in rows}]
        return {row["who"]: row["bytes"] for row in rows if row["pending"] >= most // 5}
    if name == "lateness":
        rows = [row for row in rows if row["tasks/s"] == 1000]
        return {f"{row['who']}, {row['beside']}": row["p50 ms"] for row in rows}
    # Those two run plain functions, hundreds in one message: another thing altogether.
    chunked = ("ProcessPoolExecutor.map", "loky map")
    return {row["who"]: row["tasks/s"] for row in rows if row["who"] not in chunked}
