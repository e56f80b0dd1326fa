"""Definitions are there once, and as long as something uses them."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted import Script

from aioscheduler._shipping.definitions import IDLE_VALUES, HostCatalog, WorkerCatalog
from aioscheduler._shipping.pickling import Catalog
from aioscheduler._shipping.shipping import HostShipper
from aioscheduler._transport.definitionlog import FORGET_AT, Leased, Reader, leased
from aioscheduler.errors import NotShippable, RemoteError

SCRIPT = """
import collections, dataclasses, enum

async def echo(value):
    return value
"""


@pytest.fixture
def world() -> Iterator[Script]:
    with Script(SCRIPT) as world:
        yield world


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


def test_a_value_of_a_change_that_was_undone_is_forgotten(world: Script) -> None:
    world.run("def big(n): return LOCK")
    catalog = world.host.catalog
    for _ in range(3):
        world.run("import threading; LOCK = threading.Lock()")
        with pytest.raises(NotShippable):
            world.host.take_function(functools.partial(world.big, b"x" * 100_000))
    world.run("LOCK = 1")
    world.host.take_function(functools.partial(world.big, b"x" * 100_000))
    catalog.forget_unused()
    assert len(catalog._values) == len(catalog._digests) == len(catalog._idle) == 1


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
    """Makes a class of a kind anew, and an instance of it."""

    def make() -> Any:
        source = "\n    ".join(MADE[request.param].split("\n"))
        world.run(f"def make():\n    {source}\n    return Made()")
        return world.module.__dict__.pop("make")()

    yield make
    gc.collect()


def sizes(catalog: Catalog) -> dict[str, int]:
    """How much a catalog has in its tables."""
    tables = vars(catalog) | vars(getattr(catalog, "log", None) or WorkerCatalog())
    return {name: len(table) for name, table in tables.items() if hasattr(table, "__len__")}


def attributes(value: Any) -> str:
    return str(sorted(getattr(value, "__dict__", {}).items()))


def outcome_of(world: Script, coro: Any) -> Leased:
    """Gives the payload of a task's result, as the host keeps it until somebody reads it."""
    number, payload, _ = world.host.take(coro)
    assert isinstance(payload, Leased)
    outcome = leased(world.run_there((number, payload)), payload.leases)
    assert isinstance(outcome, Leased)
    return outcome


@pytest.mark.parametrize("made", MADE, indirect=True)
def test_classes_made_for_each_call_are_forgotten(world: Script, made: Callable[[], Any]) -> None:
    def ship(count: int) -> tuple[dict[str, int], dict[str, int]]:
        for _ in range(count):
            assert type(world.trip(world.echo(made()))).__name__ in ("Made", "E")
        gc.collect()
        world.host.catalog.forget_unused()
        for _ in range(FORGET_AT):
            world.host.catalog.log.drop(world.host.catalog.log.write(0))
        world.trip(world.echo(1))
        return sizes(world.host.catalog), sizes(world.worker)

    before = ship(3)
    assert ship(30) == before


@pytest.mark.parametrize("made", MADE, indirect=True)
def test_an_outcome_has_its_class_though_the_program_has_dropped_it(
    world: Script, made: Callable[[], Any]
) -> None:
    """Its line is kept by the outcome's leases, and the class is made again from that."""
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
    assert type(world.trip(world.echo(back))) is type(back)  # and travels as before
    del back, result, again
    gc.collect()
    world.host.catalog.forget_unused()
    assert not world.host.catalog._class_lines
    assert not world.host.catalog.class_numbers


def test_a_living_class_is_not_set_back_by_one_that_is_made_again(world: Script) -> None:
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
        gc.collect()
        world.host.catalog.forget_unused()
        for _ in range(FORGET_AT):
            world.host.catalog.log.drop(world.host.catalog.log.write(0))
        world.trip(world.echo(1))
        assert not world.host._shapes.keys() - {id(world.echo.__code__)}
        return sizes(world.host.catalog), sizes(world.worker)

    before = ship(3)
    assert ship(30) == before


def test_a_function_comes_back_though_the_program_has_dropped_it(world: Script) -> None:
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


def test_what_was_forgotten_is_not_found_in_an_outcome(world: Script) -> None:
    """A worker may have kept an instance, and have sent it before it was told."""
    world.run("def make():\n    class Made: pass\n    return Made()")
    result = world.run_there(world.host.take(world.echo(world.make())))
    gc.collect()
    world.host.catalog.forget_unused()
    with pytest.raises(RemoteError, match="the program had dropped"):
        world.host.catalog.decode_result(result)


def test_a_call_costs_the_same_however_many_namespaces_there_are(world: Script) -> None:
    """Only its own is looked through, and those of modules: here by counting looks at names."""

    class Names(dict[str, Any]):
        looks = 0

        def __getitem__(self, name: str) -> Any:
            Names.looks += 1
            return super().__getitem__(name)

    catalog = world.host.catalog
    functions = []
    for n in range(30):
        scope: dict[str, Any] = {"__name__": f"plugin{n}", "STEP": n}
        exec("async def work(n): return n + STEP", scope)
        functions.append(scope["work"])
        assert world.trip(scope["work"](1)) == n + 1
    for space in catalog._spaces.values():
        space.contents = Names(space.contents)
    catalog.refresh(functions[3])
    assert Names.looks <= 2
    functions[7].__globals__["STEP"] = 100
    for space in catalog._spaces.values():
        space.contents = space.contents if space.module != "plugin7" else functions[7].__globals__
    assert world.trip(functions[7](1)) == 101
