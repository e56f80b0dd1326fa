"""Mapped callables: kept once, and for a while after their last use."""

from __future__ import annotations

import functools

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.undolog import UndoLog
from aioscheduler._shipping.values import IDLE_VALUES, Values
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport.definitionlog import DefinitionLog, Reader


def test_values_are_there_once_and_as_long_as_a_task_uses_them() -> None:
    shipper, worker = HostShipper(HostCatalog()), WorkerCatalog()
    log = shipper.catalog.log
    reader = Reader(log)

    def size() -> int:
        return sum(map(len, log.lines.values()))

    large = [functools.partial(max, bytes([n]) * 100_000) for n in range(20)]
    held = shipper.take_function(large[0])
    for _ in range(5):
        assert shipper.take_function(large[0]) == held
    assert size() < 110_000
    for function in large[1:]:
        shipper.take_function(function)
    shipper.take_function(large[0])
    assert size() < (IDLE_VALUES + 2) * 110_000
    for line in reader.read():
        worker.read(line)
    assert isinstance(held, int)
    assert worker.function(held)(b"") == b"\0" * 100_000
    del held
    for function in large[10:]:
        shipper.take_function(function)
    for line in reader.read():
        worker.read(line)
    assert len(worker._keys) <= IDLE_VALUES + 2


def test_the_value_that_is_idle_longest_goes() -> None:
    log, undo = DefinitionLog(), UndoLog()
    values = Values(log, undo)
    numbers = [int(values.number(b"%d" % n, [])) for n in range(IDLE_VALUES + 2)]
    assert all(number in values for number in numbers)
    for number in numbers[:IDLE_VALUES]:
        values.rest(number)
    assert not log.retired
    assert values.number(b"0", []) == numbers[0]  # it is used again
    values.rest(numbers[IDLE_VALUES])
    assert not log.retired
    values.rest(numbers[IDLE_VALUES + 1])
    assert log.retired == {numbers[1]}
    assert numbers[1] not in values
    assert values.number(b"1", []) > numbers[-1]


def test_one_that_was_undone_is_not_known() -> None:
    undo = UndoLog()
    values = Values(DefinitionLog(), undo)
    number = values.number(b"x", [])
    undo.undo()
    assert number not in values
    assert values.number(b"x", []) != number
