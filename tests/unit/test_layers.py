"""The layers: the wings' order and doors, one test file per module, a pure core."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "aioscheduler"
WORKERS = ROOT / "workers" / "aioscheduler_workers"
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}
"""By the name within the package: `_transport.wire`."""

# Each may import those before it; public modules in between are named in their place.
ORDER = (
    "errors",
    "stats",
    "_scheduling",
    "_transport",
    "retry",
    "rules",
    "options",
    "registry",
    "_shipping",
    "refs",
    "home",
    "task",
    "outcomes",
    "batch",
    "inspection",
    "inside",
    "_processes",
    "_durable",
    "_repeating",
    "repeat",
    "_routing",
    "deadletters",
    "_monitoring",
    "_outpost",
    "scheduler",
    "manager",
    "ray",
    "metrics",
    "testing",
    "top",
    "storetext",
    "storecli",
    "__main__",
)
WINGS = [name for name in ORDER if name.startswith("_") and name != "__main__"]
PURE = (
    "_scheduling.clock",
    "_scheduling.lateness",
    "_scheduling.pace",
    "_scheduling.queues",
    "_scheduling.states",
    "_scheduling.timers",
    "_transport.definitionlog",
    "_transport.entry",
    "_transport.ledger",
    "_transport.outbox",
    "_transport.wire",
    "_shipping.definitions",
    "_shipping.undolog",
    "_shipping.values",
    "_processes.budget",
    "_durable.group",
    "_durable.records",
    "_durable.offlinerecords",
    "_durable.repeatrecords",
    "_repeating.nominal",
    "_repeating.policy",
    "_repeating.terms",
    "_outpost.offset",
    "_outpost.raywords",
    "_routing.announcements",
    "_routing.book",
    "_routing.changes",
    "_routing.durables",
    "_routing.ids",
    "_routing.placement",
    "_routing.recycling",
    "_routing.requests",
    "_routing.suspects",
    "errors",
    "rules",
    "stats",
    "storetext",
)
METHODS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPURE = {"asyncio", "os", "multiprocessing", "time", "threading", "socket", "select"}
# An entry, and protocols without a body.
NOT_TESTED_ALONE = {
    "__main__",
    "home",
    "_durable.offlinerecords",
    "_routing.durables",
    "_routing.link",
    "_processes.occupant",
    "_scheduling.runner",
}


def imported(path: Path) -> set[str]:
    """The modules that a file imports: those of this package as in SOURCES, others by their top.

    Ray, which has the name of one here, is `ray, itself`.
    """
    own = path.relative_to(PACKAGE).parts[:-1] if path.is_relative_to(PACKAGE) else None
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {foreign(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                if own is None:  # the workers' own modules
                    continue
                parts = own[: len(own) + 1 - node.level] + parts
            elif parts[0] == "aioscheduler":
                parts = parts[1:]
            else:
                found.add(foreign(parts[0]))
                continue
            name = ".".join(parts)
            names = {".".join((*parts, alias.name)) for alias in node.names}
            found |= {name} if name in SOURCES else names & SOURCES.keys()
    return found


def foreign(name: str) -> str:
    top = name.split(".")[0]
    return f"{top}, itself" if top in SOURCES else top


def wing_of(name: str) -> str:
    return name.split(".")[0]


def test_imports_make_no_circle() -> None:
    graph = {name: imported(path) & SOURCES.keys() for name, path in SOURCES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(SOURCES)


def test_imports_go_one_way_between_the_wings() -> None:
    for name, path in SOURCES.items():
        place = ORDER.index(wing_of(name))
        for other in imported(path) & SOURCES.keys():
            assert ORDER.index(wing_of(other)) <= place, (name, other)


def doors(wing: str) -> set[str]:
    text = ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text())) or ""
    found = re.search(r"^Doors: (.*)\.$", text, re.MULTILINE | re.DOTALL)
    assert found, wing
    return set(re.findall(r"`(\w+)`", found[1]))


def test_who_comes_into_a_wing_comes_by_its_doors() -> None:
    used: dict[str, set[str]] = {wing: set() for wing in WINGS}
    for path in [*SOURCES.values(), *WORKERS.glob("*.py")]:
        for name in imported(path) & SOURCES.keys():
            wing, _, module = name.partition(".")
            if module and wing != path.parent.name and wing in used:
                used[wing].add(module)
    assert used == {wing: doors(wing) for wing in used}


def test_the_pure_modules_stay_pure() -> None:
    for name in PURE:
        own = imported(SOURCES[name])
        assert not own & IMPURE, name
        assert own & SOURCES.keys() <= set(PURE), name


def test_the_workers_are_named_in_one_place() -> None:
    for name, path in SOURCES.items():
        at_import = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ImportFrom)]
        assert not [node for node in at_import if "aioscheduler_workers" in ast.unparse(node)]
        named = "aioscheduler_workers" in path.read_text()
        assert named == (name == "_processes.process"), name


def test_psutil_is_asked_in_one_place() -> None:
    askers = {name for name, path in SOURCES.items() if "psutil" in imported(path)}
    assert askers == {"_monitoring.processmeter"}


def test_ray_is_imported_in_one_place() -> None:
    importers = {name for name, path in SOURCES.items() if "ray, itself" in imported(path)}
    assert importers == {"_outpost.ray_launcher"}


def test_no_program_pays_for_its_tests() -> None:
    for name, path in SOURCES.items():
        assert name == "testing" or not imported(path) & {"testing", "_processes.paired"}, name


def test_top_is_apart() -> None:
    for name, path in SOURCES.items():
        named = any(wing_of(other) == "top" for other in imported(path) & SOURCES.keys())
        assert not named or wing_of(name) in ("top", "__main__"), name


def test_every_module_says_what_it_is_for() -> None:
    for path in [*PACKAGE.rglob("*.py"), *WORKERS.glob("*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_module_and_no_class_is_too_large_to_be_read() -> None:
    """`manager` is for the most part what users read of its calls."""
    for path in [*PACKAGE.rglob("*.py"), *WORKERS.glob("*.py")]:
        text = path.read_text()
        assert path == PACKAGE / "manager.py" or len(text.splitlines()) <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                names = {each.name for each in node.body if isinstance(each, METHODS)}
                assert len(names) <= 30, (path, node.name, len(names))


@pytest.mark.parametrize("package", [PACKAGE, WORKERS], ids=["host", "workers"])
def test_every_module_has_its_tests(package: Path) -> None:
    """One file for each, in the same place; other files are for no module alone."""
    tests = ROOT / "tests" / "unit" / ("workers" if package is WORKERS else "")
    for path in package.rglob("*.py"):
        name = ".".join(path.relative_to(package).with_suffix("").parts)
        if path.name != "__init__.py" and not (package is PACKAGE and name in NOT_TESTED_ALONE):
            test = tests / path.relative_to(package).parent / f"test_{path.name}"
            assert test.is_file(), test
