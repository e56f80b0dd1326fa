"""The order of the modules, as DESIGN has it: imports go one way, the pure core stays pure."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "aioscheduler"
SOURCES = {path.stem: path for path in PACKAGE.glob("*.py")}
TOP = {path.stem: path for path in (PACKAGE / "top").glob("*.py")}
PURE = (
    *(
        "timers",
        "queues",
        "wire",
        "definitionlog",
        "ledger",
        "outbox",
        "placement",
        "clock",
        "errors",
    ),
    *("errors", "lateness", "stats"),
)
IMPURE = {"asyncio", "os", "multiprocessing", "time", "threading", "socket", "select"}


def imported(path: Path) -> set[str]:
    """The modules a file imports: those of its own package by bare name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def test_imports_make_no_circle() -> None:
    graph = {name: imported(path) & SOURCES.keys() for name, path in SOURCES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(SOURCES)


def test_top_is_apart_and_makes_no_circle() -> None:
    graph = {name: imported(path) & TOP.keys() for name, path in TOP.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(TOP)
    for name, path in SOURCES.items():
        text = path.read_text()
        assert name == "__main__" or "from .top" not in text, name


def test_the_pure_modules_stay_pure() -> None:
    for name in PURE:
        own = imported(SOURCES[name])
        assert not own & IMPURE, name
        assert own & SOURCES.keys() <= set(PURE), name


def test_the_workers_are_named_in_one_place() -> None:
    for name, path in SOURCES.items():
        at_import = {node for node in ast.parse(path.read_text()).body if is_import(node)}
        assert not [node for node in at_import if "aioscheduler_workers" in ast.unparse(node)]
        assert ("aioscheduler_workers" in path.read_text()) == (name == "process"), name


def test_psutil_is_asked_in_one_place() -> None:
    askers = {path.stem for path in PACKAGE.rglob("*.py") if "psutil" in imported(path)}
    assert askers == {"meter"}


def test_no_program_pays_for_its_tests() -> None:
    for name, path in SOURCES.items():
        assert name == "testing" or not imported(path) & {"testing", "paired"}, name


def test_every_module_says_what_it_is_for() -> None:
    for path in [*SOURCES.values(), *TOP.values(), *(ROOT / "workers").rglob("*.py")]:
        assert ast.get_docstring(ast.parse(path.read_text())), path
