"""By-value classes are known by identity, as long as they live."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextvars import ContextVar, copy_context
from types import ModuleType
from typing import Any

import pytest
from scripted import Script

from aioscheduler._shipping.catalog import ClassTable
from aioscheduler._shipping.workercatalog import WorkerCatalog

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


def test_a_table_has_a_class_as_long_as_it_lives() -> None:
    table: ClassTable[int] = ClassTable()
    made = [type("Made", (), {}) for _ in range(3)]
    for number, cls in enumerate(made):
        table[cls] = number
    assert [table[cls] for cls in made] == [0, 1, 2]
    assert (table.pop(made[0]), table.pop(made[0], "none"), table.get(made[0])) == (0, "none", None)
    assert (made[0] in table, made[1] in table, len(table)) == (False, True, 2)
    del made, cls
    gc.collect()
    assert len(table) == 0


def test_what_a_worker_imports_goes_by_name_and_the_rest_by_its_code(world: Script) -> None:
    world.run("def local(): return SCALE")
    host, worker = world.host.catalog, world.worker
    by_name: Any = asyncio.sleep
    with host.change():
        numbers = [host.function_number(f) for f in (by_name, world.local)]
    world.tell()
    assert worker.function(numbers[0]) is asyncio.sleep
    assert worker.function(numbers[1])() == 10
    assert worker.function_number(by_name) == "asyncio.tasks:sleep"


def test_a_variable_is_made_once_and_known_by_its_name() -> None:
    catalog = WorkerCatalog()
    made = catalog.variable("a_script:user", "a name", ())
    assert catalog.variable("a_script:user", "a name", ()) is made
    assert made.name == "a name"
    assert made.get("no default") == "no default"
    assert catalog.variable_key(made) == "a_script:user"
    other = catalog.variable("a_script:other", "a name", (5,))
    assert (other is made, other.get()) == (False, 5)
    assert other not in copy_context()


def test_a_variable_of_the_program_itself_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    script = ModuleType("a_script")
    script.user = user = ContextVar("user")  # type: ignore[attr-defined,var-annotated]
    script.odd = 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_script", script)
    catalog = WorkerCatalog()
    assert catalog.variable("a_script:user", "user", ()) is user
    assert catalog.variable("a_script:odd", "odd", ()).name == "odd"
