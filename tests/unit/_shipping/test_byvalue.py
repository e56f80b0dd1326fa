"""What a script makes, there and back, as in one process."""

from __future__ import annotations

import asyncio
import fractions
import importlib
import logging
import runpy
import signal
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Script

from aioscheduler._shipping.definitions import CODE, IMPORTED, SPACE, HostCatalog, WorkerCatalog
from aioscheduler._shipping.names import importable_name
from aioscheduler._shipping.pickling import EMPTY
from aioscheduler._shipping.shipping import HostShipper, open_call
from aioscheduler._transport.definitionlog import Reader
from aioscheduler._transport.wire import pack
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


@pytest.fixture
def world() -> Iterator[Script]:
    with Script(SCRIPT) as world:
        yield world


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
    assert shop.price(0) == (0, True)  # which Python 3.13 remembers in the class
    assert world.trip(world.ask(shop)) == ((1, True), (3, True), "nothing", "Shop")


REGISTRIES = {
    "in a hook": """
class Base:
    known = {}
    def __init_subclass__(cls): Base.known[cls.__name__] = cls
class A(Base): pass
class B(A): pass
""",
    "in a decorator": """
class Base:
    known = {}
    @classmethod
    def register(cls, other):
        cls.known[other.__name__] = other
        return other
@Base.register
class A(Base): pass
@Base.register
class B(A): pass
""",
    "in a metaclass": """
class Meta(type):
    known = {}
    def __new__(meta, name, bases, contents):
        cls = super().__new__(meta, name, bases, contents)
        meta.known[name] = cls
        return cls
class Base(metaclass=Meta): pass
class A(Base): pass
class B(A): pass
""",
    "as an instance": """
class Base: pass
class A(Base): pass
class B(A): pass
Base.known = {"A": type(A()), "B": B}
Base.default = A()
""",
    "weakly": """
import weakref
class Base:
    kept = weakref.WeakSet()
    def __init_subclass__(cls): Base.kept.add(cls)
class A(Base): pass
class B(A): pass
Base.known = {cls.__name__: cls for cls in Base.kept}
""",
    "abstract, with slots": """
import abc, dataclasses
class Base(abc.ABC):
    __slots__ = ()
    known = {}
    def __init_subclass__(cls): Base.known[cls.__name__] = cls
@dataclasses.dataclass
class A(Base):
    __slots__ = ("x",)
    x: int
class B(A):
    __slots__ = ()
""",
}


@pytest.mark.parametrize("first", ["B", "A", "Base"])
@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_class_that_its_base_lists_can_come_first(
    world: Script, registry: str, first: str
) -> None:
    world.run(REGISTRIES[registry])
    world.run(
        f"async def go(): return {first}.__name__\n"
        "async def all_of_it():\n"
        "    known = dict(Base.known)\n"
        "    return known.get('A') is A, known.get('B') is B"
    )
    for _ in range(2):
        assert world.trip(world.go()) == first
        assert world.trip(world.all_of_it()) == (True, True)
        assert world.trip(world.call(lambda cls: cls, world.B)) is world.B
        world.begin()


# ---- what pickle finds by name


ENUMS = """
import abc, datetime, decimal, enum

class Planet(enum.Enum):
    MERCURY = 3.3e23, 2.4e6
    EARTH = 5.9e24, 6.3e6
    TERRA = 5.9e24, 6.3e6

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius
        made.append(self._name_)

    @property
    def density(self): return self.mass / self.radius**3 * SCALE

    @classmethod
    def _missing_(cls, value):
        return cls.EARTH if value == "home" else None

class Coord(bytes, enum.Enum):
    def __new__(cls, value, label):
        made.append(label)
        self = bytes.__new__(cls, [value])
        self._value_, self.label = value, label
        return self
    def __repr__(self): return f"{self.label} {bytes(self)}"
    X = 1, "x"
    Y = 2, "y"
    HORIZONTAL = 1, "x"

class Mixin:
    def hello(self): return f"hello {self.name}"

@dataclasses.dataclass(frozen=True)
class Animal:
    legs: int
    tail: bool = True

class Creature(Mixin, Animal, enum.Enum):
    BEETLE = 6, False
    DOG = 4

class Perm(enum.Flag):
    R = 1
    W = 2
    RW = R | W
    def can_write(self): return Perm.W in self

class Strict(enum.Flag, boundary=enum.STRICT):
    A = 1
    B = 8

class Bits(enum.IntFlag):
    ONE = 1
    EIGHT = 8

class Text(enum.StrEnum):
    _ignore_ = ["letter"]
    letter = 1
    A = enum.auto()
    B = "bee"
    name = "nom"

class Upper(enum.Enum):
    @staticmethod
    def _generate_next_value_(name, start, count, last): return name.upper()
    a = enum.auto()

class Number(int, enum.Enum):
    ONE = 1
    UNO = 1

class Day(datetime.date, enum.Enum):
    FIRST = 2030, 1, 1

class Price(decimal.Decimal, enum.Enum):
    LOW = "1.50"

class Pair(tuple, enum.Enum):
    ZERO = 0, 0

class Slotted:
    __slots__ = ("part",)
    def __init__(self, part): self.part = part

class Part(Slotted, enum.Enum):
    HALF = 0.5

class Lists(enum.Enum):
    LONG = [1, 2]
    SHORT = []

class ByName(enum.Enum):
    ONE = 1
    def __reduce_ex__(self, protocol): return self.__class__.__name__

class Meta(enum.EnumType, abc.ABCMeta):
    def __new__(meta, name, bases, contents, **options):
        made.append(name)
        return super().__new__(meta, name, bases, contents, **options)

class Base(enum.Enum, metaclass=Meta):
    def __init_subclass__(cls): made.append(cls.__name__)
    @abc.abstractmethod
    def run(self): ...

class Runs(Base):
    A = "a"
    def run(self): return self is Runs.A and Runs("a") is self

class User:
    def kind(self): return Kind.USER
    favourite = None

class Kind(enum.Enum):
    USER = User
    LIST = "list"
    def make(self): return self.value()

User.favourite = Kind.LIST
Kind.by_name = {"user": Kind.USER, Kind.LIST: 1}

class Listing:
    known = []

class Listed(Listing, enum.Enum):
    ONE = 1

Listing.known.append(Listed.ONE)
Listing.own = Listed

CLASSES = [
    Planet, Coord, Creature, Perm, Strict, Bits, Text, Upper, Number, Day, Price, Pair, Part, Lists,
    ByName, Runs, Kind, Listed,
]

def facts(cls):
    return (
        cls.__name__, cls.__qualname__, cls.__module__, cls.__doc__, len(cls),
        [member.name for member in cls], sorted(vars(cls)),
        [(name, member._name_, repr(member.value), str(member), repr(member), hash(member) != 0)
         for name, member in cls.__members__.items()],
        [cls(member.value) is member for member in cls],
        [getattr(cls, name) is cls[name] for name in cls.__members__ if name != "name"],
        [sorted(vars(member)) for member in cls],
        cls.__members__.keys() == cls._member_map_.keys(),
    )

async def facts_of(cls): return facts(cls)

async def what_they_do():
    return (
        Planet.EARTH.density, Planet("home").name, Planet.TERRA is Planet.EARTH,
        Coord.Y.label, Coord(2).label, Coord.X == b"\\1", Coord.HORIZONTAL is Coord.X,
        Creature.DOG.legs, Creature.DOG.tail, Creature.DOG.hello(),
        (Perm.R | Perm.W) is Perm.RW, Perm.RW.can_write(), (~Perm.R).name, Perm(3).value,
        (Bits.ONE | Bits.EIGHT).value, Bits(9).name, Bits.ONE + 1, Strict._boundary_.name,
        Text.A.value, Text.B + "s", Text("nom").value, Upper.a.value,
        Number.UNO + 1, Day.FIRST.year, Price.LOW + 1, Pair.ZERO[1], Part.HALF.part,
        Lists([1, 2]).name, Runs.A.run(), Kind.USER.make().kind().name, User.favourite.name,
        Kind.by_name[Kind.LIST], Kind.by_name["user"].name, Listing.known[0] is Listed.ONE,
        Listing.own is Listed, made.copy(),
    )

async def refused():
    try:
        Planet("nowhere")
    except ValueError as error:
        first = str(error)
    try:
        Strict(2)
    except ValueError as error:
        return first, str(error).splitlines()[0]

async def echo(*values): return values
"""


@pytest.fixture
def enums(world: Script) -> Script:
    world.run(f"import dataclasses\nmade = []\n{ENUMS}")
    return world


def test_an_enumeration_is_the_same_there(enums: Script, caplog: pytest.LogCaptureFixture) -> None:
    for cls in enums.CLASSES:
        assert enums.trip(enums.facts_of(cls)) == enums.facts(cls)
        members = list(cls.__members__.values())
        back = enums.trip(enums.echo(cls, *members))
        assert all(a is b for a, b in zip(back, [cls, *members], strict=True))
    assert enums.trip(enums.what_they_do()) == asyncio.run(enums.what_they_do())
    assert enums.trip(enums.refused()) == asyncio.run(enums.refused())
    assert not caplog.records


@pytest.mark.parametrize("first", ["Kind.USER", "User", "Kind", "Listing", "Listed", "Listed.ONE"])
def test_an_enumeration_and_what_refers_to_it_may_come_in_any_order(
    enums: Script, first: str
) -> None:
    enums.run(f"async def mention(): return {first}")
    enums.trip(enums.mention())
    assert enums.trip(enums.what_they_do()) == asyncio.run(enums.what_they_do())


def test_flags_in_combination_travel(enums: Script) -> None:
    enums.run(
        "class Named(enum.Flag):\n    __reduce_ex__ = enum.pickle_by_enum_name\n    A=1\n    B=2"
    )
    for value in (enums.Perm.R | enums.Perm.W, ~enums.Perm.R, enums.Bits(9), enums.Bits(16),
                  enums.Perm(0), enums.Named.A | enums.Named.B):  # fmt: skip
        (back,) = enums.trip(enums.echo(value))
        assert type(back) is type(value)
        assert back == value


def test_an_enumeration_that_a_worker_makes_comes_back(enums: Script) -> None:
    enums.run(
        "async def make():\n"
        "    class Local(enum.Enum):\n"
        "        A = 1, 'a'\n"
        "        B = 2, 'b'\n"
        "        C = 2, 'b'\n"
        "        def __init__(self, n, text): self.text = text\n"
        "    return Local, Local.C\n"
    )
    cls, member = enums.trip(enums.make())
    assert member is cls.B is cls.C
    assert (member.text, cls((1, "a")).text, [m.name for m in cls]) == ("b", "a", ["A", "B"])


def test_members_that_cannot_be_made_again_are_refused(enums: Script) -> None:
    enums.run("class Odd(list, enum.Enum):\n    A = [1]\n    __hash__ = object.__hash__")
    with pytest.raises(NotShippable, match="the members of the enumeration Odd are made from a li"):
        enums.trip(enums.echo(enums.Odd.A))


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


SENTINELS = {
    "its class": "class Kind:\n    def __reduce__(self): return 'MISSING'\nMISSING = Kind()",
    "its class, by protocol": "class Kind:\n    def __reduce_ex__(self, protocol): return 'MISSING'"
    "\nMISSING = Kind()",
    "its module": "MISSING = Sentinel(); MISSING.__module__ = __name__",
}


class Sentinel:
    """One of a library, which is told where it is found."""

    def __reduce__(self) -> str:
        return "MISSING"


@pytest.mark.parametrize("kind", SENTINELS)
def test_what_only_this_process_finds_by_name_is_refused(world: Script, kind: str) -> None:
    world.module.__dict__["Sentinel"] = Sentinel
    world.run(SENTINELS[kind])
    world.run("async def look(): return MISSING\nasync def take(x, y=MISSING): return x")
    with pytest.raises(NotShippable, match="global 'MISSING'.*by its name, 'MISSING' of script_of"):
        world.trip(world.look())
    with pytest.raises(NotShippable, match="argument 'x' of take.*by its name, 'MISSING'"):
        world.trip(world.take([world.MISSING], 1))
    with pytest.raises(NotShippable, match="argument 'y' of take"):
        world.trip(world.take(1))


def test_what_every_process_finds_by_name_is_the_same_there(world: Script) -> None:
    for value in (EMPTY, typing.Any, typing.Union, signal.SIGINT, Path("x"), fractions.Fraction(1)):
        found = world.trip(world.call(lambda value: value, value))
        assert found == value
        assert type(found) is type(value)


def _make_class(name: str, base: type) -> Any:
    class Made(base):  # type: ignore[misc]
        pass

    Made.__name__ = name
    return Made


MADE = """
def make(name, base):
    class Made(base):
        pass

    Made.__name__ = name
    return Made

Refusal = make("Refusal", Exception)
Answer = make("Answer", object)
"""


@pytest.mark.parametrize("name", ["Refusal", "Answer"])
def test_a_class_that_its_module_has_under_its_name_is_that_class(
    world: Script, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"made_for_{name.lower()}"
    (tmp_path / f"{module}.py").write_text(MADE)
    monkeypatch.syspath_prepend(tmp_path)
    cls: Any = getattr(importlib.import_module(module), name)
    world.run("async def go(value, cls): return type(value) is cls, cls, cls()")
    same, again, value = world.trip(world.go(cls(), cls))
    assert (same, again, type(value)) == (True, cls, cls)
    assert not world.host.catalog.class_numbers  # which would be of a copy


def test_a_class_that_its_module_does_not_have_goes_by_value(world: Script) -> None:
    made = _make_class("Answer", object)
    assert importable_name(made) is None
    assert world.trip(world.call(lambda cls: cls, made)) is made


LYING = """
class Refusal(BaseException):
    __module__ = "builtins"

class Nowhere(Exception):
    __module__ = "builtins"

gone = Nowhere
del Nowhere
"""


def test_a_class_that_is_not_where_it_says_is_found(
    world: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lying.py").write_text(LYING)
    monkeypatch.syspath_prepend(tmp_path)
    lying: Any = importlib.import_module("lying")
    assert importable_name(lying.Refusal) == "lying:Refusal"
    assert importable_name(lying.gone) is None
    world.run("async def go(error): return error, type(error)")
    back, cls = world.trip(world.go(lying.Refusal("no")))
    assert (cls, type(back), back.args) == (lying.Refusal, lying.Refusal, ("no",))
    assert not world.host.catalog.class_numbers
    lying.Local = _make_class("Local", object)  # which no other process finds there
    lying.Local.__module__ = "builtins"
    assert importable_name(lying.Local) is None


# ---- what is rebound


def test_a_helper_of_a_helper_that_is_rebound_is_seen(world: Script) -> None:
    world.run(
        "def helper(): return other()\ndef other(): return SCALE\nasync def go(): return helper()"
    )
    assert world.trip(world.go()) == 10
    world.run("SCALE = 11")
    assert world.trip(world.go()) == 11
    world.run("def other(): return [SCALE]")
    assert world.trip(world.go()) == [11]
    world.run("class Shop: rate = 5\ndef other(): return Shop().rate")
    assert world.trip(world.go()) == 5
    world.run("class Shop: rate = 6")
    assert world.trip(world.go()) == 6
    world.begin()  # the next process has the newest, and not what was before
    assert world.trip(world.go()) == 6
    world.forget()
    log = world.host.catalog.log
    lines = len(log.lines.keys() - log.retired)
    for n in range(20):
        world.run(f"SCALE = {n + 1000}")
        assert world.trip(world.go()) == 6
    assert len(log.lines.keys() - log.retired) == lines


def test_what_a_script_says_of_itself_is_there(
    world: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "package_of_it").mkdir()
    (tmp_path / "package_of_it" / "beside.py").write_text("N = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    world.module.__doc__, world.module.__package__ = "What it does.", "package_of_it"
    world.run("async def look(): return __doc__, __package__, __name__")
    world.run("async def load():\n    from . import beside\n    return beside.N\n")
    with caplog.at_level(logging.INFO, "aioscheduler"):
        assert world.trip(world.load()) == 7
        assert world.trip(world.look()) == ("What it does.", "package_of_it", "script_of_mine")
        world.module.__doc__ = "Something else."
        assert world.trip(world.look())[0] == "Something else."
    assert not caplog.records


def test_a_module_that_is_bound_anew_is_seen(world: Script) -> None:
    world.run("import json\nclass Fake:\n    codec = 'fake'\n")
    world.run("async def look(): return getattr(json, 'codec', getattr(json, '__name__', json))")
    assert world.trip(world.look()) == "json"
    world.run("import pickle as json")
    assert world.trip(world.look()) == "pickle"
    world.run("json = Fake()")
    assert world.trip(world.look()) == "fake"
    world.run("json = 5")
    assert world.trip(world.look()) == 5
    world.run("import json")
    assert world.trip(world.look()) == "json"


def test_what_a_worker_has_bound_stays(world: Script, caplog: pytest.LogCaptureFixture) -> None:
    world.run(
        "async def bind():\n    global SCALE\n    SCALE = 'mine'\nasync def look(): return SCALE"
    )
    assert world.trip(world.look()) == 10
    world.trip(world.bind())
    with caplog.at_level(logging.INFO, "aioscheduler"):
        for n in range(2):
            world.run(f"SCALE = {n}")
            assert world.trip(world.look()) == "mine"
    assert caplog.text.count("the global 'SCALE' of script_of_mine stays") == 1


def test_what_cannot_be_read_is_named_in_the_log(
    world: Script, caplog: pytest.LogCaptureFixture
) -> None:
    world.run(
        "class Odd:\n    def __reduce__(self): return int, ('odd',)\n"
        "ODD = Odd()\nclass Owner:\n    one = ODD\n"
        "async def look(): return ODD\nasync def own(): return Owner"
    )
    with pytest.raises(NameError) as caught:
        world.trip(world.look())
    world.worker.explain(caught.value)
    assert "cannot be read in this worker: ValueError" in caught.value.__notes__[0]
    assert "the global 'ODD' of script_of_mine cannot be read in this worker: Val" in caplog.text
    with pytest.raises(NameError):
        world.trip(world.own())
    assert "the class Owner cannot be read in this worker: ValueError" in caplog.text
    assert "the global 'Owner' of script_of_mine cannot be read" in caplog.text


def test_a_module_that_is_missing_there_is_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = WorkerCatalog()
    worker.read(pack([SPACE, 0, "gone_there", IMPORTED, None]))
    worker.read(pack([CODE, 1, 0, b""]))
    assert "the module gone_there cannot be read in this worker: ModuleNotFound" in caplog.text
    assert "code of a module that is missing cannot be read" in caplog.text
    with pytest.raises(ModuleNotFoundError, match="gone_there"):
        worker.function(1)


def test_what_cannot_travel_any_more_is_refused(world: Script) -> None:
    world.run("async def look(): return SCALE")
    assert world.trip(world.look()) == 10
    world.run("import threading; SCALE = threading.Lock()")
    for _ in range(2):
        with pytest.raises(NotShippable, match="the global 'SCALE' of script_of_mine, which look"):
            world.trip(world.look())
    world.run("SCALE = 12")
    assert world.trip(world.look()) == 12
    world.run("del SCALE")
    assert world.trip(world.look()) == 12


def test_a_closure_whose_global_cannot_travel_is_refused_until_it_can(world: Script) -> None:
    world.run(
        "import threading\nLOCK = threading.Lock()\n"
        "def make(n):\n    async def inner(): return n, LOCK\n    return inner\n"
    )
    for _ in range(3):
        with pytest.raises(NotShippable, match="the global 'LOCK'"):
            world.trip(world.make(1)())
    world.run("LOCK = 5")
    assert world.trip(world.make(1)()) == (1, 5)
    world.run("LOCK = 6")
    assert world.trip(world.make(2)()) == (2, 6)


# ---- two of one name


def test_two_namespaces_of_one_name_are_two(world: Script, tmp_path: Path) -> None:
    path = tmp_path / "strategy.py"
    found = []
    for rate in (1, 2):
        path.write_text(f"RATE = {rate}\nasync def price(): return RATE\n")
        found.append(runpy.run_path(str(path))["price"])
    code = compile("async def price(): return RATE", "x", "exec")
    for rate in (3, 4):
        namespace = {"__name__": "__main__", "RATE": rate}
        exec(code, namespace)
        found.append(namespace["price"])
    for _ in range(2):
        assert [world.trip(price()) for price in found] == [1, 2, 3, 4]
    lines = world.host.catalog.log.next
    assert [world.trip(price()) for price in found] == [1, 2, 3, 4]
    assert world.host.catalog.log.next == lines


CONSOLE = """
import collections
K = 1
def init():
    global K
    K = "mine"
def helper(): return K
secret = lambda: K
class Shop:
    def price(self): return K
    @staticmethod
    def make():
        def inner(): return K
        return inner
Pair = collections.namedtuple("Pair", "a b")
async def read(*functions):
    return K, helper(), secret(), Shop().price(), Shop.make()(), *(f() for f in functions)
async def make(): return Pair(1, 2)
"""


@pytest.mark.parametrize(
    "marks", [{}, {"__name__": "__console__", "__doc__": None}, {"__name__": "plugin", "app": 1}]
)
def test_functions_of_a_console_share_its_globals(world: Script, marks: dict[str, Any]) -> None:
    marks = dict(marks)
    exec(CONSOLE, marks)

    def args() -> list[Any]:
        return [marks["helper"], marks["secret"], marks["Shop"]().price, marks["Shop"].make()]

    assert world.trip(marks["read"](*args())) == (1,) * 9
    marks["K"] = 10
    assert world.trip(marks["read"](*args())) == (10,) * 9
    world.trip(world.call(marks["init"]))
    assert world.trip(marks["read"](*args())) == ("mine",) * 9
    assert world.trip(marks["make"]()) == marks["Pair"](1, 2)


def test_what_a_function_of_another_module_wraps_keeps_its_globals(world: Script) -> None:
    other = types.ModuleType("another_script")
    sys.modules[other.__name__] = other
    try:
        exec(
            "import functools\nSCALE = 'of the wrapper'\n"
            "def wrap(f):\n"
            "    @functools.wraps(f)\n"
            "    async def outer(): return SCALE, await f()\n"
            "    return outer\n",
            other.__dict__,
        )
        world.module.__dict__["wrap"] = other.__dict__["wrap"]
        world.run("@wrap\nasync def look(): return SCALE")
        assert world.trip(world.look()) == ("of the wrapper", 10)
        world.run("SCALE = 1")
        assert world.trip(world.look()) == ("of the wrapper", 1)
    finally:
        del sys.modules[other.__name__]


# ---- modules that come or change after the start


def test_folders_that_come_later_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipper = HostShipper(HostCatalog())
    (tmp_path / "comes_later.py").write_text("async def work(n):\n    return n + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import comes_later  # type: ignore[import-not-found]

    number, payload, _ = shipper.take(comes_later.work(1))
    monkeypatch.delitem(sys.modules, "comes_later")
    sys.path.remove(str(tmp_path))
    worker = WorkerCatalog()
    for line in shipper.catalog.log.lines.values():
        worker.read(line)
    called, args, *_ = open_call(worker, number, payload)
    assert asyncio.run(called(*args)) == 2


def test_a_module_that_is_loaded_again_is_loaded_again_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "is_reloaded.py"
    path.write_text("async def work():\n    return 1\n")
    ours = importlib.import_module("is_reloaded")
    shipper, worker = HostShipper(HostCatalog()), WorkerCatalog()
    reader = Reader(shipper.catalog.log)

    def trip() -> Any:
        number, payload, _ = shipper.take(ours.work())
        with pytest.MonkeyPatch.context() as patch:
            theirs = worker.__dict__.setdefault("theirs", {})
            patch.delitem(sys.modules, "is_reloaded")
            sys.modules.update(theirs)
            for line in reader.read():
                worker.read(line)
            called, args, *_ = open_call(worker, number, payload)
            theirs["is_reloaded"] = sys.modules["is_reloaded"]
        return asyncio.run(called(*args))

    assert trip() == 1
    path.write_text("async def work():\n    return 22\n")
    importlib.reload(ours)
    assert trip() == 22
    assert trip() == 22
