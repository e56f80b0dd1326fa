"""Names of functions and classes, and whether they lead to the same object in another process."""

from __future__ import annotations

import dis
import functools
import importlib
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # ships no type information

_GLOBAL_OPS = frozenset(("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"))


@functools.cache
def importable(module: str) -> bool:
    """Return whether a fresh interpreter with this `sys.path` would import this very module."""
    if module == "__main__":
        return False
    path: list[str] | None = None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        spec = _find_spec(name, path)
        loaded = getattr(sys.modules.get(name), "__spec__", None)
        if spec is None or (loaded is not None and loaded.origin != spec.origin):
            if module in sys.modules:
                cloudpickle.register_pickle_by_value(sys.modules[module])
            return False
        try:
            path = list(spec.submodule_search_locations or ())
        except KeyError:  # a namespace package inside a package that is not loaded
            return False
    return True


def importable_name(obj: Any) -> str | None:
    """Return `module:qualname` if that leads to this very object, here and in a new process."""
    module, qualname = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if qualname is None:
        qualname = getattr(obj, "__name__", None)  # type variables have only that
    if not isinstance(module, str) or not isinstance(qualname, str):
        return None
    if "<" in qualname:  # made in a function; a module may have such a class under its name
        if not isinstance(obj, type):
            return None
        qualname = obj.__name__
    if not importable(module):
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is obj:
        return f"{module}:{qualname}"
    # A class made in a function may have been put anywhere, in this process only.
    return _home_of(obj) if isinstance(obj, type) and "<" not in obj.__qualname__ else None


_homes: weakref.WeakKeyDictionary[type, str | None] = weakref.WeakKeyDictionary()


def _home_of(cls: type) -> str | None:
    """Return where a class really is, if not where its names say (`pytest.skip.Exception`)."""
    if cls not in _homes:
        _homes[cls] = next(
            (
                f"{name}:{cls.__name__}"
                for name, module in sys.modules.copy().items()
                if isinstance(module, ModuleType)
                if vars(module).get(cls.__name__) is cls and importable(name)
            ),
            None,
        )
    return _homes[cls]


_variables: dict[ContextVar[Any], str] = {}  # names found so far


def variable_name(variable: ContextVar[Any]) -> str | None:
    """Return `module:name` of a context variable that is a global of a module; else None.

    If several modules have it, one that can be imported is preferred.
    """
    known = _variables.get(variable)
    if known is None or not _is_global(variable, *known.split(":", 1)):
        own = [name for name in sys.modules.copy() if _is_global(variable, name, variable.name)]
        names = [f"{module}:{variable.name}" for module in own] or _names_of(variable)
        if not names:
            return None
        names.sort(key=lambda name: not importable(name.partition(":")[0]))
        known = _variables[variable] = names[0]
    return known


def _is_global(variable: ContextVar[Any], module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return isinstance(loaded, ModuleType) and vars(loaded).get(name) is variable


def _names_of(variable: ContextVar[Any]) -> list[str]:
    """Return the globals bound to a variable, under whatever name."""
    return [
        f"{module}:{name}"
        for module, loaded in sys.modules.copy().items()
        if isinstance(loaded, ModuleType)
        for name, value in vars(loaded).copy().items()
        if value is variable
    ]


def module_of(function: FunctionType) -> str:
    """Return the module whose globals a function sees; a decorator may change `__module__`."""
    name = function.__globals__.get("__name__")
    return name if isinstance(name, str) else "__main__"


def is_of_module(function: FunctionType) -> bool:
    """Return whether a function's globals are those of a loaded module."""
    module = sys.modules.get(module_of(function))
    return module is not None and vars(module) is function.__globals__


def is_of_namespace(function: FunctionType) -> bool:
    """Return whether a function's globals are those of a module or script, however loaded.

    Those of a console or an `exec` have no mark, but they contain the names that their code
    defines. The globals of a generated method, as of a namedtuple, have only what it needs.
    """
    namespace = function.__globals__
    return (
        "__spec__" in namespace
        or "__file__" in namespace
        or namespace.get("__name__") in sys.modules
        or function.__qualname__.partition(".")[0] in namespace
        or any(value is function for value in namespace.values())
    )


def _find_spec(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """Find a module as `import` does, but without looking in `sys.modules` first."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except Exception:  # noqa: BLE001, S112  a third-party finder that fails finds nothing
            continue
        if spec is not None:
            return spec
    return None


def resolve(name: str) -> Any:
    """Import the object that `importable_name` has named.

    Raises:
        Exception: Whatever the import raises.
    """
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def global_names(code: CodeType) -> set[str]:
    """Return the global names that a code, or code within it, reads, binds or deletes."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname in _GLOBAL_OPS}
    return names.union(*(global_names(c) for c in code.co_consts if isinstance(c, CodeType)))


def submodules(code: CodeType, namespace: dict[str, Any]) -> list[str]:
    """Return submodules that code reaches by attribute, as `concurrent.futures`."""
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
    """Return `module.qualname` of a value's type; builtins without their module."""
    cls = type(value)
    prefix = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return prefix + cls.__qualname__
