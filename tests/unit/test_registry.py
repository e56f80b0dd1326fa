"""The registry of durable functions: names, and refusals."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import operator
import sys
import types
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aioscheduler import NotShippable, Retry, registry
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._scheduling.order import Order
from aioscheduler.errors import NotDurable
from aioscheduler.options import Options
from aioscheduler.registry import (
    adopt,
    check_plain,
    durable,
    find,
    of_code,
    of_coroutine,
    of_function,
    read_durable_options,
)


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of this test's own."""
    for table, made in (("_names", dict), ("_functions", dict), ("_codes", dict)):
        monkeypatch.setattr(registry, table, made())
    monkeypatch.setattr(registry, "_shared", set())
    monkeypatch.setattr(registry, "_alive", [])


async def work(number: int = 0) -> int:
    return number


async def other(number: int = 0) -> int:
    return number


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any) -> Any:
        return await function(*args)

    return wrapper


@traced
async def wrapped(number: int) -> int:
    return number


@traced
async def wrapped_too(number: int) -> int:
    return number


def name_of_call(coro: Any) -> str | None:
    """Return the registered name of a coroutine's function."""
    found = of_coroutine(coro)
    coro.close()
    return found and found.name


# ---- registering


def test_a_function_is_found_by_its_name_by_itself_and_by_its_coroutine() -> None:
    assert durable("work")(work) is work
    found = find("work")
    assert found is not None
    assert found == ("work", work, f"{__name__}:work", Options(), False)
    assert of_function(work) is found
    assert name_of_call(work()) == "work"
    assert find("other") is of_function(other) is None
    assert name_of_call(other()) is None
    assert work.__dict__ == {}  # else it would travel by value from a script


def test_without_any_nothing_is_found() -> None:
    assert name_of_call(work()) is None
    assert of_coroutine(7) is None
    check_plain(work)


def test_other_awaitables_are_none() -> None:
    durable("work")(work)
    assert of_coroutine(7) is None
    assert of_coroutine(work) is None


def test_it_has_options() -> None:
    retry = Retry(attempts=5)
    durable("work", timeout=30, retry=retry, max_lateness=timedelta(minutes=1), on_loss="fail")(
        work
    )
    found = find("work")
    assert found is not None
    assert found.options == Options(None, 30.0, 60 * SECOND, retry)
    assert found.once


@pytest.mark.parametrize(
    ("error", "match", "given"),
    [
        (TypeError, "timeout", {"timeout": "long"}),
        (ValueError, "timeout", {"timeout": 0}),
        (TypeError, r"Retry\(attempts=3\)", {"retry": Retry}),
        (ValueError, '"rerun" or "fail", not \'again\'', {"on_loss": "again"}),
        (ValueError, '"rerun" or "fail"', {"on_loss": None}),
    ],
)
def test_wrong_options_are_refused(error: type[Exception], match: str, given: Any) -> None:
    with pytest.raises(error, match=match):
        durable("work", **given)


def test_a_name_is_a_text() -> None:
    with pytest.raises(TypeError, match=r'write @durable\("name"\)'):
        durable(work)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name is a str, not int"):
        durable(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be empty"):
        durable("")
    with pytest.raises(ValueError, match="cannot be written down"):
        durable("\ud800")


def test_a_call_gives_a_name_and_its_function_the_rest() -> None:
    durable("work", timeout=3)(work)
    found = find("work")
    assert found is not None
    assert read_durable_options(found, {}, Order.TIMED) == Options(None, 3.0)
    assert read_durable_options(found, {"name": "one"}, Order.FIFO) == Options("one", 3.0)
    for given in ({"timeout": 1}, {"retry": Retry()}, {"max_lateness": 0}):
        option = next(iter(given))
        with pytest.raises(TypeError, match=rf"@durable\('work', {option}=\.\.\.\)"):
            read_durable_options(found, given, Order.TIMED)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be empty"):
        read_durable_options(found, {"name": ""}, Order.TIMED)


def test_what_may_be_late_is_not_for_a_queue() -> None:
    durable("work", max_lateness=3)(work)
    found = find("work")
    assert found is not None
    assert read_durable_options(found, {}, Order.TIMED).max_lateness == 3 * SECOND
    with pytest.raises(TypeError, match=r"@durable\('work'\) has a max_lateness"):
        read_durable_options(found, {}, Order.FIFO)


# ---- refusals: not a function, or impossible to find again


class Called:
    async def __call__(self) -> None: ...


def plain() -> Any:
    return work()


async def generate() -> Any:
    yield 1


@types.coroutine
def old_style() -> Any:
    yield


WRONG: list[Any] = [
    staticmethod(work),
    classmethod(work),  # type: ignore[arg-type]
    functools.partial(work, 1),
    Called,
    Called(),
    Called().__call__,
    plain,
    generate,
    old_style,
    asyncio.Future,
    7,
    None,
]


@pytest.mark.parametrize("made", WRONG, ids=lambda made: type(made).__name__)
def test_what_is_no_async_function_is_refused(made: Any) -> None:
    with pytest.raises(TypeError, match="put @durable next to the def") as caught:
        durable("work")(made)
    assert not isinstance(caught.value, NotDurable)
    assert find("work") is None


def test_what_is_made_in_a_function_is_refused() -> None:
    async def local() -> None: ...

    def untidy(function: Any) -> Any:
        async def wrapper() -> None:
            await function()

        return wrapper

    for made in (local, untidy(work), lambda: work()):
        with pytest.raises(NotDurable, match="at the top of a module") as caught:
            durable("work")(made)
        assert isinstance(caught.value, NotShippable)
        assert find("work") is of_function(made) is None


# ---- one name, one function


def test_another_function_of_the_same_name_is_refused() -> None:
    durable("work")(work)
    with pytest.raises(ValueError, match=r"test_registry:work is durable as 'work' already, and "):
        durable("work")(other)
    found = find("work")
    assert found is not None
    assert found.function is work
    assert name_of_call(other()) is None


def test_another_name_of_the_same_function_is_refused() -> None:
    durable("work")(work)
    with pytest.raises(ValueError, match="is durable as 'work' already: if tasks in the file"):
        durable("job")(work)
    assert find("job") is None


def test_the_same_function_again_has_new_options() -> None:
    durable("work", timeout=1)(work)
    durable("work", timeout=2)(work)
    for found in (find("work"), of_function(work)):
        assert found is not None
        assert found.options.timeout == 2


CELL = """
from aioscheduler.registry import durable
@durable("cell", timeout={})
async def cell(): return {}
"""


def test_what_is_defined_again_replaces_what_it_was() -> None:
    """As in a notebook or by a reload; whoever still holds the old one means the new one."""
    contents: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL.format(1, 1), contents)
    old = contents["cell"]
    for again in range(2, 20):
        exec(CELL.format(again, again), contents)
        gc.collect()
    found = find("cell")
    assert found is not None
    assert (found.function, found.options.timeout) == (contents["cell"], 19)
    assert of_function(old) is of_function(contents["cell"]) is found
    for function in (old, contents["cell"]):
        coro = function()
        assert of_coroutine(coro) is found
        coro.close()


def test_what_is_known_is_kept_alive() -> None:
    contents: dict[str, Any] = {"__name__": "__main__"}
    exec(CELL.format(1, 1), contents)
    first, code = weakref.ref(contents["cell"]), weakref.ref(contents["cell"].__code__)
    exec(CELL.format(2, 2), contents)
    gc.collect()
    assert first() is not None
    first().__code__ = types.CodeType.replace(work.__code__)  # type: ignore[union-attr]  # as tools
    gc.collect()
    assert code() is not None


SCRIPT = """
from aioscheduler.registry import durable
@durable("remind", timeout=3)
async def remind(): ...
class Bot:
    @durable("send")
    async def send(self): return __class__
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Executes a script as a module of any name."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)

    def load(name: str, spec_of_main: str | None = None) -> Any:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        if name == "__main__":
            module.__spec__ = spec_of_main and types.SimpleNamespace(name=spec_of_main)  # type: ignore[assignment]
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize("first", ["__main__", "script"])
def test_a_script_that_is_imported_besides_is_one(load: Callable[..., Any], first: str) -> None:
    """The importable one is chosen, as the next host may have another script."""
    modules = {first: load(first)}
    second = "script" if first == "__main__" else "__main__"
    modules[second] = load(second)
    for name, path in (("remind", "remind"), ("send", "Bot.send")):
        found = find(name)
        assert found is not None
        assert found.qualname == f"script:{path}"
        get = operator.attrgetter(path)
        assert found.function is get(modules["script"])
        for module in modules.values():
            assert of_function(get(module)) is of_code(get(module).__code__) is found
            coro = get(module)() if name == "remind" else module.Bot().send()
            assert name_of_call(coro) == name


def test_a_module_under_two_names_is_one(load: Callable[..., Any]) -> None:
    load("pkg.script")
    module = load("script")
    found = find("remind")
    assert found is not None
    assert (found.qualname, found.function) == ("script:remind", module.remind)


def test_a_module_that_is_run_has_the_name_by_which_it_is_imported(
    load: Callable[..., Any],
) -> None:
    load("__main__", "pkg.script")
    assert find("remind")[2] == "pkg.script:remind"  # type: ignore[index]
    module = load("pkg.script")
    assert find("remind")[1:3] == (module.remind, "pkg.script:remind")  # type: ignore[index]


def test_what_a_decorator_of_the_script_itself_makes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker would mistake anything that the decorator makes for it."""
    made = traced(work)
    made.__module__ = "__main__"
    for name in (None, "pkg.script"):  # it is run by `python -m`
        spec = name and types.SimpleNamespace(name=name)
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
        with pytest.raises(NotDurable, match="move the function to a module of its own"):
            durable("work")(made)
    assert find("work") is None


def test_a_code_of_many_is_nobodys() -> None:
    durable("wrapped")(wrapped)
    assert of_code(wrapped.__code__) is None
    durable("work")(work)
    assert of_code(work.__code__) is find("work")


def test_a_code_that_came_from_a_host_is_known() -> None:
    adopt(other.__code__, "other", "__main__:other", True, Options(timeout=3.0))
    coro = other()
    found = of_coroutine(coro)
    coro.close()
    assert found is not None
    assert (found.name, found.qualname, found.options, found.once) == (
        "other",
        "__main__:other",
        Options(timeout=3.0),
        True,
    )
    with pytest.raises(LookupError, match="only by its code"):
        found.function(1)


def test_what_is_typed_is_of_no_file() -> None:
    exec(CELL.format(1, 1), {"__name__": "one"})
    with pytest.raises(ValueError, match="one:cell is durable as 'cell' already, and two:cell"):
        exec(CELL.format(1, 1), {"__name__": "two"})


# ---- methods, and codes that several functions share


class Base:
    async def greet(self) -> str:
        return "base"

    @classmethod
    async def make(cls) -> Base:
        return cls()


class Derived(Base):
    async def greet(self) -> str:
        return "derived " + await super().greet()


class Heir(Derived):
    pass


def test_methods_are_found_where_they_are_inherited_and_not_where_they_are_overridden() -> None:
    durable("greet")(Derived.greet)
    assert Derived.greet.__code__.co_freevars == ("__class__",)
    assert name_of_call(Heir().greet()) == name_of_call(Derived().greet()) == "greet"
    assert name_of_call(Base().greet()) is None
    durable("make")(vars(Base)["make"].__func__)
    assert name_of_call(Heir.make()) == "make"


def test_functions_of_a_decorator_are_distinguished_although_they_share_one_code() -> None:
    durable("wrapped")(wrapped)
    assert name_of_call(wrapped(1)) == "wrapped"
    assert name_of_call(wrapped_too(1)) is None
    durable("too")(wrapped_too)
    assert [name_of_call(wrapped(work)), name_of_call(wrapped_too(1))] == ["wrapped", "too"]


def test_functions_of_a_loop_are_distinguished_although_they_share_one_code() -> None:
    contents: dict[str, Any] = {"__name__": "__main__", "durable": durable, "made": []}
    code = "for name in 'ab':\n    @durable(name)\n    async def work(): ...\n    made.append(work)"
    exec(code, contents)
    assert [name_of_call(each()) for each in contents["made"]] == ["a", "b"]


def test_a_decorator_over_it_that_is_no_coroutine_function_changes_nothing() -> None:
    durable("work")(work)
    assert name_of_call(plain()) == "work"
    assert name_of_call(functools.partial(work, 1)()) == "work"


# ---- wrappers, whose tasks would be in memory only


def test_what_wraps_a_durable_function_is_refused_with_both_decorators() -> None:
    durable("work")(work)
    match = (
        r"test_registry:work is what @traced makes of \S*test_registry:work, which "
        r'@durable\("work"\) registers, .* put @durable\("work"\) above @traced'
    )
    with pytest.raises(NotDurable, match=match):
        check_plain(traced(work))
    with pytest.raises(NotDurable, match="@traced"):
        check_plain(traced(traced(functools.partial(functools.partial(work, 1)))))


def test_what_names_it_as_wrapped_is_refused() -> None:
    durable("work")(work)

    async def lazy() -> None: ...

    lazy.__wrapped__ = work  # type: ignore[attr-defined]
    with pytest.raises(NotDurable, match="another decorator|@test_what_names"):
        check_plain(lazy)
    other.__wrapped__ = lazy  # type: ignore[attr-defined]
    try:
        with pytest.raises(NotDurable, match="is what another decorator makes of"):
            check_plain(other)
    finally:
        del other.__wrapped__  # type: ignore[attr-defined]


def test_partials_and_bound_methods_of_it_are_refused() -> None:
    durable("work")(work)
    durable("greet")(Derived.greet)
    for called in (functools.partial(work, 1), Heir().greet, functools.partial(Heir().greet)):
        with pytest.raises(NotDurable, match="give the function itself, with all of its argu"):
            check_plain(called)


def test_what_wraps_nothing_durable_passes() -> None:
    class Proxy:
        """An unbound proxy of a library: any attribute access raises."""

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError

    def call(value: Any) -> Any:
        async def called() -> Any:
            return value, called  # a cycle

        return called

    durable("work")(work)
    durable("wrapped")(wrapped)
    for function in (work, wrapped, other, traced(other), call(Proxy()), call([work]), len, 7):
        check_plain(function)

    def late() -> None:
        empty()

    check_plain(late)  # its cell is still empty
    empty = late


def test_a_long_chain_is_followed() -> None:
    durable("work")(work)
    function: Any = work
    for _ in range(5000):
        function = traced(function)
    with pytest.raises(NotDurable, match="traced"):
        check_plain(function)
