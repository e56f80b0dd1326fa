"""Enumerations go by value: members keep their identity, and none of their code runs."""

from __future__ import annotations

import asyncio

import pytest
from scripted import Script

from aioscheduler.errors import NotShippable

SCRIPT = """
import dataclasses, enum

SCALE = 10
"""


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


def test_flags_in_combination_travel(enums: Script) -> None:
    enums.run(
        "class Named(enum.Flag):\n    __reduce_ex__ = enum.pickle_by_enum_name\n    A=1\n    B=2"
    )
    for value in (enums.Perm.R | enums.Perm.W, ~enums.Perm.R, enums.Bits(9), enums.Bits(16),
                  enums.Perm(0), enums.Named.A | enums.Named.B):  # fmt: skip
        (back,) = enums.trip(enums.echo(value))
        assert type(back) is type(value)
        assert back == value


def test_members_that_cannot_be_recreated_are_refused(enums: Script) -> None:
    enums.run("class Odd(list, enum.Enum):\n    A = [1]\n    __hash__ = object.__hash__")
    with pytest.raises(NotShippable, match="the members of the enumeration Odd are made from a li"):
        enums.trip(enums.echo(enums.Odd.A))
