"""The command line, `aioscheduler.__main__`: its output and its exit status."""

from __future__ import annotations

import json
import sys

import pytest
from screen import snapshot, worker

from aioscheduler import __main__ as command_line
from aioscheduler import __version__
from aioscheduler._monitoring.statsserver import Snapshot
from aioscheduler.top import sampling
from aioscheduler.top.sampling import NO_MANAGER


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[list[Snapshot]]:
    """Return these answers of managers, the last one repeatedly."""
    found: list[list[Snapshot]] = [[]]
    monkeypatch.setattr(command_line, "PAUSE", 0.0)
    monkeypatch.setattr(sampling, "snapshots", lambda: found.pop(0) if len(found) > 1 else found[0])
    return found


@pytest.mark.parametrize("options", [["--once"], ["--json"], ["--once", "--json"]])
def test_no_manager_is_status_1(
    answers: list[list[Snapshot]], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["top", *options]) == 1
    told = capsys.readouterr()
    assert told.err == f"{NO_MANAGER}\n"
    assert (json.loads(told.out)["managers"] == []) if "--json" in options else not told.out


def test_json_is_strict_and_needs_no_rich(
    answers: list[list[Snapshot]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    answers[:] = [[snapshot(worker(0, 5)), Snapshot(99, "ff", None)]]
    assert command_line.main(["top", "--json"]) == 0
    managers = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["managers"]
    assert [manager["pid"] for manager in managers] == [77, 99]
    assert managers[1]["stats"] is None
    told = managers[0]["stats"]["workers"][0]
    assert (told["finished"], told["done_per_second"]) == (5, 0.0)
    assert told["lateness_buckets"][-1] == [None, 5]


def test_without_rich_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "has_rich", lambda: False)
    for options in ([], ["--once"]):
        assert command_line.main(["top", *options]) == 2
        assert "the extra aioscheduler[top]" in capsys.readouterr().err


def test_without_a_terminal_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["top"]) == 2
    assert "--once" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [[], ["bottom"], ["top", "--interval", "0.05"], ["top", "--interval", "nan"],
     ["top", "--interval", "soon"], ["top", "--sort", "beauty"]],
)  # fmt: skip
def test_wrong_options_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(options)
    assert left.value.code == 2
    assert "usage: aioscheduler" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, f"aioscheduler {__version__}\n")


def test_the_help_has_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    from aioscheduler.top.table import KEYS

    with pytest.raises(SystemExit):
        command_line.main(["top", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    keys = told.partition("Keys: ")[2].partition(" options:")[0]
    named = set(keys.replace(",", " ").replace(";", " ").split())
    assert {words.split()[0] for words, _ in KEYS} <= named
