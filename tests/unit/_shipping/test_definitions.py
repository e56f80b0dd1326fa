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
from aioscheduler._shipping.pickling import Catalog, names_in
from aioscheduler._shipping.shipping import HostShipper
from aioscheduler._transport.definitionlog import Leased, Reader, leased
from aioscheduler.errors import NotShippable

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
    log = getattr(catalog, "log", None)
    tables = vars(catalog) | (vars(log) if log is not None else {})
    return {
        name: len(table)
        for name, table in tables.items()
        if hasattr(table, "__len__") and name not in ("retired", "lines")  # what makes it forget
    } | ({} if log is None else {"lines": len(log.lines.keys() - log.retired)})


def attributes(value: Any) -> str:
    return str(sorted(getattr(value, "__dict__", {}).items()))


def outcome_of(world: Script, coro: Any) -> Leased:
    """Gives the payload of a task's result, as the host keeps it until somebody reads it."""
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
    world.forget()
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
        world.trip(world.echo(1))
        world.forget()
        assert len(world.host._shapes) <= 2  # of `echo`, and perhaps the last one
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


def test_an_outcome_names_what_its_task_did_not(world: Script) -> None:
    """A class that was bound anew, before or while the task ran: a cell of a notebook, say."""
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
    assert world.trip(world.give()).n == 5  # by value, then
    assert world.trip(world.give()).n == 5


def test_a_namespace_that_is_no_modules_goes_with_its_program(world: Script) -> None:
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
    assert len(world.host._shapes) <= 2  # of `echo`, and perhaps the last one


def test_a_task_that_waits_has_its_globals_though_their_namespace_is_gone(world: Script) -> None:
    scope: dict[str, Any] = {"STEP": 7}
    exec("async def work(n): return n + STEP", scope)
    task = world.host.take(scope["work"](1))
    scope.clear()
    world.forget()
    world.begin()  # the next process
    assert world.host.catalog.decode_result(world.run_there(task)) == 8


def test_a_copy_of_a_namespace_is_another_one(world: Script) -> None:
    scope: dict[str, Any] = {"STEP": 1}
    exec("async def work(n): return n + STEP", scope)
    assert world.trip(scope["work"](1)) == 2
    copy = dict(scope)
    exec("async def work(n): return n + STEP", copy)
    copy["STEP"] = 10
    assert world.trip(copy["work"](1)) == 11
    assert world.trip(scope["work"](1)) == 2


def test_one_code_in_many_namespaces_sees_its_own(world: Script) -> None:
    code = compile("lambda: STEP", "<code>", "eval")
    for n in range(20):
        scope: dict[str, Any] = {"STEP": n}
        function = eval(code, scope)
        number = world.host.take_function(function)
        world.tell()
        assert isinstance(number, int)
        assert world.worker.function(int(number))() == n


METACLASSES = {
    "whose hash needs an attribute": (
        "    def __hash__(cls): return hash(cls.n)\n    def __eq__(cls, other): return cls is other"
    ),
    "whose classes are all equal": (
        "    def __hash__(cls): return 1\n    def __eq__(cls, other): return True"
    ),
}


@pytest.mark.parametrize("kind", METACLASSES)
def test_classes_are_known_by_identity(world: Script, kind: str) -> None:
    world.run(f"class Meta(type):\n{METACLASSES[kind]}")
    for n in range(3):
        world.run(f"class Row(metaclass=Meta):\n    n = {n}\n    def get(self): return self.n")
        world.run(f"async def get{n}(row): return row.get(), row")
        number, row = world.trip(world.module.__dict__[f"get{n}"](world.Row()))
        assert number == n
        assert type(row) is world.Row
    world.forget()
    assert world.trip(world.echo(1)) == 1


def test_a_call_costs_the_same_however_many_namespaces_there_are(world: Script) -> None:
    """Only its own is looked through, and those of modules."""
    functions = []
    for n in range(30):
        scope: dict[str, Any] = {"__name__": f"plugin{n}", "STEP": n}
        exec("async def work(n): return n + STEP", scope)
        functions.append(scope["work"])
        assert world.trip(scope["work"](1)) == n + 1
    for space in world.host.catalog._spaces_apart.values():
        if space.module != "plugin3":
            space.bound = None  # type: ignore[assignment]  # it would raise
    world.host.catalog.refresh(functions[3])
    world.host.catalog.refresh(world.echo)
    functions[3].__globals__["STEP"] = 100
    assert world.trip(functions[3](1)) == 101


def test_nothing_begins_while_something_is_pickled(world: Script) -> None:
    refused: list[BaseException] = []

    class Schedules:
        def __reduce__(self) -> Any:
            try:
                world.host.take_function(functools.partial(len))
            except NotShippable as error:
                refused.append(error)
            return int, ()

    assert world.trip(world.echo(Schedules())) == 0
    assert "loop.call_soon" in str(refused[0])
