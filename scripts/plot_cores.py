"""The picture of `bench_cores.py --plot`: speed-up by workers, and each process's CPU over time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from judge_cores import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, PALE = "#24292f", "#8c959f"
COLORS = {"noop": "#2563eb", "wait": "#d97706", "cpu": "#059669"}
HOST = "#9d174d"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": PALE,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9.5,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def plot(rows: Sequence[Row], machine: dict[str, Any], file: Path) -> None:
    """Draw the rows into a PNG file."""
    from matplotlib import rc_context  # an extra, and slow to import
    from matplotlib.figure import Figure
    from PIL import Image  # comes with matplotlib

    most = [row for row in rows if row.workers == rows[-1].workers]
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 5), layout="constrained")
        halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.3))
        left, right = halves
        left.suptitle("Speed-up", fontsize=11, fontweight="bold")
        _draw_speedup(left.add_subplot(), rows)
        crew = most[0].crew()
        right.suptitle(f"CPU of the host and {crew}", fontsize=11, fontweight="bold")
        panels = right.subplots(len(most), 1, squeeze=False)[:, 0]
        for axes, row in zip(panels, most, strict=True):
            _draw_cpu(axes, row)
        right.supylabel("% of a core", fontsize=9.5)
        panels[-1].set_xlabel("seconds since the run began")
        where = "{cpu}, {cores} usable cores, {python}".format(**machine)
        left.supxlabel(where, fontsize=8, color="#57606a", x=0.02, ha="left")
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=150)
    # A third of the bytes, with no visible difference.
    Image.open(drawn).convert("RGB").quantize(128).save(file, format="PNG", optimize=True)


def _draw_speedup(axes: Axes, rows: Sequence[Row]) -> None:
    counts = sorted({row.workers for row in rows})
    axes.plot(counts, counts, "--", color=PALE, label="ideal")
    for work in dict.fromkeys(row.work for row in rows):
        found = [row for row in rows if row.work == work]
        axes.plot(
            [row.workers for row in found],
            [row.speedup for row in found],
            "o-",
            color=COLORS[work],
            label=f"{work}, {found[-1].speedup:.2f} ×",
        )
    axes.set(xlabel="worker processes", ylabel="tasks/s, as a multiple of one worker's")
    axes.set_xticks([count for count in counts if count == 1 or count >= counts[-1] / 10])
    axes.set_ylim(0, max([*counts, *(row.speedup for row in rows)]) * 1.05)
    axes.locator_params(axis="y", nbins=6)
    axes.legend(loc="upper left")


def _draw_cpu(axes: Axes, row: Row) -> None:
    host, *workers = row.processes
    # A sample is the mean since the one before it, so draw the first from the start.
    seconds = [0.0, *row.sampled_s]
    for one in (*reversed(workers), host):
        color, name = (HOST, "host") if one is host else (COLORS[row.work], "")
        if one is workers[0]:
            name = "worker" if len(workers) == 1 else "workers"
        shown = workers if one in workers else [host]
        if name and one.cpu_percents:
            name += f" {fmean(each.cpu_percent or 0.0 for each in shown):.0f} %"
        percents = [*one.cpu_percents[:1], *one.cpu_percents]
        axes.plot(
            seconds[: len(percents)],
            percents,
            color=color,
            label=name,
            linewidth=2 if len(shown) <= 4 else 0.8,
        )
    if not row.sampled_s:
        axes.text(0.5, 0.5, "too short to measure", transform=axes.transAxes, ha="center")
    axes.set_title(row.work, loc="left", fontsize=10, fontweight="bold", color=COLORS[row.work])
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0)
    axes.set_ylim(0, 110)
    axes.set_yticks([0, 50, 100])
    axes.set_xlim(0, row.seconds)
