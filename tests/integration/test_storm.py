"""A short storm of kills, with the command that a user would run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).parents[2] / "benchmarks" / "kill_storm.py"


@pytest.mark.parametrize(
    ("seconds", "mode"),
    [
        ("6", []),
        ("4", ["--rerun"]),
        ("4", ["--max-tasks-per-worker", "50"]),
        pytest.param("60", [], marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(120)
def test_no_promise_is_broken(seconds: str, mode: list[str]) -> None:
    command = [sys.executable, str(STORM), "--seconds", seconds, "--seed", "1", *mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 hung, 0 doubled, 0 early, 0 lost pending" in done.stdout
    assert done.stderr == ""
