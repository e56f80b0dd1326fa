"""Type checkers judge a user's program as it runs: correct code passes, each mistake is found.

`tests/typing/right.py` must have no error, and `wrong.py` one on each line with an ignore, as an
unneeded ignore is an error, too. Pyright, which reads mypy's ignores, is used where it is
installed: `pip install pyright`.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import aioscheduler
from aioscheduler import Manager
from aioscheduler.manager import ManagerOptions

pytestmark = pytest.mark.timeout(120)  # a checker computes all the time

PROGRAMS = Path(__file__).parents[1] / "typing"
PACKAGE = Path(aioscheduler.__file__).parent
# The Python that runs the tests is the first one that a checker finds.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
PUBLIC = (
    "manager",
    "scheduler",
    "task",
    "batch",
    "inside",
    "errors",
    "stats",
    "metrics",
    "testing",
)


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": PATH, **environment},
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    shutil.copytree(PROGRAMS, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = shutil.which("pyright", path=PATH)
    if found is None:
        pytest.skip("pyright is not installed")
    if run([found, "--version"], tmp_path_factory.mktemp("pyright")).returncode:
        pytest.skip("pyright does not run here: it needs Node, and the network at its first start")
    return found


def test_mypy_judges_right(program: Path) -> None:
    mypy = [sys.executable, "-P", "-m", "mypy", "--config-file=", "--cache-dir=cache"]
    strict = ["--strict", "--warn-unused-ignores", "--follow-imports=silent"]
    # Mypy refuses paths of installed packages.
    path = "" if str(PACKAGE.parent) in site.getsitepackages() else str(PACKAGE.parent)
    done = run([*mypy, *strict, "right.py", "wrong.py"], program, MYPYPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_judges_right(program: Path, pyright: str) -> None:
    config = {
        "include": ["right.py", "wrong.py"],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (program / "pyrightconfig.json").write_text(json.dumps(config))
    done = run([pyright], program, PYTHONPATH=str(PACKAGE.parent))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_are_complete(tmp_path: Path, pyright: str) -> None:
    command = [pyright, "--verifytypes", "aioscheduler", "--ignoreexternal", "--outputjson"]
    done = run(command, tmp_path, PYTHONPATH=str(PACKAGE.parent))
    found: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    assert found["packageRootDirectory"] == str(PACKAGE)
    exported = [symbol for symbol in found["symbols"] if symbol["isExported"]]
    assert len(exported) > 1000
    assert found["completenessScore"] > 0.985
    unknown = {s["name"] for s in exported if s["isTypeAmbiguous"] or not s["isTypeKnown"]}
    known = {name for name in dir(aioscheduler) if name[0].isupper()} | set(PUBLIC)
    assert {name for name in unknown if name.split(".")[1] in known} == set()


def test_mistakes_are_marked_and_nothing_else_is() -> None:
    lines = (PROGRAMS / "wrong.py").read_text().splitlines()
    assert sum(line.endswith("  # type: ignore") for line in lines) > 30
    assert "type: ignore" not in (PROGRAMS / "right.py").read_text()


def test_the_options_of_a_manager_are_what_it_takes() -> None:
    """Its overloads name them by `ManagerOptions`, in one place."""
    parameters = inspect.signature(Manager).parameters.values()
    by_keyword = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert by_keyword == set(get_type_hints(ManagerOptions))


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
