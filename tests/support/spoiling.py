"""What a double close in a library does to a descriptor that is not its own."""

from __future__ import annotations

import os
from contextlib import suppress


def put_another(fd: int) -> None:
    """Has a descriptor, open or closed, be that of another file."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)


def close_another(fd: int) -> None:
    """Closes that file, if it was left alone, as what noticed it does."""
    with suppress(OSError):
        if os.path.samestat(os.fstat(fd), os.stat(os.devnull)):
            os.close(fd)
