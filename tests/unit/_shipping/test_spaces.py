"""The globals of by-value functions: which are shared, and when they are released."""

from __future__ import annotations

import functools
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from scripted import Script

from aioscheduler._shipping.spaces import Spaces, function_in, looks_at
from aioscheduler._shipping.undolog import UndoLog
from aioscheduler._transport.definitionlog import DefinitionLog


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


def test_a_call_costs_the_same_however_many_namespaces_there_are(world: Script) -> None:
    """Only its own namespace is checked, and those of modules."""
    functions = []
    for n in range(30):
        scope: dict[str, Any] = {"__name__": f"plugin{n}", "STEP": n}
        exec("async def work(n): return n + STEP", scope)
        functions.append(scope["work"])
        assert world.trip(scope["work"](1)) == n + 1
    for space in world.host.catalog._spaces._apart.values():
        if space.module != "plugin3":
            space.bound = None  # type: ignore[assignment]  # it would raise
    world.host.catalog.refresh(functions[3])
    world.host.catalog.refresh(world.echo)
    functions[3].__globals__["STEP"] = 100
    assert world.trip(functions[3](1)) == 101


def test_a_task_that_waits_has_its_globals_though_their_namespace_is_gone(world: Script) -> None:
    scope: dict[str, Any] = {"STEP": 7}
    exec("async def work(n): return n + STEP", scope)
    task = world.host.take(scope["work"](1))
    scope.clear()
    world.forget()
    world.begin()  # the next process
    assert world.host.catalog.decode_result(world.run_there(task)) == 8


class Calls:
    def __call__(self) -> None: ...


def test_the_function_that_is_called_is_found_under_whatever_is_around_it() -> None:
    calls = Calls()
    method = functools.partial(functools.partial(calls.__call__), 1)
    for called in (Calls.__call__, calls, calls.__call__, method):
        assert function_in(called) is Calls.__call__
    assert not isinstance(function_in(len), types.FunctionType)


LOOKS = """
import threading
def here(): return SCALE
def through(): return here()
def captures():
    def inner(): return through()
    return inner
class Shop:
    def price(self): return 1
def by_class(): return Shop
def nowhere(): return threading
"""


@pytest.mark.parametrize(
    ("code", "looks"),
    [("here", 1), ("through", 1), ("captures()", 1), ("by_class", 1), ("nowhere", 0)],
)
def test_the_users_of_a_global_are_known(world: Script, code: str, looks: bool) -> None:
    world.run(LOOKS)
    space = Spaces(DefinitionLog(), UndoLog()).define(world.module.__name__)
    assert looks_at(eval(code, world.module.__dict__), space, "SCALE") == bool(looks)


def test_a_space_that_was_undone_is_not_known(world: Script) -> None:
    undo = UndoLog()
    spaces = Spaces(DefinitionLog(), undo)
    apart: dict[str, Any] = {}
    exec("def work(): pass", apart)
    for function in (world.call, apart["work"]):
        space = spaces.define("script_of_mine", function.__globals__)
        assert spaces.find(function) is space
        assert spaces.numbered(space.number) is space
        undo.undo()
        undo.clear()
        assert spaces.find(function) is None
    assert spaces.find(len) is None
