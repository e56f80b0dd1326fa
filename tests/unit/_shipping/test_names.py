"""Names that lead to the same object in another process, and the names that code uses."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import socket
import sys
import types
from contextvars import ContextVar
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # ships no type information
import pytest

from aioscheduler._shipping.names import (
    global_names,
    importable,
    importable_name,
    is_of_namespace,
    module_of,
    resolve,
    submodules,
    type_name,
    variable_name,
)


def test_names_are_used_only_if_they_lead_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert importable_name(asyncio.sleep) == "asyncio.tasks:sleep"
    assert resolve("asyncio.tasks:sleep") is asyncio.sleep
    assert importable_name(collections.OrderedDict.fromkeys) is None
    assert importable_name(lambda: 0) is None
    monkeypatch.setattr(asyncio.tasks, "sleep", lambda: 0)
    assert importable_name(asyncio.sleep) is None
    assert not importable("__main__")
    assert not importable("no.such.module")
    assert importable("concurrent.futures.thread")


def test_globals_are_those_that_code_really_uses() -> None:
    def function() -> Any:
        def inner() -> Any:
            return collections.deque

        return inner, socket.timeout, [asyncio for _ in ()]

    assert global_names(function.__code__) == {"collections", "socket", "asyncio"}
    names = submodules(function.__code__, {"collections": collections, "x": 3})
    assert "collections.abc" not in names


def test_submodules_are_those_that_are_reached_by_attribute() -> None:
    def function() -> Any:
        return concurrent.futures.ThreadPoolExecutor

    found = submodules(function.__code__, {"concurrent": concurrent})
    assert found == ["concurrent.futures"]
    assert submodules(function.__code__, {"concurrent": "a word"}) == []


def test_a_class_that_a_module_shows_under_its_name_is_found_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moved = type("Moved", (), {"__module__": "asyncio", "__qualname__": "Moved"})
    assert importable_name(moved) is None
    another = type("Moved", (), {"__module__": "asyncio", "__qualname__": "Moved"})
    monkeypatch.setattr(asyncio.tasks, "Moved", another, raising=False)
    assert importable_name(another) == "asyncio.tasks:Moved"
    assert resolve("asyncio.tasks:Moved") is another


def test_a_module_that_hides_another_of_its_name_is_not_imported_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden = types.ModuleType("this")
    hidden.__spec__ = types.SimpleNamespace(origin="/elsewhere/this.py")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "this", hidden)
    importable.cache_clear()
    assert not importable("this")
    cloudpickle.unregister_pickle_by_value(hidden)  # it had been registered for pickling by value
    monkeypatch.delitem(sys.modules, "this")
    importable.cache_clear()
    assert importable("this")


def test_a_finder_that_fails_has_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def find_spec(name: str, path: Any) -> None:
            raise RuntimeError(name)

    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    importable.cache_clear()
    assert importable("json.decoder")
    assert not importable("json.no_such_thing")


def test_a_function_belongs_to_the_module_whose_globals_it_sees() -> None:
    @functools.wraps(asyncio.sleep)
    def wrapper() -> None: ...

    assert wrapper.__module__ == "asyncio.tasks"
    assert isinstance(wrapper, types.FunctionType)
    assert module_of(wrapper) == __name__
    space: dict[str, Any] = {}
    exec("def work(): return helper", space)
    assert module_of(space["work"]) == "__main__"


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"__spec__": None, "__name__": "a"}, True),
        ({"__file__": "a.py", "__name__": "a"}, True),
        ({"__name__": "asyncio"}, True),
        ({"__name__": "no_such_module"}, False),
    ],
)
def test_globals_of_a_module_are_distinguished_from_those_of_one_method(
    space: dict[str, Any], expected: bool
) -> None:
    function = types.FunctionType((lambda: 0).__code__, space, "made")
    function.__qualname__ = "made"
    assert is_of_namespace(function) is expected
    space["known"] = function  # as in a console
    assert is_of_namespace(function)


def test_types_are_named_with_their_module_unless_they_are_built_in() -> None:
    assert type_name(3) == "int"
    assert type_name(collections.Counter()) == "collections.Counter"


def module_with(name: str, monkeypatch: pytest.MonkeyPatch, **contents: object) -> None:
    module = types.ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_variable_is_found_by_the_name_of_a_module_that_can_be_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user: ContextVar[int] = ContextVar("user")  # noqa: B039
    assert variable_name(user) is None
    module_with("__main__", monkeypatch, user=user)
    assert variable_name(user) == "__main__:user"
    other: ContextVar[int] = ContextVar("user")  # noqa: B039
    assert variable_name(other) is None
    monkeypatch.setattr(asyncio.tasks, "user", other, raising=False)
    module_with("__main__", monkeypatch, user=other)
    assert variable_name(other) == "asyncio.tasks:user"
    assert variable_name(user) is None  # it was rebound


def test_a_variable_may_have_another_name_than_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    user: ContextVar[int] = ContextVar("a name of its own")  # noqa: B039
    module_with("a_script", monkeypatch, user=user)
    assert variable_name(user) == "a_script:user"
    monkeypatch.setattr(asyncio.tasks, "who", user, raising=False)
    module_with("a_script", monkeypatch)
    assert variable_name(user) == "asyncio.tasks:who"
