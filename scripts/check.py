"""Runs every check of the project: format, lint, types, tests. Stops at the first that fails.

Arguments go to pytest: `scripts/check.py -k timers`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# -P: the package under test is the installed one, not the folder we stand in.
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("pytest", *sys.argv[1:]),
)


def main() -> int:
    for check in CHECKS:
        print("→", *check, flush=True)
        status = subprocess.run(
            [sys.executable, "-P", "-m", *check], cwd=ROOT, check=False
        ).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
