"""Every program in the documents runs as printed, and drawn parts are what the code draws.

A block of Python is a complete program. What it prints is the ```text block that follows, or
nothing. A block may have a title:

    ```python title="name.py"        the blocks below it on the page can import it
    ```python title="test_name.py"   is run by pytest
    ```python title="cell 1"         the cells of a page are run by IPython, as one session
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r'^```python(?: title="(.*?)")?\n(.*?)^```\n(?:\n```text\n(.*?)^```)?', re.M | re.S
)
PYTEST = ("-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
IPYTHON = ("-m", "IPython", "--no-banner", "--quick", "--colors=NoColor", "-c")


class Program(NamedTuple):
    page: Path
    title: str
    code: str
    printed: str
    files: dict[str, str]
    """What stands above it on the page, under its titles."""


def programs_of(page: Path) -> list[Program]:
    found: list[Program] = []
    files: dict[str, str] = {}
    cells: list[Program] = []
    for title, code, printed in BLOCK.findall(page.read_text()):
        program = Program(page, title, code, printed, dict(files))
        if title.startswith("cell"):
            cells.append(program)
            continue
        if title:
            files[title] = code
        # A module with a test below it is run by that test.
        if f'title="test_{title}"' not in page.read_text():
            found.append(program)
    if cells:
        session, printed = "\n".join(c.code for c in cells), "".join(c.printed for c in cells)
        found.append(Program(page, "cells", session, printed, {}))
    return found


PROGRAMS = [program for page in PAGES for program in programs_of(page)]


def command(program: Program) -> tuple[str, ...]:
    if program.title == "cells":
        return (*IPYTHON, program.code)
    if program.title.startswith("test_"):
        return (*PYTEST, program.title)
    return (program.title or "program.py",)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(program, id=f"{program.page.stem}-{program.title or number}")
        for number, program in enumerate(PROGRAMS)
    ],
)
def test_a_program_does_what_its_page_says(program: Program, tmp_path: Path) -> None:
    for name, code in {**program.files, program.title or "program.py": program.code}.items():
        (tmp_path / name).write_text(code)
    # The programs talk to the loopback interface; IPython wants a folder of its own, and a
    # reader's pytest has no plugins.
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    env |= {"IPYTHONDIR": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [sys.executable, *command(program)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env=env,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    if not program.title.startswith("test_"):
        assert done.stdout == program.printed


def test_every_block_of_python_is_found() -> None:
    for page in PAGES:
        text = page.read_text()
        assert len(BLOCK.findall(text)) == len(re.findall(r"^ *```(?:py|python)\b", text, re.M)), (
            page
        )
    assert len(PROGRAMS) > 20


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


def test_the_other_pages_give_no_commands_of_their_own() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for page in PAGES[1:]:
        for commands in re.findall(
            r"^ *```(?:sh|bash|console|shell)\n(.*?)^ *```", page.read_text(), re.M | re.S
        ):
            assert commands.strip() in ci, page
