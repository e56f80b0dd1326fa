"""How often a worker collects cyclic garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from aioscheduler._processes.process import workers_module

garbage = workers_module("garbage")


@pytest.fixture
def thresholds() -> Iterator[Any]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    thresholds = garbage.Thresholds()
    thresholds.begin()
    gc.disable()  # only the test collects
    yield thresholds
    gc.enable()
    gc.set_threshold(*before)
    if thresholds._collected in gc.callbacks:
        thresholds.stop()


def leave(count: int) -> None:
    for _ in range(count):
        cycle: list[Any] = []
        cycle.append(cycle)


def look_in_vain(thresholds: Any) -> None:
    for _ in range(garbage.PATIENCE - thresholds._vain):
        gc.collect(0)


def test_it_looks_less_often_while_it_finds_nothing(thresholds: Any) -> None:
    gc.collect()
    seen = []
    for _ in range(6):
        look_in_vain(thresholds)
        seen.append(gc.get_threshold()[0])
    assert seen == [1400, 2800, 5600, 11200, 20000, 20000]
    assert gc.get_threshold()[1:] == (10, 10)


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_it_looks_as_often_as_python_does_once_it_finds_some(
    thresholds: Any, generation: int
) -> None:
    gc.collect()
    look_in_vain(thresholds)
    leave(300)
    gc.collect(generation)
    assert gc.get_threshold()[0] == 700
    leave(69)  # hardly any
    look_in_vain(thresholds)
    assert gc.get_threshold()[0] == 1400


def test_a_process_that_grows_is_looked_through_soon(thresholds: Any) -> None:
    look_in_vain(thresholds)
    thresholds.note_size(100 << 20)
    thresholds.note_size(150 << 20)
    assert gc.get_threshold()[0] == 1400
    thresholds.note_size(250 << 20)
    assert gc.get_threshold()[0] == 700


def test_somebody_elses_threshold_stays(thresholds: Any) -> None:
    gc.collect(0)
    gc.set_threshold(5000, 5, 5)
    thresholds.note_size(0)
    thresholds.note_size(1 << 30)
    gc.collect(0)
    leave(6000)
    gc.collect(0)
    assert gc.get_threshold() == (5000, 5, 5)
    assert thresholds._collected not in gc.callbacks
