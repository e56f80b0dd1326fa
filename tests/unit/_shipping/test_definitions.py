"""Definitions are kept once, and as long as something uses them."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted import Script

from aioscheduler._shipping.catalog import Catalog
from aioscheduler._shipping.payloads import (
    names_in,
)
from aioscheduler._transport.definitionlog import Leased, leased

SCRIPT = """
import collections, dataclasses, enum

async def echo(value):
    return value
"""


MADE = {
    "class": "class Made:\n    n = 1\n    def twice(self): return 2 * n",
    "named tuple": "Made = collections.namedtuple('Made', 'n m', defaults=(1, 2))",
    "data class": "@dataclasses.dataclass\nclass Made:\n    n: int = 1\n    m: list = None",
    "slotted": "@dataclasses.dataclass(slots=True)\nclass Made:\n    n: int = 1",
    "circle": "class Base: pass\nclass Made(Base): pass\nBase.child = Made",
    "enum": "class E(enum.Enum):\n    A = 1\nMade = lambda: E.A",
    "exception": "class Made(Exception): pass",
}


@pytest.fixture
def made(world: Script, request: pytest.FixtureRequest) -> Iterator[Callable[[], Any]]:
    """Returns a maker of new classes of a kind, which returns an instance of each."""

    def make() -> Any:
        source = "\n    ".join(MADE[request.param].split("\n"))
        world.run(f"def make():\n    {source}\n    return Made()")
        return world.module.__dict__.pop("make")()

    yield make
    gc.collect()


def sizes(catalog: Catalog) -> dict[str, int]:
    """Return the sizes of a catalog's tables."""
    parts = [getattr(catalog, name, None) for name in ("log", "_spaces", "_values")]
    found = {
        f"{type(part).__name__}.{name}": len(table)
        for part in (catalog, *parts)
        if hasattr(part, "__dict__")
        for name, table in vars(part).items()
        if hasattr(table, "__len__") and name not in ("retired", "lines")  # for forgetting
    }
    log = getattr(catalog, "log", None)
    return found if log is None else found | {"lines": len(log.lines.keys() - log.retired)}


def attributes(value: Any) -> str:
    return str(sorted(getattr(value, "__dict__", {}).items()))


def outcome_of(world: Script, coro: Any) -> Leased:
    """Return the payload of a task's result, as the host keeps it until somebody reads it."""
    outcome = world.run_there(world.host.take(coro))
    outcome = leased(outcome, map(world.host.catalog.log.lease, names_in(outcome)))
    assert isinstance(outcome, Leased)
    return outcome


@pytest.mark.parametrize("made", MADE, indirect=True)
def test_classes_made_for_each_call_are_forgotten(world: Script, made: Callable[[], Any]) -> None:
    def ship(count: int) -> tuple[dict[str, int], dict[str, int]]:
        for _ in range(count):
            assert type(world.trip(world.echo(made()))).__name__ in ("Made", "E")
        world.trip(world.echo(1))
        world.forget()
        return sizes(world.host.catalog), sizes(world.worker)

    before = ship(3)
    assert ship(30) == before


@pytest.mark.parametrize("made", MADE, indirect=True)
def test_an_outcome_has_its_class_even_if_the_program_has_dropped_it(
    world: Script, made: Callable[[], Any]
) -> None:
    """Its line is kept by the outcome's leases, and the class is recreated from it."""
    value = made()
    kept = attributes(value)
    result = outcome_of(world, world.echo(value))
    again = leased(result, result.leases)
    text = repr(type(value))
    dead = weakref.ref(type(value))
    del value
    gc.collect()
    assert dead() is None
    world.host.catalog.forget_unused()
    back = world.host.catalog.decode_result(result)
    assert repr(type(back)) == text
    assert attributes(back) == kept
    assert type(world.host.catalog.decode_result(again)) is type(back)
    assert type(world.trip(world.echo(back))) is type(back)  # it travels as before
    del back, result, again
    world.forget()
    assert not world.host.catalog._class_lines
    assert not world.host.catalog.class_numbers


def test_a_living_class_is_not_reset_by_its_recreation(world: Script) -> None:
    world.run("class Base:\n    count = 0\nclass Child(Base): pass\nbase = Base")
    result = outcome_of(world, world.echo(world.Child()))
    world.Base.count = 5
    world.run("del Child")
    gc.collect()
    back = world.host.catalog.decode_result(result)
    assert type(back).__mro__[1] is world.Base
    assert back.count == 5


def test_functions_made_for_each_call_are_forgotten(world: Script) -> None:
    def ship(count: int) -> tuple[dict[str, int], dict[str, int]]:
        for n in range(count):
            world.run(f"async def made(n): return n + {n}\nasync def call(f): return await f(1)")
            assert world.trip(world.made(1)) == n + 1
            assert world.trip(world.call(world.made)) == n + 1
            assert callable(world.trip(world.echo(world.made)))
            world.host.take_function(functools.partial(world.made, 3))
        world.run("del made, call")
        world.trip(world.echo(1))
        world.forget()
        assert len(world.host._shapes) <= 2  # for `echo`, and perhaps the last one
        return sizes(world.host.catalog), sizes(world.worker)

    before = ship(3)
    assert ship(30) == before


def test_a_function_comes_back_even_if_the_program_has_dropped_it(world: Script) -> None:
    world.run("def made(n): return n + base\nbase = 4")
    made = world.module.__dict__.pop("made")
    result = outcome_of(world, world.echo(made))
    assert world.host.catalog.decode_result(result) is made
    del made
    gc.collect()
    world.host.catalog.forget_unused()
    back = world.host.catalog.decode_result(result)
    assert back(1) == 5
    assert world.host.catalog.decode_result(result) is back


def test_an_outcome_names_what_its_task_did_not(world: Script) -> None:
    """A class is rebound before or while the task runs, as by a notebook cell."""
    world.run("class Made: n = 1\nasync def make(): return Made()\nasync def wait(): return held")
    assert world.trip(world.make()).n == 1
    task = world.host.take(world.make())
    world.run("class Made: n = 2")
    assert world.trip(world.make()).n == 2
    outcome = world.run_there(task)
    outcome = leased(outcome, map(world.host.catalog.log.lease, names_in(outcome)))
    for n in range(3, 6):
        world.run(f"class Made: n = {n}")
        assert world.trip(world.make()).n == n
        world.forget()
    assert world.host.catalog.decode_result(outcome).n == 2
    again: Any = outcome
    del outcome, task
    assert world.host.catalog.decode_result(again).n == 2


def test_what_a_worker_has_kept_travels_whatever_the_host_has_dropped(world: Script) -> None:
    world.run("kept = []\nasync def keep(x): kept.append(x)\nasync def give(): return kept[-1]")
    world.run("async def later():\n    return kept[-1].n")
    world.run("def make():\n    class Made:\n        n = 5\n    return Made()")
    world.trip(world.keep(world.make()))
    gc.collect()
    world.host.catalog.forget_unused()
    back = world.trip(world.give())  # not forgotten there yet
    assert back.n == 5
    del back
    world.forget()
    assert world.trip(world.give()).n == 5  # now by value
    assert world.trip(world.give()).n == 5


def test_a_namespace_of_no_module_goes_with_its_program(world: Script) -> None:
    def ship(count: int) -> tuple[dict[str, int], dict[str, int]]:
        for n in range(count):
            scope: dict[str, Any] = {"STEP": n, "helper": None}
            exec("def helper(): return STEP\nasync def work(n): return n + helper()", scope)
            assert world.trip(scope["work"](1)) == n + 1
            scope["STEP"] = 100
            assert world.trip(scope["work"](1)) == 101
            world.host.take_function(functools.partial(scope["work"], 1))
        world.trip(world.echo(1))
        world.forget()
        return sizes(world.host.catalog), sizes(world.worker)

    before = ship(3)
    assert ship(30) == before
    assert len(world.host._shapes) <= 2  # for `echo`, and perhaps the last one
