"""Durable functions that the host does not have, found in the worker by name and module."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioscheduler import registry
from aioscheduler._shipping.latebound import LateBound, UnknownFunction, bind

MODULE = "late_module_of_a_test"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / f"{MODULE}.py"
    sys.modules.pop(MODULE, None)


def write(path: Path, name: str) -> None:
    path.write_text(
        f"from aioscheduler import durable\n@durable({name!r}, timeout=7)\nasync def late(): ...\n"
    )


def test_the_module_is_imported_where_the_name_was_last_seen(module: Path) -> None:
    write(module, "late one")
    found = pickle.loads(LateBound("late one", f"{MODULE}:late").pickled())
    assert (found.name, found.qualname, found.options.timeout) == ("late one", f"{MODULE}:late", 7)
    assert registry.find("late one") is found


@registry.durable("late method")
async def never() -> None: ...


def test_what_is_registered_needs_no_import() -> None:
    assert bind("late method", "no.such.module:never").name == "late method"


@pytest.mark.parametrize("qualname", [f"{MODULE}:late", "no.such.module:late", "__main__:late"])
def test_a_name_that_nobody_registers_is_unknown(module: Path, qualname: str) -> None:
    write(module, "late other")
    with pytest.raises(UnknownFunction, match=r"@durable\('late missing'\)"):
        bind("late missing", qualname)


@pytest.mark.parametrize("text", ["import no_such_module_at_all", "1 / 0", "raise KeyError(1)"])
def test_an_exception_of_the_module_is_not_an_unknown_function(module: Path, text: str) -> None:
    module.write_text(text)
    with pytest.raises((ModuleNotFoundError, ZeroDivisionError, KeyError)) as caught:
        bind("late broken", f"{MODULE}:late")
    assert not isinstance(caught.value, UnknownFunction)
