"""Coroutines taken apart in a host and recreated in a worker, both in this process."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import pickle
import socket
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aioscheduler._shipping.hostcatalog import HostCatalog
from aioscheduler._shipping.hostshipping import HostShipper
from aioscheduler._shipping.shipping import Call, open_call
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport.definitionlog import Reader
from aioscheduler.errors import NotShippable

SCRIPT = """
import asyncio, collections, concurrent.futures, dataclasses, enum, functools, typing

SCALE = 10
TABLE = {"a": 1}
unused = object

def helper(n):
    return n * SCALE

async def work(n):
    return helper(n)

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

async def is_even(n):
    return even(n)

class Colour(enum.Enum):
    RED = 1

class Base:
    def hello(self):
        return "base"

class Child(Base):
    made = 0

    def hello(self):
        return "child of " + super().hello()

    def twin(self):
        return Child()

    async def method(self, other=None):
        return self.hello(), type(self.twin()) is type(self)

@dataclasses.dataclass
class Point:
    x: int
    colour: Colour = Colour.RED

class Pair(typing.NamedTuple):
    a: int
    b: int

async def echo(*args, **kwargs):
    return args, kwargs

async def shape(a, /, b, *rest, c, d=4, **more):
    def use():
        return a
    return use(), b, rest, c, d, more

def closure(value):
    async def inner(n):
        return value, n, (await inner(n - 1) if n else None)
    return inner

def deco(function):
    @functools.wraps(function)
    async def wrapper(*args):
        return "wrapped", await function(*args)
    return wrapper

@deco
async def decorated(n):
    return n

async def uses_submodule():
    return concurrent.futures.ThreadPoolExecutor.__name__

async def set_db():
    global db
    db = "set in the worker"

db = None

async def get_db():
    return db

async def get_db_differently():
    return [db]

def with_defaults(n, m=5, *, k=6):
    return n + m + k

with_defaults.mark = "kept"

async def bad_global():
    return opened
"""


class World:
    """A script that no other process can import, with a host that runs it, and a worker."""

    def __init__(self) -> None:
        self.module = types.ModuleType("script_of_a_user")
        sys.modules[self.module.__name__] = self.module
        exec(SCRIPT, self.module.__dict__)
        self.host = HostShipper(HostCatalog())
        self.worker = WorkerCatalog()
        self.reader = Reader(self.host.catalog.log)
        self.their_module = self.module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def there(self, call: Call) -> Any:
        """Run a call in the worker, with its own module of this name; return the result."""
        sys.modules.pop(self.module.__name__, None)
        theirs = self.worker._namespaces.get(self.module.__name__)
        if theirs is not None:
            sys.modules[self.module.__name__] = self.their_module
        try:
            for line in self.reader.read():
                self.worker.read(line)
            self.their_module = sys.modules.get(self.module.__name__, self.module)
            called, args, kwargs = open_call(self.worker, *call[:2])
            value = called(*args, **kwargs)
            if asyncio.iscoroutine(value):
                value = asyncio.run(value)
            payload = self.worker.encode(value)
        finally:
            sys.modules[self.module.__name__] = self.module
        return self.host.catalog.decode_result(payload)

    def trip(self, coro: Any) -> Any:
        return self.there(self.host.take(coro))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    del sys.modules["script_of_a_user"]


def test_functions_find_their_globals(world: World) -> None:
    assert world.trip(world.work(3)) == 30
    assert world.trip(world.is_even(7)) is False
    assert world.trip(world.decorated(4)) == ("wrapped", 4)
    assert world.trip(world.uses_submodule()) == "ThreadPoolExecutor"
    assert "unused" not in world.their_module.__dict__


def test_every_kind_of_argument_is_found(world: World) -> None:
    assert world.trip(world.shape(1, 2, 3, c=4, e=5)) == (1, 2, (3,), 4, 4, {"e": 5})
    assert world.trip(world.echo()) == ((), {})
    assert world.trip(world.echo((1,), a=[2])) == (((1,),), {"a": [2]})
    assert world.trip(world.closure([7])(1)) == ([7], 1, ([7], 0, None))
    assert world.trip(world.closure("other")(0)) == ("other", 0, None)
    assert world.trip(world.Child().method()) == ("child of base", True)
    assert world.trip((lambda n: world.echo(n))(1)) == ((1,), {})


def test_classes_keep_their_identity_and_travel_once(world: World) -> None:
    values = [world.Child, world.Colour.RED, world.Point(3), world.Pair(1, 2)]
    (back,), _ = world.trip(world.echo(values))
    assert back[0] is world.Child
    assert back[1] is world.Colour.RED
    assert back[2:] == values[2:]
    assert [type(v) for v in back] == [type(v) for v in values]
    world.Child.made = 5
    lines = world.host.catalog.log.next
    (child,), _ = world.trip(world.echo(world.Child()))
    assert type(child) is world.Child
    assert world.Child.made == 5  # not overwritten by the class that came back
    assert world.host.catalog.log.next == lines
    payload = world.host.take(world.echo(world.Child()))[1]
    assert isinstance(payload, bytes)
    assert len(payload) < 150


def test_functions_as_values_keep_defaults_and_come_back_themselves(world: World) -> None:
    ((function, other), _) = world.trip(world.echo(world.with_defaults, world.closure(1)))
    assert function is world.with_defaults
    assert other.__closure__[0].cell_contents in (1, other)

    async def call(function: Any) -> Any:
        return function(1), function(1, k=0), function.mark

    assert world.trip(call(world.with_defaults)) == (12, 6, "kept")


def test_what_the_worker_has_bound_stays(world: World) -> None:
    assert world.trip(world.get_db()) is None
    world.trip(world.set_db())
    assert world.trip(world.get_db()) == "set in the worker"
    world.module.__dict__["db"] = "changed here"
    assert world.trip(world.get_db_differently()) == ["set in the worker"]


def test_rebound_globals_are_shipped_again_as_in_a_notebook(world: World) -> None:
    assert world.trip(world.work(1)) == 10
    exec("SCALE = 100\ndef helper(n):\n    return n + SCALE", world.module.__dict__)
    assert world.trip(world.work(1)) == 101
    exec("async def work(n):\n    return helper(n)", world.module.__dict__)
    assert world.trip(world.work(1)) == 101


def of_no_use_elsewhere(folder: Path) -> Iterator[Any]:
    with open(folder / "file", "w+") as text, open(folder / "file", "rb") as data:
        yield text
        yield data
        yield memoryview(b"abc")
        yield (n for n in [1])
        yield threading.Lock()
        one, other = multiprocessing.get_context("fork").Pipe()
        with one, other:
            yield one
        yield multiprocessing.get_context("fork").Lock()
        with socket.socket() as opened:
            yield opened
        for kind in (asyncio.Lock, asyncio.Event, asyncio.Condition, asyncio.BoundedSemaphore):
            yield kind()
        for queue in (asyncio.Queue, asyncio.PriorityQueue, asyncio.LifoQueue):
            yield queue()
        yield type("Queue", (asyncio.Queue,), {})()


async def test_what_is_of_no_use_elsewhere_is_refused_by_name(world: World, tmp_path: Path) -> None:
    world.module.__dict__["thing"] = None
    exec("async def looks(n): return thing", world.module.__dict__)
    future = asyncio.get_running_loop().create_future()
    for thing in (*of_no_use_elsewhere(tmp_path), future):

        def captured(n: object, thing: Any = thing) -> object:
            return thing

        def capture(thing: Any) -> Any:
            async def inner(n: object) -> object:
                return thing

            return inner

        world.module.__dict__["thing"] = thing
        for coro, name in (
            (world.work([thing]), "argument 'n'"),
            (world.echo(0, thing), "argument 'args'"),
            (world.echo(0, one=1, other={"a": thing}), "argument 'other'"),
            (capture(thing)(1), "closure variable 'thing'"),
            (world.looks(1), "global 'thing'.*in a module of its own"),
        ):
            with pytest.raises(NotShippable, match=name):
                world.host.take(coro)
            coro.close()
        for function, name in (
            (capture(thing), "closure variable 'thing'"),
            (captured, "default of the argument 'thing'"),
            (functools.partial(world.work, thing), "argument 1"),
            (functools.partial(world.work, n=thing), "argument 'n'"),
        ):
            with pytest.raises(NotShippable, match=name):
                world.host.take_function(function)
        with pytest.raises(NotShippable, match="the argument 2"):
            world.host.take_arguments((1, thing))
        with pytest.raises((TypeError, RuntimeError, pickle.PicklingError)):
            world.worker.encode([thing])


def test_a_class_that_holds_what_cannot_travel_is_named(world: World) -> None:
    exec("import threading\nclass Holds: lock = threading.Lock()", world.module.__dict__)
    for _ in range(2):
        coro = world.shape(1, 2, c=3, thing=world.Holds())
        with pytest.raises(NotShippable, match="argument 'thing'"):
            world.host.take(coro)
        coro.close()
    assert world.Holds not in world.host.catalog.class_numbers


def test_a_coroutine_among_the_arguments_is_refused(world: World) -> None:
    inner = asyncio.sleep(1)
    outer = world.work(inner)
    with pytest.raises(NotShippable, match="argument 'n'"):
        world.host.take(outer)
    outer.close()
    inner.close()


def test_an_unclosed_argument_is_closed_by_its_owner() -> None:
    """`take` does not close a coroutine that it refuses: the caller may try elsewhere."""
    coro = asyncio.sleep(0)
    coro.send(None)
    with pytest.raises(NotShippable, match="started"):
        HostShipper(HostCatalog()).take(coro)
    coro.close()
    with pytest.raises(NotShippable, match="closed already"):
        HostShipper(HostCatalog()).take(coro)


async def work(n: int = 0) -> int:
    return n


def test_a_closed_coroutine_is_refused_on_every_python() -> None:
    shipper = HostShipper(HostCatalog())
    twice, closed, awaited = work(1), work(2), work(3)
    shipper.take(twice)
    before = shipper.catalog.log.next
    closed.close()
    asyncio.run(awaited)
    for coro in (twice, closed, awaited):
        with pytest.raises(NotShippable, match=r"work\(\) has been awaited or closed already"):
            shipper.take(coro)
    assert shipper.catalog.log.next == before


def test_what_is_imported_by_name_is_not_defined() -> None:
    shipper = HostShipper(HostCatalog())
    number, payload, _ = shipper.take(asyncio.sleep(0, "x"))
    assert len(shipper.catalog.log.lines) == 1
    assert b"asyncio.tasks:sleep" in shipper.catalog.log.lines[0]
    assert shipper.take(asyncio.sleep(1, "y"))[0] == number
    worker = WorkerCatalog()
    worker.read(shipper.catalog.log.lines[0])
    called, args, kwargs = open_call(worker, number, payload)
    assert (called, list(args), kwargs) == (asyncio.sleep, [0, "x"], {})


def test_functions_for_map(world: World) -> None:
    base = 100
    big = b"x" * 100_000
    for function, args, expected in (
        (world.helper, (3,), 30),
        (len, ("abc",), 3),
        (functools.partial(world.helper, 4), (), 40),
        (lambda n: n + base, (1,), 101),
        (lambda n: len(big) + n, (1,), 100_001),
        (world.with_defaults, (1,), 12),
        (world.Child, (), None),
    ):
        number = world.host.take_function(function)
        payload = world.host.take_arguments(args)
        if isinstance(number, bytes):  # it is part of the frame
            world.trip(world.echo())  # the definitions that it needs come first
            back = world.there((world.worker.decode(number), payload, None))
        else:
            back = world.there((number, payload, None))
        assert back == expected or type(back) is world.Child


@pytest.mark.parametrize(
    ("values", "plain"),
    [
        ([1, 2, -3], True),
        ([1.5, float("nan")], True),
        ([-(1 << 63), (1 << 64) - 1], True),
        ([0, 1 << 64], False),
        ([-(1 << 63) - 1], False),
        ([1, True], False),
        ([1, 2.0], False),
        ([float("nan"), 1 << 70], False),
        ([1, None], False),
        (["text"], False),
    ],
)
def test_calls_of_plain_numbers_are_taken_at_once(
    world: Any, values: list[Any], plain: bool
) -> None:
    payloads = world.host.take_plain([(value,) for value in values])
    assert payloads == (values if plain else None)
    if plain:
        assert payloads == [world.host.take_arguments((value,)) for value in values]


def test_calls_of_other_shapes_are_taken_singly(world: Any) -> None:
    for calls in ([(1, 2), ()], [(1,), (1, 2)], [()]):
        assert world.host.take_plain(calls) is None
