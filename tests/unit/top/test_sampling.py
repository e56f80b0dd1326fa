"""Samples of the running managers, and the thread that takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from screen import snapshot, worker

from aioscheduler._monitoring.statsserver import Snapshot
from aioscheduler.top import sampling
from aioscheduler.top.sampling import Sampler, program_name, take_sample


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/python3.11 -B bot.py --token x", "bot.py"),
        ("python /srv/bots/bot.py", "bot.py"),
        ("python -m bot --token x", "-m bot"),
        ("python -c pass", "-c"),
        ("python", "python"),
        ("/usr/bin/gunicorn: worker", "gunicorn:"),
        ("", ""),
        ("python b\x1b[2Jt.py", "b?[2Jt.py"),
    ],
)
def test_programs_are_named_without_their_arguments(command: str, name: str) -> None:
    assert program_name(command.split()) == name


def test_a_sample_is_in_order_and_names_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [snapshot(worker(0), pid=9), snapshot(worker(0), pid=8, manager="b")]
    answers.append(snapshot(worker(0), pid=8, manager="a"))
    monkeypatch.setattr(sampling, "snapshots", lambda: answers)
    monkeypatch.setattr(sampling, "command_line", {8: ["python", "bot.py"]}.get)
    sample = take_sample()
    assert [found[:2] for found in sample.snapshots] == [(8, "a"), (8, "b"), (9, "0a1b2c3d")]
    assert sample.programs == {8: "bot.py"}  # the other has ended in the meantime


Taken = tuple[Sampler, threading.Event]


@pytest.fixture
def taken() -> Iterator[Taken]:
    """A sampler, and an event that is set when there is something to get."""
    told = threading.Event()
    made = Sampler(0.1, told.set)
    yield made, told
    made.stop()
    made.join(5)


def test_samples_come_from_a_thread(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, told = taken
    answers = [snapshot(worker(1), pid=9), snapshot(worker(0), pid=8)]
    monkeypatch.setattr(sampling, "snapshots", lambda: answers)
    assert sampler.get() is None
    sampler.start()
    assert told.wait(5)
    sample = sampler.get()
    assert sample is not None
    assert [found.pid for found in sample.snapshots] == [8, 9]


def test_what_goes_wrong_in_the_thread_is_raised_outside(
    taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[Snapshot]:
        raise RuntimeError("boo")

    sampler, told = taken
    monkeypatch.setattr(sampling, "snapshots", fail)
    sampler.start()
    sampler.join(5)
    assert told.is_set()
    with pytest.raises(RuntimeError, match="boo"):
        sampler.get()
