"""A worker handle with a simulated process and loop: it ends, and only once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from aioscheduler._processes import workerhandle
from aioscheduler._processes.process import REAP_TIME
from aioscheduler._processes.workerconfig import WorkerConfig
from aioscheduler._processes.workerhandle import EOF_GRACE, LocalWorkerHandle
from aioscheduler._scheduling.order import Order
from aioscheduler._transport import pipe

CONFIG = WorkerConfig(
    manager="m", order=Order.TIMED, layout=(3, 2), prefer_utc=True, host=0, worker=1
)


class Process:
    """Both the worker's process and multiprocessing's.

    Attributes:
        args: The arguments of `WorkerProcess`.
        died: Whether it is dead.
        reapable: Whether its parent can reap it.
    """

    made: list[Process]

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.aio_process = self
        self.pid = 4242
        self.died = False
        self.reapable = True
        self.kills = self.releases = 0
        self.watch = -1
        Process.made.append(self)

    def start(self) -> None:
        self.watch = 1000

    def kill(self) -> None:
        self.kills += 1
        self.died = True

    @property
    def has_ended(self) -> bool:
        return self.died and self.reapable

    @property
    def known_exitcode(self) -> int | None:
        return -9 if self.has_ended else None

    def release(self) -> None:
        self.releases += 1


class Handle:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop as far as a handle needs one; `turn` moves its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Handle] = []
        self.readers: dict[int, Callable[[], None]] = {}

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Handle:
        self.timers.append(Handle(when, call))
        return self.timers[-1]

    def call_later(self, delay: float, call: Callable[[], None]) -> Handle:
        return self.call_at(self.now + delay, call)

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        self.readers[fd] = call

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def turn(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [handle for handle in self.timers if not handle.cancelled and handle.when <= end]
            if not due:
                break
            first = min(due, key=lambda handle: handle.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.call()
        self.now = end


class Setting:
    """A handle that has begun."""

    def __init__(self) -> None:
        self.loop: Any = Loop()
        self.alive: Any = {}
        self.ends: list[tuple[int | None, str]] = []
        self.frames: list[Any] = []
        self.handle = LocalWorkerHandle(
            CONFIG, None, self.alive, 4, self.frames.append, self.note_the_end
        )

    def note_the_end(self, exitcode: int | None, cause: str) -> None:
        self.ends.append((exitcode, cause))

    def start(self) -> Process:
        self.handle.start(self.loop)
        return Process.made[-1]

    def ring(self) -> None:
        self.loop.readers[1000]()


@pytest.fixture
def setting(monkeypatch: Any) -> Setting:
    Process.made = []
    monkeypatch.setattr(workerhandle, "WorkerProcess", Process)
    return Setting()


def test_a_process_receives_its_configuration_and_its_generation(setting: Setting) -> None:
    name, _, _, box, config, _ = setting.start().args
    assert name == "aioscheduler-m-1"
    assert config == replace(CONFIG, generation=4)
    assert len(box.begun) == 4
    box.begun[1], box.begun[3] = 7, 8
    assert [setting.handle.begun(scheduler) for scheduler in (0, 1)] == [(0, 0), (7, 8)]
    setting.handle.kill()
    setting.loop.turn(1)


def test_it_knows_which_task_has_blocked_the_process(setting: Setting) -> None:
    assert setting.handle.blocked() is None
    box = setting.start().args[3]
    assert setting.handle.blocked() is None
    box.blame((1, 7), "who", "where")
    assert setting.handle.blocked() == (1, 7)
    setting.handle.kill()
    setting.loop.turn(1)
    assert setting.ends == [(-9, "who\nwhere")]


def test_the_sentinel_tells_of_a_death(setting: Setting) -> None:
    process = setting.start()
    process.died = True
    setting.ring()
    assert setting.ends == [(-9, "")]
    assert (setting.handle.pid, setting.alive, setting.loop.readers) == (None, {}, {})
    assert (process.kills, process.releases) == (0, 1)
    setting.loop.turn(60)
    setting.handle.kill()
    assert len(setting.ends) == 1
    assert process.kills == 0  # its pid may belong to another by now


def test_a_death_is_seen_without_the_sentinel(setting: Setting) -> None:
    process = setting.start()
    setting.loop.turn(5)
    assert not setting.ends
    process.died = True
    setting.loop.turn(1.01)
    assert setting.ends == [(-9, "")]


def test_who_closes_the_sentinel_is_killed(setting: Setting) -> None:
    process = setting.start()
    setting.ring()
    assert process.kills == 1
    assert not setting.ends  # never reported from within `kill`
    setting.loop.turn(0.1)
    assert setting.ends == [(-9, "")]


def test_who_closes_the_pipe_is_killed_later(setting: Setting) -> None:
    process = setting.start()
    (reader,) = setting.loop.readers.keys() - {1000}
    setting.loop.readers[reader]()  # all copies of its ends are closed
    setting.loop.turn(EOF_GRACE - 0.1)
    assert process.kills == 0
    setting.loop.turn(0.2)
    assert process.kills == 1
    assert setting.ends == [(-9, "")]


@pytest.mark.parametrize("rings", [True, False])
def test_what_cannot_be_reaped_has_ended_all_the_same(
    setting: Setting, caplog: Any, rings: bool
) -> None:
    process = setting.start()
    process.reapable = False
    if rings:
        process.died = True
        setting.ring()
    else:
        setting.handle.kill()
    setting.loop.turn(REAP_TIME - 0.1)
    assert not setting.ends
    setting.loop.turn(0.2)
    assert setting.ends == [(None, "")]
    assert caplog.text.count("cannot be reaped") == len(caplog.records) == 1
    setting.loop.turn(5)
    before = process.releases
    process.reapable = True
    setting.loop.turn(60)
    assert process.releases == before + 1  # now it is reaped, and then left alone
    assert len(setting.ends) == 1


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        ("process", "release"),
        ("pipe", "read_rest"),
        ("pipe", "close"),
        ("loop", "remove_reader"),
        ("box", "last_words"),
    ],
)
def test_nothing_that_fails_keeps_a_life_from_ending(
    setting: Setting, monkeypatch: Any, caplog: Any, owner: str, step: str
) -> None:
    process = setting.start()
    handle = setting.handle

    def fail(*args: Any) -> None:
        raise OSError(f"no {step}")

    broken: Any = {
        "process": process,
        "pipe": handle.pipe,
        "loop": setting.loop,
        "box": handle._box,
    }[owner]
    kept = getattr(broken, step)
    monkeypatch.setattr(broken, step, fail)
    process.died = True
    setting.loop.turn(1)
    assert setting.ends == [(-9, "")]
    assert len(caplog.records) == 1
    assert f"no {step}" in caplog.text
    monkeypatch.setattr(broken, step, kept)
    handle.pipe.close()


def test_an_end_that_nobody_can_take_still_closes_everything(
    setting: Setting, monkeypatch: Any
) -> None:
    def fail(exitcode: int | None, cause: str) -> None:
        raise KeyError("a bug")

    process = setting.start()
    monkeypatch.setattr(setting.handle, "_ended", fail)
    process.died = True
    with pytest.raises(KeyError):
        setting.ring()
    assert setting.handle._box is not None
    assert setting.handle._box._fd == -1


@pytest.mark.parametrize("error", [OSError("no"), RuntimeError("no"), ValueError("no")])
@pytest.mark.parametrize("step", ["start", "enlarge", "add_reader"])
def test_a_start_that_fails_is_an_oserror_and_leaves_nothing(
    setting: Setting, monkeypatch: Any, step: str, error: Exception
) -> None:
    def fail(*args: Any) -> None:
        raise error

    broken: Any = {"start": Process, "enlarge": pipe, "add_reader": setting.loop}[step]
    kept = setting.loop.add_reader
    monkeypatch.setattr(broken, step, fail)
    with pytest.raises(OSError if step != "start" else type(error), match="no"):
        setting.handle.start(setting.loop)
    monkeypatch.setattr(setting.loop, "add_reader", kept)
    (process,) = Process.made
    assert process.kills == (step != "start")
    setting.loop.turn(1)
    assert not setting.ends
    assert not setting.alive  # a fixture checks that no descriptor is left


def test_at_exit_a_life_ends_without_a_word(setting: Setting) -> None:
    process = setting.start()
    setting.alive.clear()  # as `end_workers` does
    process.died = True
    setting.ring()
    setting.handle.kill()
    setting.loop.turn(60)
    assert not setting.ends
    assert process.kills == process.releases == 0
    assert math.isinf(setting.handle._deadline)
    setting.handle.pipe.close()
    assert setting.handle._box is not None
    setting.handle._box.close()


def test_the_rest_of_the_pipe_is_read_before_the_end(setting: Setting, monkeypatch: Any) -> None:
    process = setting.start()
    monkeypatch.setattr(setting.handle.pipe, "read_rest", lambda: setting.frames.append("rest"))
    monkeypatch.setattr(
        setting.handle, "_ended", lambda exitcode, cause: setting.frames.append(exitcode)
    )
    process.died = True
    setting.ring()
    assert setting.frames == ["rest", -9]


def test_garbage_is_the_cause(setting: Setting, caplog: Any) -> None:
    process = setting.start()
    setting.handle._stream_ended(ValueError("garbage"))
    assert process.kills == 1
    setting.loop.turn(0.1)
    ((exitcode, cause),) = setting.ends
    assert exitcode == -9
    assert "garbage" in cause
    assert os.path.basename(__file__) not in caplog.text
