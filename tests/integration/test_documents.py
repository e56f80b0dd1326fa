"""Every program in the documents runs as printed, and drawn parts are what the code draws.

A block of Python is a complete program. What it prints is the ```text block that follows, or
nothing. A block may have a title:

    ```python title="name.py"        the blocks below it on the page can import it
    ```python title="test_name.py"   is run by pytest, and name.py above it by nothing else
    ```python title="cell 1"         the cells of a page are run by IPython, as one session
    ```python title="NAME, for aioscheduler 1.4.2"    is compiled: 1.4.2 needs Python 3.10

A program with Ray is one of the tests that need nodes, and Ray may say what it wants beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r'^```python(?: title="(.*?)")?\n(.*?)^```\n(?:\n```text\n(.*?)^```)?',
    re.MULTILINE | re.DOTALL,
)
# In the shared temporary folder it may spend a minute on removing what large runs have left there.
PYTEST = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--basetemp=temporary")
IPYTHON = ("-m", "IPython", "--no-banner", "--quick", "--colors=NoColor", "-c")


class Program(NamedTuple):
    name: str
    command: tuple[str, ...]
    files: dict[str, str]
    printed: str | None
    """None: it is run by pytest, whose output is not checked."""


def programs_of(page: Path) -> list[Program]:
    found: list[Program] = []
    files: dict[str, str] = {}
    cells: list[tuple[str, str]] = []
    blocks = BLOCK.findall(page.read_text())
    titles = {title for title, _, _ in blocks}
    for number, (title, code, printed) in enumerate(blocks, 1):
        name = f"{page.stem}-{title or number}"
        if title.startswith("cell"):
            cells.append((code, printed))
        elif title.endswith("1.4.2"):
            old = ("-m", "py_compile", "old.py")
            found.append(Program(name, old, {"old.py": code}, None))
        elif not title:
            program = {**files, "program.py": code}
            found.append(Program(name, ("program.py",), program, printed))
        else:
            files[title] = code
            if title.startswith("test_"):
                found.append(Program(name, (*PYTEST, title), dict(files), None))
            elif f"test_{title}" not in titles:
                found.append(Program(name, (title,), dict(files), printed))
    if cells:
        session, printed = ("".join(parts) for parts in zip(*cells, strict=True))
        found.append(Program(f"{page.stem}-cells", (*IPYTHON, session), {}, printed))
    return found


def has_ray(program: Program) -> bool:
    return any("aioscheduler.ray" in code for code in program.files.values())


PROGRAMS = [
    pytest.param(program, marks=[pytest.mark.nodes] * has_ray(program))
    for page in PAGES
    for program in programs_of(page)
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_does_what_its_page_says(program: Program, tmp_path: Path) -> None:
    for name, code in program.files.items():
        (tmp_path / name).write_text(code)
    if has_ray(program) and find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install aioscheduler[ray]")
    # The programs use the loopback interface; IPython wants a folder of its own; and a
    # reader's pytest has no plugins.
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    env |= {"IPYTHONDIR": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env["PYTHONUNBUFFERED"] = "1"  # as at a terminal, where lines come in order
    done = subprocess.run(
        [sys.executable, *program.command],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env=env,
    )
    said = "" if has_ray(program) else done.stderr
    assert (done.returncode, said) == (0, ""), done.stdout + done.stderr
    if program.printed is not None:
        assert done.stdout == program.printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_of_python_is_overlooked(page: Path) -> None:
    text = page.read_text()
    assert len(BLOCK.findall(text)) == len(re.findall(r"^ *```py", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_a_command_on_a_page_is_that_of_ci(page: Path) -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    block = r"^ *```(?:sh|bash|console|shell)\n(.*?)^ *```"
    commands = re.findall(block, page.read_text(), re.MULTILINE | re.DOTALL)
    assert all(command.strip() in ci for command in commands)


def test_the_life_cycle_is_drawn_from_the_code() -> None:
    drawn = subprocess.run(
        [sys.executable, ROOT / "scripts" / "life_cycle.py"],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert drawn.stdout
    assert f"```text\n{drawn.stdout}```" in README


def test_ci_runs_the_command_of_the_readme() -> None:
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert commands[-1] in (ROOT / ".ci" / "run").read_text()
