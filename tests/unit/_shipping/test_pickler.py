"""Objects that go by name, by number, or not at all."""

from __future__ import annotations

import fractions
import importlib
import signal
import typing
from pathlib import Path
from typing import Any

import pytest
from scripted import Script

from aioscheduler._shipping.names import importable_name
from aioscheduler._shipping.sharedcode import EMPTY
from aioscheduler.errors import NotShippable

SENTINELS = {
    "its class": "class Kind:\n    def __reduce__(self): return 'MISSING'\nMISSING = Kind()",
    "its class, by protocol": "class Kind:\n    def __reduce_ex__(self, protocol): return 'MISSING'"
    "\nMISSING = Kind()",
    "its module": "MISSING = Sentinel(); MISSING.__module__ = __name__",
}


class Sentinel:
    """A sentinel like those of libraries, which are told their module."""

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
    assert not world.host.catalog.class_numbers  # that would be a copy's


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
    lying.Local = _make_class("Local", object)  # no other process finds it there
    lying.Local.__module__ = "builtins"
    assert importable_name(lying.Local) is None


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


VARIABLES = """
from contextvars import ContextVar
user = ContextVar("user")
odd = ContextVar("another name", default=[])
async def look(): return user.get("nobody"), odd.get()
async def take(variable): return variable is user, variable is odd, variable.name
async def give(): return user
async def set_both(variable):
    variable.set("ann")
    return await look()
def local():
    inside = ContextVar("inside")
    async def see(): return inside.get()
    return see
async def keep(): user.set(user)
"""


def test_a_variable_of_a_script_is_one_in_its_worker(world: Script) -> None:
    world.run(VARIABLES)
    assert world.trip(world.take(world.user)) == (True, False, "user")
    assert world.trip(world.take(world.odd)) == (False, True, "another name")
    assert world.trip(world.set_both(world.user)) == ("ann", [])
    assert world.trip(world.give()) is world.user
    assert world.trip(world.look()) == ("nobody", [])  # each task has its own context
    world.begin()
    assert world.trip(world.take(world.user)) == (True, False, "user")


RETURNING = """
async def see(): return user.get()
async def return_it(variable): return variable
"""


def test_a_variable_that_is_bound_anew_is_another_one_there_too(world: Script) -> None:
    world.run(VARIABLES + RETURNING)
    known = [world.user]
    assert world.trip(world.look()) == ("nobody", [])
    for word in ("second", "third", "of a replacement"):
        world.run(f"user = ContextVar('user', default={word!r})")
        if word == "of a replacement":
            world.begin()
        known.append(world.user)
        assert world.trip(world.see()) == word
        assert world.trip(world.give()) is world.user
        for variable in known:
            is_user = variable is world.user
            assert world.trip(world.take(variable)) == (is_user, False, "user")
            assert world.trip(world.return_it(variable)) is variable


def test_a_variable_of_a_module_is_that_of_the_module(
    world: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(VARIABLES)
    monkeypatch.setattr(fractions, "user", world.user, raising=False)
    payload = world.host.catalog.pickle(world.user)
    assert b"fractions:user" in payload
    assert world.worker.decode(payload) is world.user


def test_a_variable_that_is_in_no_module_is_refused_with_what_to_do(world: Script) -> None:
    world.run(VARIABLES)
    with pytest.raises(NotShippable, match="variable 'inside' .*no longer, a global of a module"):
        world.trip(world.local()())
