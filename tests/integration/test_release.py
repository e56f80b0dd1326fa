"""The wheel of a release works without the source, in a fresh environment."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

import aioscheduler

pytest.importorskip("hatchling", reason="hatchling, of the extra `test`, builds the wheel")

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio
from datetime import timedelta
from aioscheduler import Manager, __file__, __version__, current_task

async def work(n: int) -> tuple[int, int]:
    return current_task().worker, n

async def main() -> None:
    async with Manager(workers=2) as manager:
        soon = timedelta(milliseconds=1)
        found = await asyncio.gather(*(manager.schedule(work(n), soon) for n in range(8)))
    print(__file__, __version__, *(n for _, n in found), sorted({worker for worker, _ in found}))

asyncio.run(main())
"""


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command in a folder without our source, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, folder: Path, *options: str) -> list[str]:
    """Build a distribution, and return the names of its files."""
    run([sys.executable, "-m", "hatchling", "build", "-d", folder, *options], source)
    (file,) = folder.iterdir()
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return sorted(wheel.namelist())
    with tarfile.open(file) as sdist:
        return sorted(name.split("/", 1)[1] for name in sdist.getnames())


def read_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(files.read(name).decode())


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_wheel_works_without_its_source(tmp_path: Path) -> None:
    names = build(ROOT, tmp_path / "wheel", "-t", "wheel")
    assert {"aioscheduler/py.typed", "aioscheduler_workers/py.typed"} <= set(names)
    kinds = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert kinds == {"aioscheduler", "aioscheduler_workers"}

    (wheel,) = (tmp_path / "wheel").iterdir()
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps"]
    run([*pip, "--no-index", wheel], tmp_path)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    # Dependencies come from the running Python, behind what was installed.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))

    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    printed = run([python, program], tmp_path).split(maxsplit=2)
    assert printed[0] == str(packages / "aioscheduler" / "__init__.py")
    assert printed[1:] == [aioscheduler.__version__, "0 1 2 3 4 5 6 7 [0, 1]\n"]
    assert "usage: aioscheduler" in run([python, "-m", "aioscheduler", "--help"], tmp_path)
    top = run([environment / "bin" / "aioscheduler", "top", "--help"], tmp_path)
    assert "usage: aioscheduler top" in top

    metadata = read_metadata(wheel)
    assert metadata["Version"] == aioscheduler.__version__
    readme = str(metadata.get_payload())
    assert "# aioscheduler\n" in readme
    assert re.findall(r"\]\((?!https?://|#).*|^\[\d+\]: (?!http).*", readme, re.MULTILINE) == []


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_sdist_makes_the_same_wheel_and_can_be_checked(tmp_path: Path) -> None:
    names = build(ROOT, tmp_path / "sdist", "-t", "sdist")
    tracked = {"scripts/check.py", "tests/conftest.py", "docs/guide.md", ".ci/run", "mkdocs.yml"}
    assert tracked < set(names)
    (sdist,) = (tmp_path / "sdist").iterdir()
    shutil.unpack_archive(sdist, tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = build(source, tmp_path / "again", "-t", "wheel")
    assert again == build(ROOT, tmp_path / "wheel", "-t", "wheel")


@pytest.fixture
def hook() -> Any:
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = """![a picture](docs/a.png)

See [the guide](docs/guide.md), [the web](https://example.org) and [below](#below) ([1]).

[1]: tests/test_a.py "test_one"
"""


def test_an_index_is_given_links_that_lead_somewhere(hook: Any) -> None:
    assert hook.for_index(PAGE, "https://example.org/a") == (
        "![a picture](https://example.org/a/raw/HEAD/docs/a.png)\n\n"
        "See [the guide](https://example.org/a/blob/HEAD/docs/guide.md), "
        "[the web](https://example.org) and [below](#below) ([1]).\n\n"
        '[1]: https://example.org/a/blob/HEAD/tests/test_a.py "test_one"\n'
    )


def test_without_a_place_on_the_web_there_are_no_local_links(hook: Any) -> None:
    assert hook.for_index(PAGE, None) == (
        "See the guide, [the web](https://example.org) and [below](#below).\n\n"
    )
