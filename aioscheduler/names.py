"""Names of functions and classes: which of them lead to the same thing in another process."""

from __future__ import annotations

import dis
import functools
import importlib
import sys
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # ships no type information

_GLOBAL_OPS = frozenset(("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"))


@functools.cache
def importable(module: str) -> bool:
    """Whether a fresh interpreter, with this one's `sys.path`, can import a module."""
    root = module.partition(".")[0]
    if root == "__main__":
        return False
    for finder in sys.meta_path:
        try:
            if finder.find_spec(root, None) is not None:
                return True
        except Exception:  # noqa: BLE001, S112  a finder of somebody else's: no answer is a no
            continue
    if module in sys.modules:
        cloudpickle.register_pickle_by_value(sys.modules[module])
    return False


def importable_name(obj: Any) -> str | None:
    """Gives `module:qualname` if that leads to this very object, here and in a new process."""
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or "<" in qualname:
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not obj or not importable(module):
        return None
    return f"{module}:{qualname}"


def resolve(name: str) -> Any:
    """Imports what `importable_name` named.

    Raises:
        Exception: Whatever the import raises.
    """
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def global_names(code: CodeType) -> set[str]:
    """The global names that a code, or code within it, reads, binds or deletes."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL_OPS}
    return names.union(*(global_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def submodules(code: CodeType, namespace: dict[str, Any]) -> list[str]:
    """The submodules that code reaches by attribute: `concurrent.futures` of `concurrent`."""
    words = set(_words(code))
    return [
        name
        for root in sorted(words)
        if isinstance(namespace.get(root), ModuleType)
        for name in sorted(sys.modules)
        if name.startswith(f"{namespace[root].__name__}.")
        and words.issuperset(name.removeprefix(f"{namespace[root].__name__}.").split("."))
    ]


def _words(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _words(constant)


def type_name(value: object) -> str:
    """`module.qualname` of a value's type; builtins without their module."""
    cls = type(value)
    prefix = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return prefix + cls.__qualname__
