"""The output of `bench_all.py`: Markdown between markers, and charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from common import as_text
from goals import Figures, find

INK, PALE, OURS, PEERS = "#24292f", "#57606a", "#2563eb", "#9ca3af"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": PEERS,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.5,
    "legend.frameon": False,
    "text.color": INK,
    "ytick.color": INK,
}


def write_between(page: Path, marker: str, text: str) -> None:
    """Replace the text between `<!-- marker -->` and `<!-- /marker -->`."""
    before, rest = page.read_text().split(f"<!-- {marker} -->\n")
    _, after = rest.split(f"<!-- /{marker} -->")
    page.write_text(f"{before}<!-- {marker} -->\n\n{text}\n\n<!-- /{marker} -->{after}")


def all_tables(results: dict[str, Figures]) -> str:
    """Return the rows of all benchmarks as Markdown tables."""
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


class Chart(NamedTuple):
    """Bars of one benchmark."""

    title: str
    unit: str
    note: str
    order: int  # of the values: 1 ascending, as less is better; -1 descending; 0 as measured


CHARTS = {
    "throughput": Chart(
        "Tasks a second, end to end with results, 2 processes",
        "/s",
        "more is better; coroutines only, pools of plain calls are in the table",
        -1,
    ),
    "burst": Chart("Tasks due at one instant, worked off a second", "/s", "more is better", -1),
    "memory": Chart(
        "Memory of a pending task, all processes together",
        " B",
        "less is better; “held”: the program keeps the handles",
        1,
    ),
    "lateness": Chart(
        "Lateness of a timed task at 1,000 a second, median", " ms", "less is better", 0
    ),
}


def charts(results: dict[str, Figures], folder: Path) -> None:
    """Draw the figures of the newest Python."""
    from matplotlib import rc_context  # an extra, and slow to import

    figures = list(results.values())[-1]
    folder.mkdir(exist_ok=True)
    with rc_context(STYLE):
        for name, chart in CHARTS.items():
            bars = dict(sorted(_bars(name, figures).items(), key=lambda bar: bar[1] * chart.order))
            _draw(chart, bars, figures[name]["machine"], folder / f"{name}.png")


def _draw(chart: Chart, bars: dict[str, float], machine: str, file: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    drawing = Figure(figsize=(7.5, 0.36 * len(bars) + 0.9), layout="constrained")
    axes = drawing.add_subplot()
    ours = ["Manager" in who for who in bars]
    colors = [OURS if our else PEERS for our in ours]
    drawn = axes.barh(list(bars), list(bars.values()), color=colors, height=0.72)
    labels = axes.bar_label(
        drawn, [as_text(value) + chart.unit for value in bars.values()], padding=4
    )
    for our, texts in zip(ours, zip(axes.get_yticklabels(), labels, strict=True), strict=True):
        for text in texts:
            text.set_fontweight("bold" if our else "normal")
    axes.margins(x=0.14, y=0.02)
    axes.invert_yaxis()
    axes.tick_params(left=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    drawing.suptitle(chart.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    note = f"{machine}; {chart.note}"
    drawing.supxlabel(note, x=0.01, ha="left", fontsize=8.5, color=PALE)
    # Put the legend at the end with the short bars.
    axes.legend(
        handles=[Patch(color=OURS, label="aioscheduler 2"), Patch(color=PEERS, label="others")],
        loc="lower right" if chart.order < 0 else "upper right",
    )
    drawing.savefig(file, dpi=150, metadata={"Software": None})


def _bars(name: str, figures: Figures) -> dict[str, float]:
    rows = figures[name]["rows"]
    if name == "memory":
        most = max(row["pending"] for row in rows if "Manager" in row["who"])
        rows = [find(figures, name, who=who) for who in {row["who"]: None for row in rows}]
        return {row["who"]: row["bytes"] for row in rows if row["pending"] >= most // 5}
    if name == "lateness":
        beside = {"alone": "", "others": " (1 M pending)", "busy": " (a busy neighbour)"}
        rows = [row for row in rows if row["tasks/s"] == 1000]
        return {f"{row['who']}{beside[row['beside']]}": row["p50 ms"] for row in rows}
    # Leave out those that run plain functions, hundreds in one message: they do not compare.
    chunked = ("ProcessPoolExecutor.map", "loky map")
    return {row["who"]: row["tasks/s"] for row in rows if row["who"] not in chunked}
