"""A child forked by a task, without a fork: it runs in this process, and its end is recorded."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from aioscheduler._processes.process import workers_module

forked = workers_module("forked")


class Ended(Exception):
    """Stands for `os._exit`: nothing runs after it."""


@pytest.fixture(autouse=True)
def no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> NoReturn:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)


def end_with(error: BaseException | None) -> int:
    with pytest.raises(Ended) as ended:
        forked.end_child(error)
    code: int = ended.value.args[0]
    return code


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (SystemExit(), 0),
        (SystemExit(0), 0),
        (SystemExit(3), 3),
        (SystemExit(256 + 3), 3),
        (SystemExit(-1), 255),
    ],
)
def test_it_ends_quietly_with_the_code_that_python_would_give(
    error: BaseException | None, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert end_with(error) == code
    assert capfd.readouterr() == ("", "")


def test_a_message_goes_where_python_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert end_with(SystemExit("no database")) == 1
    assert capsys.readouterr() == ("", "no database\n")


@pytest.mark.parametrize("error", [LookupError("on purpose"), KeyboardInterrupt("on purpose")])
def test_an_error_is_printed_with_its_traceback(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert end_with(raised(error)) == 1
    told = capsys.readouterr().err
    assert "in raised" in told
    assert told.endswith(f"{type(error).__name__}: on purpose\n")


def test_it_ends_though_its_streams_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise ValueError("I/O operation on closed file")

        flush = write

    monkeypatch.setattr("sys.stderr", Closed())
    assert end_with(ValueError("unheard")) == 1
    assert end_with(SystemExit(3)) == 3


class Worker:
    end: Any = None

    def disown(self, end: Any) -> None:
        self.end = end


class Loop:
    """Like asyncio's own loop, as far as its next turns are concerned."""

    def __init__(self) -> None:
        self._ready: deque[Any] = deque()

    def get_debug(self) -> bool:
        return False


class OtherLoop:
    """A loop that is not asyncio's."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def get_debug(self) -> bool:
        return False

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Worker, Any], None]]:
    """Make a worker fork, as seen from the child."""
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda after_in_child: hooks.append(after_in_child))
    logger = logging.getLogger("aiomultiprocess.core")

    def fork(worker: Worker, loop: Any) -> None:
        forked.end_with_the_task(worker, loop)
        (hook,) = hooks
        assert worker.end is None  # the worker itself goes on
        hook()

    yield fork
    assert logger.disabled
    logger.disabled = False


@pytest.mark.parametrize("waiting", [0, 1, 3])
def test_nothing_but_the_task_has_its_turn_there(
    fork: Callable[[Worker, Any], None], waiting: int, capsys: pytest.CaptureFixture[str]
) -> None:
    worker, loop = Worker(), Loop()
    own: list[int] = []
    loop._ready.extend(
        asyncio.Handle(own.append, (n,), loop)  # type: ignore[arg-type]
        for n in range(waiting)
    )
    fork(worker, loop)
    assert worker.end is forked.end_child
    # A loop runs as many handles in a turn as there were when the turn began.
    assert len(loop._ready) == max(1, waiting)
    for handle in loop._ready:
        with pytest.raises(Ended) as ended:
            handle._callback(*handle._args)
        assert ended.value.args == (1,)
    assert own == []
    assert "has come back to the loop of its parent" in capsys.readouterr().err


def test_another_loop_is_left_at_its_next_turn(
    fork: Callable[[Worker, Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    worker, loop = Worker(), OtherLoop()
    fork(worker, loop)
    (come_back,) = loop.soon
    with pytest.raises(Ended):
        come_back()
    assert f"process {os.getpid()}, forked by a task" in capsys.readouterr().err
