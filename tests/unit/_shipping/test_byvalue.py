"""By-value objects of a script survive a round trip to a worker."""

from __future__ import annotations

import asyncio
import sys
import typing
from typing import Any

import pytest
from scripted import Script

from aioscheduler.errors import NotShippable

SCRIPT = """
import abc, dataclasses, enum, functools, typing

SCALE = 10

@functools.lru_cache
def cached(n):
    "Doubles."
    return 2 * n

@functools.cache
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)

@functools.singledispatch
def kind(value):
    return "thing"

@kind.register
def _(value: int):
    return f"number {SCALE}"

@kind.register(list)
def kind_of_list(value):
    return [kind(one) for one in value]

UserId = typing.NewType("UserId", int)
registry = {}

class Command:
    def __init_subclass__(cls, **options):
        registry[cls.__name__] = cls, options

class Hello(Command, loud=True):
    def run(self):
        return "hello"

class Registered(type):
    def __new__(meta, name, bases, contents, **options):
        cls = super().__new__(meta, name, bases, contents)
        registry[name] = cls, options
        return cls

    def __call__(cls, *args):
        return super().__call__(*args), SCALE

class ByMeta(metaclass=Registered, quiet=1):
    pass

class AbstractMeta(abc.ABCMeta):
    def __new__(meta, name, bases, contents):
        registry[name] = None
        return super().__new__(meta, name, bases, contents)

class Abstract(metaclass=AbstractMeta):
    @abc.abstractmethod
    def run(self): ...

class Concrete(Abstract):
    def run(self):
        return isinstance(self, Abstract)

class Field:
    def __set_name__(self, owner, name):
        registry[name] = owner.__name__
        self.name = name

class Model:
    field = Field()

@dataclasses.dataclass(slots=True)
class Point:
    x: int
    y: int = 2

class Private:
    __slots__ = ("__secret", "plain")

    def __init__(self):
        self.__secret = 1

    def secret(self):
        return self.__secret

class OneSlot(Private):
    __slots__ = "one"

T = typing.TypeVar("T")

class Box(typing.Generic[T]):
    __slots__ = ("value",)

class Lazy:
    @functools.cached_property
    def value(self):
        return SCALE

    @functools.lru_cache
    def cached(self, n):
        return n + SCALE

class Colour(enum.Enum):
    RED = 1

def traced(function):
    @functools.wraps(function)
    def outer(*args: int) -> int:
        return function(*args)
    return outer

@traced
def wrapped(n: int) -> "str":
    "Says n."
    return str(n)

class Shop:
    def price(self, n: Colour) -> int:
        "In pence."
        return n

def facts(f):
    return f.__name__, f.__qualname__, f.__doc__, f.__module__, dict(f.__annotations__)

async def call(function, *args):
    return function(*args)

async def everything():
    lazy = Lazy()
    point = Point(1)
    return (
        cached(4), cached(4), cached.cache_info().hits, cached.__doc__, fib(30),
        kind(1), kind("x"), kind([1, "x"]), UserId(3), UserId.__name__,
        sorted(registry), registry["Hello"][0]().run(), registry["Hello"][1],
        registry["ByMeta"][1], registry["ByMeta"][0] is ByMeta, ByMeta()[1],
        Concrete().run(), Model.field.name, point, hasattr(point, "__dict__"),
        Private().secret(), hasattr(Private(), "__dict__"), hasattr(OneSlot(), "__dict__"),
        hasattr(Box[int](), "__dict__"), lazy.value, lazy.value, lazy.cached(1), Colour.RED,
        facts(wrapped)[:3], facts(Shop.price)[:3],
    )
"""


def test_a_script_is_the_same_there(world: Script, caplog: pytest.LogCaptureFixture) -> None:
    here = asyncio.run(world.everything())
    world.cached.cache_clear()
    assert world.trip(world.everything()) == here
    assert not caplog.records
    world.begin()
    assert world.trip(world.everything()) == here


@pytest.mark.parametrize(
    "name", ["wrapped", "facts", "Shop.price", "kind_of_list", "cached.__wrapped__"]
)
def test_functions_keep_what_they_say_of_themselves(world: Script, name: str) -> None:
    function: Any = world.module
    for part in name.split("."):
        function = getattr(function, part)
    assert world.trip(world.call(world.facts, function)) == world.facts(function)


def test_instances_with_slots_come_back(world: Script) -> None:
    assert world.trip(world.call(world.Point, 1)) == world.Point(1)
    assert world.trip(world.call(world.Private)).secret() == 1
    assert world.trip(world.call(world.OneSlot)).secret() == 1


def test_what_can_be_cached_travels_as_a_value(world: Script) -> None:
    assert world.trip(world.call(world.cached, 3)) == 6
    assert world.trip(world.call(world.kind, 3)) == "number 10"
    number = world.host.take_function(world.cached)
    assert isinstance(number, bytes)


METHODS = """
class Shop:
    @functools.singledispatchmethod
    def price(self, thing): return "nothing"

    @price.register
    def _(self, thing: int): return thing, type(self) is Shop

    @price.register(str)
    def by_name(self, thing): return self.price(len(thing))

    @functools.singledispatchmethod
    @classmethod
    def kind(cls, thing): return cls.__name__

async def ask(shop): return shop.price(1), shop.price("abc"), shop.price([]), Shop.kind(1)
"""


def test_generic_methods_travel(world: Script) -> None:
    world.run(METHODS)
    shop = world.Shop()
    assert shop.price(0) == (0, True)  # Python 3.13 caches it in the class
    assert world.trip(world.ask(shop)) == ((1, True), (3, True), "nothing", "Shop")


def test_type_variables_and_aliases_go_by_value(world: Script) -> None:
    world.run("""
import typing
P = typing.ParamSpec("P", covariant=True)
R = typing.TypeVar("R")
Ts = typing.TypeVarTuple("Ts")
class Handler(typing.Generic[P, R]):
    def __init__(self, call): self.call = call
class Array(typing.Generic[typing.Unpack[Ts]]): pass
class Special(Handler[P, int]): pass
def logged(f: typing.Callable[typing.Concatenate[str, P], R]) -> typing.Callable[P, R]:
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        return f("x", *args, **kwargs)
    return inner
def add(x, n): return x * n
async def go(handler, array):
    kinds = Handler[[int], str], Special[[int]], Array[int, str]
    names = P.__name__, P.__covariant__, P.__module__, Ts.__name__, Handler.__parameters__[0] is P
    return logged(add)(2), handler.call("abc"), type(array) is Array, len(kinds), names
""")
    here = asyncio.run(world.go(world.Handler(len), world.Array()))
    assert world.trip(world.go(world.Handler(len), world.Array()))[:4] == here[:4]
    assert world.trip(world.call(lambda p: p.__covariant__, world.P))
    assert isinstance(world.trip(world.call(lambda p: p, world.Ts)), typing.TypeVarTuple)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of Python 3.12")
def test_type_parameters_and_aliases_go_by_value(world: Script) -> None:
    world.run("""
type Words[T] = dict[str, T]
type Endless = list[Endless]
class Box[T]:
    pass
class Call[**Q, *Ts]:
    pass
async def go():
    return Words.__name__, str(Words.__value__), str(Call.__type_params__), Box[int]
async def endless(): return Endless
""")
    assert world.trip(world.go())[:3] == asyncio.run(world.go())[:3]
    with pytest.raises(NotShippable, match="the global 'Endless' of script_of_mine"):
        world.trip(world.endless())
