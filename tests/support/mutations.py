"""Small wrong changes of the rules, each of which the simulation must find.

    python tests/support/mutations.py                    all of them
    python tests/support/mutations.py "begins unheard"   one, by its name

A mutation is a piece of text and what stands there instead, in a copy of the two packages. It shows
that the simulation can fail: that it comes to where the rule matters, and that its model knows the
promise. One whose text the source has not any more is out of date and is to be written anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("aioscheduler", "workers/aioscheduler_workers")
PATIENCE = 300.0  # seconds; what is mutated may run for ever


class OutOfDate(Exception):
    """The text that a mutation replaces does not stand in its file, or more than once."""


class Mutation(NamedTuple):
    """A wrong change.

    Attributes:
        name: Of the change.
        breaks: The promise that does not hold with it.
        file: In which it is.
        old: The text that is replaced.
        new: What stands there instead.
        seeds: Within how many it is found.
        fast: Whether it is found in a moment.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    seeds: int = 300
    fast: bool = False


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "begins unheard",
        "a task begins only when its announcement is in the pipe",
        "workers/aioscheduler_workers/worker.py",
        "self._pipe.send(started, lambda: engine.run(numbers, dues))",
        "self._pipe.send(started)\n        engine.run(numbers, dues)",
    ),
)


def make(mutation: Mutation, folder: Path) -> None:
    """Make a copy of the packages with the mutation in it.

    Raises:
        OutOfDate: The source has changed.
    """
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    file = folder / mutation.file
    source = file.read_text(encoding="utf-8")
    if source.count(mutation.old) != 1:
        raise OutOfDate(
            f"{mutation.name!r} replaces what stands {source.count(mutation.old)} times in "
            f"{mutation.file}, and not once; write it anew:\n{mutation.old}"
        )
    file.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")


def find(mutation: Mutation) -> str:
    """Simulate with a mutation; return what is found first, "" if nothing is.

    Raises:
        OutOfDate: The source has changed.
        RuntimeError: The simulation itself could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        make(mutation, folder)
        command = ["tests/support/simulate.py", "--seeds", str(mutation.seeds), "--until-bad"]
        path = os.pathsep.join((str(folder), str(folder / "workers")))
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"a seed that takes more than {PATIENCE:.0f} s"
    if done.returncode == 0:
        return ""
    if not done.stdout.startswith("seed "):
        raise RuntimeError(f"the simulation with {mutation.name!r} failed:\n{done.stderr}")
    return done.stdout.splitlines()[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of mutations; without: all")
    names = parser.parse_args().names
    escaped = 0
    for mutation in MUTATIONS:
        if not names or mutation.name in names:
            found = find(mutation)
            escaped += not found
            print(f"{mutation.name}: {found[:200] or 'ESCAPED'}", flush=True)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
