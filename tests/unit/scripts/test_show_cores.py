"""Tables and sentences of the benchmark: in colour for people, plain for everybody else."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from show_cores import RUN, progress, say, show, style

ROW: dict[str, Any] = {
    "work": "noop",
    "workers": 2,
    "tasks": 1000,
    "tasks_per_s": 297625.4,
    "speedup": 1.8,
    "efficiency": 0.9,
    "lateness_p50_ms": 2.79,
    "lateness_p99_ms": 15.44,
    "early": 0,
    "lost": 1,
    "others_percent": None,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Has `stdout` or `stderr` be a terminal."""
    for variable, value in {"TERM": "xterm-256color", "COLUMNS": "130"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Terminal()
    monkeypatch.setattr(sys, name, screen)
    return screen


def test_a_terminal_has_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal("stdout", monkeypatch)
    show(RUN, [ROW])
    text = screen.getvalue()
    assert "\x1b[32m" in text  # green: near to ideal
    assert "\x1b[1;31m" in text  # red: one is lost
    assert "297,625" in text
    say("Words")
    assert "\x1b[1mWords" in screen.getvalue()


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal("stdout", monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    show(RUN, [ROW])
    say("Words")
    assert "\x1b" not in screen.getvalue()


def test_a_file_gets_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    show(RUN, [ROW])
    say("Words, " * 30)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "Words, " * 30  # in one line


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("speedup", {"efficiency": 0.97}, "green"),
        ("efficiency", {"efficiency": 0.7}, "yellow"),
        ("efficiency", {"efficiency": 0.5}, "red"),
        ("efficiency", {"workers": 1}, ""),
        ("early", {}, "green"),
        ("early", {"early": 3}, "bold red"),
        ("lost", {"lost": -1}, "bold red"),
        ("others_percent", {}, ""),
        ("others_percent", {"others_percent": 33.0}, "yellow"),
        ("cpu_percent", {"cpu_percent": 99.0}, "bold magenta"),
        ("cpu_percent", {"cpu_percent": 50.0}, ""),
        ("cpu_percent", {"cpu_percent": None}, ""),
        ("tasks", {}, ""),
    ],
)
def test_what_a_colour_says(name: str, fields: dict[str, Any], expected: str) -> None:
    assert style(name, ROW | fields) == expected


def test_progress_is_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal("stderr", monkeypatch)
    with progress() as tell:
        tell("1/2 noop, preparing", 0, None)
        tell("1/2 noop, 1 worker", 0, 4000)
        tell("1/2 noop, 1 worker", 1000, 4000)
    for part in ("1/2 noop, 1 worker", "1,000 / 4,000", "/s", "s left"):
        assert part in screen.getvalue()


def test_progress_is_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as tell:
        tell("1/2 noop, preparing", 0, None)
        tell("1/2 noop, 1 worker", 1, 2)  # within the same second
    assert capsys.readouterr().err == "1/2 noop, preparing\n"
