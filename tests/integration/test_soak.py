"""A short soak, with the command that a user would run; and how it tells growth from noise."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COUNTED = ("objects", "fds", "threads")  # memory takes longer than a test to settle
PLACES = ("host", "worker 0", "worker 1")


def soak(file: Path, *options: str) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--seconds", "10", "--seed", "1"]
    done = subprocess.run(
        [*command, "--json", str(file), *options],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "wrong: nothing" in done.stdout, done.stdout + done.stderr
    assert done.stderr == ""
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    assert {row["place"] for row in rows if row["last third"] > 0} == set(PLACES)
    assert done.returncode == any(row["verdict"] for row in rows)
    return rows


@pytest.mark.long  # the next test covers the same, and more
@pytest.mark.timeout(120)
def test_nothing_is_wrong_and_nothing_hangs(tmp_path: Path) -> None:
    soak(tmp_path / "figures.json")


@pytest.mark.timeout(120)
def test_what_tasks_leave_behind_is_taken_back(tmp_path: Path) -> None:
    rows = soak(tmp_path / "figures.json")
    counted = [row for row in rows if row["figure"] in COUNTED]
    assert len(counted) == len(COUNTED) * len(PLACES)
    assert not [row for row in counted if row["verdict"]]


def test_a_chore_that_there_is_not_is_refused() -> None:
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--without", "cells,clases"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 2
    assert "there is no clases among cells, classes" in done.stderr


@pytest.fixture
def series(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from slopes import Series

    return Series()


@pytest.mark.parametrize("leak", [0, 50, 1000])
def test_a_slope_is_seen_over_the_noise(series: Any, leak: int) -> None:
    noise = random.Random(1)
    for at in range(400):
        spike = 1_000_000 if at % 7 == 0 else 0
        series.add(at, 0, 40_000_000 + leak * at + spike + noise.randint(-2000, 2000))
    assert series.slope(same_age=False) == pytest.approx(leak, abs=5)
    first, last = series.thirds()
    assert last - first == pytest.approx(leak * 400 * 2 / 3, rel=0.05, abs=2000)


@pytest.mark.parametrize("leak", [0, 50])
def test_processes_that_follow_each_other_are_compared_at_equal_ages(
    series: Any, leak: int
) -> None:
    for at in range(200):
        born = at // 20 * 20
        series.add(at, born, 30_000_000 + 100_000 * (at - born) + leak * born)
    assert series.slope(same_age=True) == leak
    assert series.slope(same_age=False) != pytest.approx(leak, abs=100)


def test_points_that_have_no_pair_have_no_slope(series: Any) -> None:
    series.add(1, 0, 5)
    assert series.slope(same_age=False) is None
    series.add(2, 0, 6)
    assert series.slope(same_age=False) == 1
    assert series.slope(same_age=True) is None
