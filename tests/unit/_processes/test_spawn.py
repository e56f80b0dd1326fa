"""A child's preparation data, and the refusals before there is a child."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import sys
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import pytest

from aioscheduler._processes.spawn import SpawnProcess, _preparation_data


def test_the_parents_main_stays_at_home(monkeypatch: Any) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "program.py", raising=False)
    data = _preparation_data("w")
    assert not [key for key in data if key.startswith("init_main")]
    assert sys.modules["__main__"] is main
    assert data["name"] == "w"


def test_what_is_on_the_path(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "path", ["", "/a"])
    monkeypatch.setattr(multiprocessing.process, "ORIGINAL_DIR", "/here")
    assert _preparation_data("w")["sys_path"] == ["/here", "/a"]
    monkeypatch.setattr(multiprocessing.process, "ORIGINAL_DIR", None)
    assert _preparation_data("w")["sys_path"] == ["/a"]


def test_a_working_directory_that_was_removed(monkeypatch: Any, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "dir" not in _preparation_data("w")


def test_what_others_add_comes_along(monkeypatch: Any) -> None:
    standard = spawn.get_preparation_data
    monkeypatch.setattr(spawn, "get_preparation_data", lambda name: standard(name) | {"more": name})
    data = _preparation_data("w")
    assert data["more"] == "w"
    assert not [key for key in data if key.startswith("init_main")]


def test_the_start_method_stays_the_programs_to_choose() -> None:
    chosen = multiprocessing.get_start_method(allow_none=True)
    try:
        multiprocessing.set_start_method(None, force=True)
        assert "start_method" not in _preparation_data("w")
        assert multiprocessing.get_start_method(allow_none=True) is None
        multiprocessing.set_start_method("spawn")
        assert _preparation_data("w")["start_method"] == "spawn"
        assert multiprocessing.get_start_method(allow_none=True) == "spawn"
    finally:
        multiprocessing.set_start_method(chosen, force=True)


def test_an_invalid_main_module(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "__main__", object())
    data = _preparation_data("w")
    assert (data["name"], data["sys_argv"]) == ("w", sys.argv)
    monkeypatch.delitem(sys.modules, "__main__")
    assert _preparation_data("w") == data


def test_a_daemonic_process_is_refused_with_a_hint(monkeypatch: Any) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="workers=0"):
        SpawnProcess(target=print).start()


def test_nothing_is_started_at_exit(monkeypatch: Any) -> None:
    monkeypatch.setattr("multiprocessing.util.is_exiting", lambda: True)
    with pytest.raises(OSError, match="exiting"):
        SpawnProcess(target=print).start()


def test_a_frozen_program_that_is_its_own_worker_is_refused_with_a_hint(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "argv", ["program", "--multiprocessing-fork", "pipe_handle=5"])
    with pytest.raises(OSError, match="freeze_support"):
        SpawnProcess(target=print).start()


def test_whatever_a_start_raises_is_an_oserror(monkeypatch: Any) -> None:
    with pytest.raises(OSError, match="local object"):
        SpawnProcess(target=lambda: None).start()

    def refuse(*args: Any) -> int:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", refuse)
    with pytest.raises(BlockingIOError):
        SpawnProcess(target=os.getpid).start()
