"""Runs every check: format, lint, types, the pages, tests. Stops at the first that fails.

Arguments go to pytest: `scripts/check.py -k timers`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# -P: the package under test is the installed one, not the folder we stand in.
CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("mkdocs", "build", "--strict", "--site-dir", "SITE"),  # --quiet would hide its warnings
    ("pytest", "-n", "2", *sys.argv[1:]),  # much of it waits: two at a time
)
# mkdocs-material advertises its successor on every build.
ENVIRONMENT = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}


def main() -> int:
    with tempfile.TemporaryDirectory() as site:
        for check in CHECKS:
            print("→", *check, flush=True)
            command = [sys.executable, "-P", "-m", *(site if a == "SITE" else a for a in check)]
            status = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=False).returncode
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
