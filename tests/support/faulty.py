"""Exceptions that are hard to ship, for `tests/unit/_shipping/test_failures.py` and its like."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any


class Described(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self.code = code


class ByKeyword(Exception):
    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Silent(ByKeyword):
    def __init__(self) -> None:
        self.status = 5


class ByKeywordOSError(OSError):
    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(7, message, "a file")
        self.status = status


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@dataclasses.dataclass(slots=True)
class SlottedData(Exception):
    code: int


class Slotted(Exception):
    __slots__ = ("code", "obj", "unset")

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code
        self.obj = "kept"


class WithLock(Exception):
    def __init__(self, code: int) -> None:
        super().__init__("with a lock", code)
        self.code = code
        self.lock = threading.Lock()
        self.inner = Described(2)
        self.inner.add_note("inner")
        self.inner.lock = threading.Lock()  # type: ignore[attr-defined]
        self.me = self


class Circular(Exception):
    def __init__(self) -> None:
        super().__init__("circular")
        self.me = self


class Reduced(Exception):
    def __init__(self, code: int, extra: str) -> None:
        super().__init__("reduced")
        self.code, self.extra = code, extra

    def __reduce__(self) -> Any:
        return Reduced, (self.code, self.extra)


class Stateful(Exception):
    def __getstate__(self) -> Any:
        return {"code": 3}


class NoSetattr(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise RuntimeError("no")


class NoGetattr(Exception):
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")


class ExitGetattr(Exception):
    def __getattr__(self, name: str) -> Any:
        raise SystemExit(1)


class NoStr(Exception):
    def __str__(self) -> str:
        raise SystemExit("no")

    __repr__ = __str__


class Propertied(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no")


class Group(ExceptionGroup[Exception]):
    code: int

    def __new__(cls, errors: Sequence[Exception], code: int) -> Group:
        self = super().__new__(cls, "grouped", errors)
        self.code = code
        return self


class Mixed(KeyError, AttributeError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")


class NoPickle(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")


class Deep(Exception):
    """An exception whose copy would be another."""

    def __reduce__(self) -> Any:
        return ValueError, ("another",)


class UnpicklableArgs(Exception):
    def __init__(self) -> None:
        super().__init__(threading.Lock())


class Base(BaseException):
    """No Exception."""


def mutated_os_error() -> OSError:
    error = OSError(2, "gone", "file")
    error.errno = 9
    return error


def mutated_exit() -> SystemExit:
    error = SystemExit(1)
    error.code = 3
    return error


def noted() -> ValueError:
    error = ValueError(1)
    error.add_note("a note")
    error.__cause__ = KeyError("why")
    return error


GOOD: list[Any] = [
    *(ValueError(), ValueError("a", 1), KeyError("k"), StopIteration(5), SystemExit(3)),
    *(OSError(2, "gone"), OSError(2, "gone", "file"), OSError(2, "gone", "a", None, "b")),
    *(OSError("text"), BlockingIOError(11, "x", 5), ImportError("m", name="n", path="p")),
    *(UnicodeDecodeError("utf8", b"\xff", 0, 1, "bad"), SyntaxError("s", ("f", 1, 2, "t"))),
    *(NameError("n", name="nn"), RecursionError(), MemoryError(), KeyboardInterrupt()),
    *(GeneratorExit(), Base(1), mutated_os_error(), mutated_exit(), noted()),
    *(ExceptionGroup("g", [ValueError(1), ByKeyword("x", status=4), OSError(2, "gone")]),),
    *(BaseExceptionGroup("g", [Base(1)]), Group([Described(1)], 5)),
    *(Described(5), ByKeyword("no", status=4), Silent(), ByKeywordOSError("x", status=3)),
    *(Frozen(5), SlottedData(6), Slotted(7), Reduced(1, "x"), NoSetattr("a")),
    *(NoGetattr("a"), ExitGetattr("b"), NoStr("c"), Mixed("name"), Propertied("d")),
]
"""These arrive as themselves: type, args and attributes."""

LESS: list[Any] = [WithLock(3)]
"""These arrive without what cannot travel."""

NOT: list[Any] = [NoPickle("a"), Deep("a"), UnpicklableArgs()]
"""These arrive as RemoteError."""
