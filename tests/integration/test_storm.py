"""Short storms of kills, of workers and of hosts, by the commands that a user would run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def storm(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=230, check=False)


@pytest.mark.parametrize(
    ("seconds", "mode"),
    [
        ("3", []),
        ("3", ["--rerun"]),
        ("3", ["--max-tasks-per-worker", "50"]),
        pytest.param("60", [], marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(240)
def test_no_promise_is_broken(seconds: str, mode: list[str]) -> None:
    done = storm("kill_storm.py", "--seconds", seconds, "--seed", "1", *mode)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 hung, 0 doubled, 0 early, 0 lost pending" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("seconds", "mode"),
    [
        ("4", []),
        pytest.param("60", [], marks=pytest.mark.long),
        pytest.param("30", ["--synchronous", "normal"], marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(240)
def test_what_was_acknowledged_outlives_its_hosts(seconds: str, mode: list[str]) -> None:
    done = storm("host_storm.py", "--seconds", seconds, "--seed", "1", *mode)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '0 acknowledged and lost, 0 early, 0 with "fail" started twice' in done.stdout
    assert "0 hosts" not in done.stdout.split(" and ")[0]
    assert done.stderr == ""
