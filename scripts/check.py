"""Run every check: format, lint, types, the pages, tests. Stop at the first that fails.

With `--all-pythons` they run with every Python that pyproject.toml names and PATH has, and with
`--python` (which may be repeated) with those given, each in an environment of its own under
`build/`. Other arguments go to pytest: `scripts/check.py -k timers`. Without any, the tests that
start several Ray nodes follow, one at a time, or a note if Ray is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# -P: test the installed package, not that of the current folder.
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("mkdocs", "build", "--strict", "--site-dir", "SITE"),  # --quiet would hide its warnings
    # More at a time than there are cores, as most tests wait; the last ones are shared out.
    ("pytest", "-n", "4", "--dist", "worksteal"),
)
NODES = ("pytest", "-m", "nodes")
# mkdocs-material advertises its successor on every build.
ENVIRONMENT = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--all-pythons", action="store_true")
    parser.add_argument("--python", action="append", default=[])
    options, for_pytest = parser.parse_known_args(arguments)
    pythons = options.python + (found_pythons() if options.all_pythons else [])
    if options.all_pythons and not pythons:
        print("no Python that pyproject.toml names is on PATH", file=sys.stderr)
        return 2
    if not pythons:
        return check(for_pytest)
    for python in pythons:
        if status := check_with(python, for_pytest):
            return status
    return 0


def check(for_pytest: list[str]) -> int:
    """Run the checks with the running Python, and return the status of the first that failed."""
    with tempfile.TemporaryDirectory() as site:
        for name, *arguments in CHECKS:
            words = [name, *arguments, *(for_pytest if name == "pytest" else ())]
            status = run_module(*(site if w == "SITE" else w for w in words))
            if status:
                return status
    if for_pytest:
        return 0
    if importlib.util.find_spec("ray") is None:
        print("→ Ray is not installed: tests that need several nodes are left out", flush=True)
        return 0
    return run_module(*NODES)


def run_module(*words: str) -> int:
    print("→", *words, flush=True)
    return run(sys.executable, "-P", "-m", *words)


def check_with(python: str, for_pytest: list[str]) -> int:
    """Run the checks with another Python, in an environment made for it."""
    print("→", python, flush=True)
    # Named after the version and not the command: two may be called `python3`.
    ask = [python, "-c", "import platform; print(platform.python_version())"]
    version = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    environment = ROOT / "build" / f"python{version}"
    inside = str(environment / "bin" / "python")
    return (
        run(python, "-m", "venv", str(environment))
        or run(inside, "-m", "pip", "install", "-q", ".[test]")
        or run(inside, "scripts/check.py", *for_pytest)
    )


def found_pythons() -> list[str]:
    """Return the Pythons of pyproject.toml's classifiers that are on PATH and run."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = []
    for version in re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text):
        python = shutil.which(f"python{version}")
        # A shim of pyenv may exist and not run.
        if python and run(python, "-V") == 0:
            found.append(python)
        else:
            print(f"→ Python {version} is not on PATH: left out", flush=True)
    return found


def run(*command: str) -> int:
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
