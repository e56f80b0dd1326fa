"""The README's programs run as printed, and its drawn parts are what the code draws."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", README, re.DOTALL)


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_prints_what_the_readme_says(program: str, printed: str, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(program)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", printed)


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
