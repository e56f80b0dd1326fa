"""A loop whose time passes when there is nothing to do before it."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class VirtualSelector(selectors.SelectSelector):
    """A selector without descriptors, which does not wait but notes how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen")
        self.passed += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.passed


class Spite(Exception):
    """Raised within an action, because the seed says so."""
