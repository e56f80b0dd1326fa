"""Options in a log: one line for equal ones, as long as a task has them."""

from __future__ import annotations

from typing import Any

import pytest

from aioscheduler._shipping.optionlines import OptionLines
from aioscheduler._shipping.undolog import UndoLog
from aioscheduler._transport.definitionlog import DefinitionLog
from aioscheduler._transport.wire import unpack
from aioscheduler.options import Options
from aioscheduler.retry import Retry


class Lines:
    """Options whose `Retry` is sent as the text of its attempts."""

    def __init__(self) -> None:
        self.log, self.undo = DefinitionLog(), UndoLog()
        self.dumped: list[object] = []
        self.options = OptionLines(self.log, self.undo, self.dump)

    def dump(self, retry: Any) -> tuple[bytes, list[int]]:
        self.dumped.append(retry)
        return b"%d" % retry.attempts, []


def test_equal_ones_are_one_line_whoever_gave_them() -> None:
    lines = Lines()
    plain, retry = Options("a", 2.0), Options("a", retry=Retry(attempts=3))
    for _ in range(3):
        assert lines.options.number(plain) == 0
        assert lines.options.adopt(["a", 2.0, None, None], ()) == 0
        assert lines.options.number(retry) == 1
        assert lines.options.number(Options("a", retry=Retry(attempts=3))) == 1
        assert lines.options.adopt(["a", None, None, b"3"], ()) == 1
    assert len(lines.dumped) == 1
    assert [unpack(line)[1:] for line in lines.log.lines.values()] == [
        [0, "a", 2.0, None, None],
        [1, "a", None, None, b"3"],
    ]
    assert [lines.options.name(number) for number in (0, 1)] == ["a", "a"]


def test_of_functions_sent_alike_one_is_kept() -> None:
    lines = Lines()
    for _ in range(20):
        options = Options(retry=Retry(lambda error: True, attempts=3))
        assert lines.options.number(options) == 0
    assert len(lines.options._numbers) == 2
    assert lines.options.adopt([None, None, None, b"3"], ()) == 0


def test_what_is_retired_and_known_to_nobody_is_dropped() -> None:
    lines = Lines()
    options = [Options("a"), Options(retry=Retry())]
    numbers = [lines.options.number(each) for each in options]
    adopted = lines.options.adopt(["b", None, None, b"9"], ())
    for number in (*map(int, numbers), int(adopted)):
        assert number in lines.options
        lines.options.drop(number)
        assert number not in lines.options
    assert not (lines.options._numbers or lines.options._sent or lines.options._given)
    assert lines.options.number(options[1]) == 3


def test_a_change_that_is_undone_leaves_nothing() -> None:
    lines = Lines()
    options = Options(retry=Retry())
    lines.options.number(options)
    lines.undo.undo()
    assert not (lines.options._numbers or lines.options._sent or lines.options._given)
    assert lines.options.number(options) == 1


def test_what_cannot_be_pickled_leaves_nothing() -> None:
    lines = Lines()

    def dump(retry: object) -> Any:
        raise LookupError("cannot be pickled")

    lines.options._dump = dump
    with pytest.raises(LookupError):
        lines.options.number(Options(retry=Retry()))
    assert not lines.log.lines
    assert not lines.options._numbers
