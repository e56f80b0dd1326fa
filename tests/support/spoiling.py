"""The effect of a double close in a library on a descriptor that is not its own."""

from __future__ import annotations

import os
from contextlib import suppress


def put_another(fd: int) -> None:
    """Make a descriptor, open or closed, that of another file."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)


def close_another(fd: int) -> None:
    """Close that file, which whoever noticed the change must have left alone."""
    with suppress(OSError):
        if os.path.samestat(os.fstat(fd), os.stat(os.devnull)):
            os.close(fd)
