"""Programs that take orders, print what they have done, and are killed."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO


class Program:
    """A Python program in another process.

    Args:
        script: Its file, in this folder.
        args: Its arguments.
        folder: Its working directory.
    """

    def __init__(self, script: str, *args: object, folder: Path | None = None) -> None:
        command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, args)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )

    @property
    def output(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def hear(self) -> str:
        return self.output.readline().rstrip("\n")

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Make it close the store."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.hear() == "closed"
        assert self.process.wait(30) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        self.kill()
        self.output.close()
        with suppress(BrokenPipeError):
            assert self.process.stdin is not None
            self.process.stdin.close()
