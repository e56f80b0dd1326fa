"""Every benchmark runs, on a tiny size; the page agrees with the results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = {
    "throughput": "--tasks=500",
    "burst": "--tasks=200",
    "accept": "--tasks=200",
    "memory": "--pending=100",
    "lateness": "--others=100",
    "queue": "--pending=1000",
    "claim": "--pending=500",
    "idle": "--pending=100",
    "cpu": "--tasks=4",
    "life": "--processes=1",
    "recovery": "--pending=100",
    "host": "--tasks=500",
    "worker": "--tasks=256",
    "logs": "--records=500",
    "context": "--tasks=500",
    "durable": "--tasks=500",
    "horizon": "--pending=1000",
    "overdue": "--tasks=500",
    "repeats": "--pending=500",
    "engine": "--tasks=2000",
}
MANY_PROCESSES = (
    "throughput",
    "memory",
    "host",
    "durable",
    "horizon",
    "overdue",
    "repeats",
)  # a dozen and more, one after another


def marks_of(name: str) -> pytest.MarkDecorator | tuple[()]:
    if name == "engine":  # Ray
        return pytest.mark.nodes
    return pytest.mark.long if name in MANY_PROCESSES else ()


@pytest.mark.timeout(240)  # processes take long to start on a busy machine
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=marks_of(name)) for name in SIZES],
)
def test_a_benchmark_runs(name: str, tmp_path: Path) -> None:
    if name == "engine" and find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install aioscheduler[ray]")
    file = tmp_path / "figures.json"
    # Hide any Python before 3.11, so that a test does not install 1.4.2.
    environment = {**os.environ, "PATH": "/nowhere", "HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    script = str(BENCHMARKS / f"bench_{name}.py")
    command = [sys.executable, script, "--quick", "--runs=1", SIZES[name]]
    done = subprocess.run(
        [*command, "--json", str(file)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(file.read_text())
    assert figures["machine"].split("\n")[0] == done.stdout.split("\n")[0]
    assert len(figures["rows"]) + 2 == len(done.stdout.split("\n")) - 1
    numbers = [v for row in figures["rows"] for v in row.values() if isinstance(v, float)]
    assert all(number >= 0 for number in numbers)
    assert any(numbers)


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    """`bench_all.py --write` writes its tables from the results."""
    code = (
        "import sys, json, pathlib; sys.path.insert(0, sys.argv[1]);"
        "from goals import goal_table; from page import all_tables;"
        "files = sorted(pathlib.Path(sys.argv[1]).glob('results/*.json'));"
        "results = {file.stem: json.loads(file.read_text()) for file in files};"
        "print(goal_table(results)); print(); print(all_tables(results))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, BENCHMARKS], capture_output=True, text=True, check=True
    )
    page = (BENCHMARKS / "README.md").read_text()
    goals, tables = done.stdout.rstrip("\n").split("\n\n", 1)
    assert goals in page
    assert tables in page
