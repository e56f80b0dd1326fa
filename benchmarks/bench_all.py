"""Run the benchmarks with this Python, and write the results, the tables and the charts.

It leaves out `bench_engine.py`, which needs Ray, and those that are not in the tables.

    python benchmarks/bench_all.py            all of them, about 20 minutes
    python benchmarks/bench_all.py --quick    a trial of each, which writes nothing to the page
    python benchmarks/bench_all.py --only burst idle
    python benchmarks/bench_all.py --write    only the page and the charts, from the results

The results of each Python go to `benchmarks/results/X.Y.json`; the goals and tables of all Pythons
with results go between the markers of the page, `benchmarks/README.md`; the charts go to
`benchmarks/charts`. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from goals import goal_table
from page import all_tables, charts, write_between

HERE = Path(__file__).parent
NAMES = (
    "throughput",
    "burst",
    "accept",
    "memory",
    "lateness",
    "queue",
    "claim",
    "idle",
    "cpu",
    "life",
    "recovery",
    "host",
    "worker",
    "durable",
    "overdue",
    "horizon",
    "repeats",
)


def run(name: str, quick: bool) -> dict[str, Any]:
    """Run one benchmark in a process of its own, and return its results."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, str(HERE / f"bench_{name}.py"), "--json", str(file)]
        subprocess.run([*command, *(["--quick"] if quick else [])], check=True)
        figures: dict[str, Any] = json.loads(file.read_text())
        return figures


def write_page() -> None:
    """Write the page and the charts from the results of all Pythons."""
    results = {path.stem: json.loads(path.read_text()) for path in HERE.glob("results/*.json")}
    results = dict(sorted(results.items()))
    page = HERE / "README.md"
    write_between(page, "goals", goal_table(results))
    write_between(page, "tables", all_tables(results))
    charts(results, HERE / "charts")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--write", action="store_true", help="run nothing, write the page")
    options = parser.parse_args()
    if options.write:
        write_page()
        return 0
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    saved = HERE / "results" / f"{version}.json"
    results: dict[str, Any] = json.loads(saved.read_text()) if saved.exists() else {}
    for name in options.only:
        print(f"\n{name}", flush=True)
        begun = time.perf_counter()
        results[name] = run(name, options.quick)
        print(f"({time.perf_counter() - begun:.0f} s)", flush=True)
        if not options.quick:
            saved.parent.mkdir(exist_ok=True)
            saved.write_text(json.dumps(results, indent=1) + "\n")
    if not options.quick:
        write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
