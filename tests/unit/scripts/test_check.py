"""Which checks run, and with which Pythons. What is run is only written down here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import check
import pytest


class Runs:
    """Stands for `subprocess.run`.

    Attributes:
        commands: Those that were given.
        failing: A word; a command with it fails.
    """

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.failing = ""

    def __call__(self, command: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        self.commands.append(words)
        version = words[0].removeprefix("/bin/python") + ".1\n"
        return subprocess.CompletedProcess(words, int(self.failing in words), version)

    @property
    def names(self) -> list[str]:
        return [command[command.index("-m") + 1] for command in self.commands]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(subprocess, "run", runs)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    return runs


def test_every_check_runs_and_pytest_is_given_the_arguments(runs: Runs) -> None:
    assert check.main(["-k", "timers", "--durations=3"]) == 0
    assert runs.names == ["ruff", "ruff", "mypy", "mkdocs", "pytest"]
    assert {command[0] for command in runs.commands} == {sys.executable}
    assert runs.commands[-1][4:-3] == [*check.CHECKS[-1][1:]]
    assert runs.commands[-1][-3:] == ["-k", "timers", "--durations=3"]
    assert not any("timers" in command for command in runs.commands[:-1])
    assert "SITE" not in runs.commands[3]


@pytest.mark.parametrize("there", [True, False])
def test_what_needs_nodes_comes_last_if_ray_is_there(
    there: bool, runs: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if there else None)
    assert check.main([]) == 0
    assert (runs.commands[-1][3:] == ["pytest", "-m", "nodes"]) is there
    assert runs.names == ["ruff", "ruff", "mypy", "mkdocs", "pytest", *["pytest"] * there]
    assert ("Ray is not installed" in capsys.readouterr().out) is not there


def test_the_first_that_fails_is_the_last(runs: Runs) -> None:
    runs.failing = "mypy"
    assert check.main([]) == 1
    assert runs.names == ["ruff", "ruff", "mypy"]


def test_with_all_pythons_each_has_its_environment(runs: Runs) -> None:
    assert check.main(["--all-pythons", "-x"]) == 0
    checks = [command for command in runs.commands if "scripts/check.py" in command]
    assert [Path(command[0]).parts[-3:] for command in checks] == [
        (f"python3.{minor}.1", "bin", "python") for minor in (11, 12, 13)
    ]
    assert all(command[2:] == ["-x"] for command in checks)
    installs = [command for command in runs.commands if "pip" in command]
    assert [command[0] for command in installs] == [command[0] for command in checks]


def test_a_python_that_is_not_there_is_left_out(
    runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.failing = "/bin/python3.12"  # there, but it does not run
    monkeypatch.setattr(
        shutil, "which", lambda name: None if name == "python3.11" else f"/bin/{name}"
    )
    assert [Path(python).name for python in check.found_pythons()] == ["python3.13"]
    assert "Python 3.11 is not on PATH: left out\n" in capsys.readouterr().out


def test_no_python_at_all_is_a_failure(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert check.main(["--all-pythons"]) == 2
    assert runs.commands == []


def test_a_python_may_be_named(runs: Runs) -> None:
    runs.failing = "scripts/check.py"
    assert check.main(["--python", "/bin/python3.13", "--python", "/bin/python3.14"]) == 1
    assert [command[0] for command in runs.commands[:2]] == ["/bin/python3.13"] * 2
    assert not any("/bin/python3.14" in command for command in runs.commands)
