"""What travels by value, once: the log of definitions that a host writes and its workers read.

A line of the log is msgpack, one of:

    [REFERENCE, "module:qualname"]            number = position in the log
    [CODE, pickle of (code, module, whether that can be imported, imports)]
                                              number = position in the log
    [GLOBALS, module, name, payload]
    [CLASSES, payload]                        numbers of their own, inside the payload
    [VALUE, payload]                          number = position in the log: any callable

Rules of this file:

1. A function's closure and defaults are values and travel with each use; its code is a line. So
   a line of code refers to nothing, and functions that call each other make no circle.
2. All by-value functions of a module share one set of globals in a worker. A name that the
   worker has bound itself is never overwritten by what is shipped later.
3. A change that fails leaves the log and every table as they were.
4. Each worker, and each replacement, is sent the log from its beginning.
"""

from __future__ import annotations

import builtins
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Any

from .errors import NotShippable
from .failures import describe
from .names import global_names, importable, module_of, resolve, submodules
from .pickling import Catalog, SharedCode, pack
from .wire import unpack

REFERENCE, CODE, GLOBALS, CLASSES, VALUE = range(5)

_Fault = tuple[BaseException, TracebackType | None]

log = logging.getLogger("aioscheduler")

_MISSING: Any = object()
_NOT_SHIPPED = frozenset(("__builtins__", "__name__", "__loader__", "__spec__", "__cached__"))


class HostCatalog(Catalog):
    """The writing end. What may add to the log is done inside `with catalog.change():`."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[bytes] = []
        self.names: dict[int, str] = {}  # of functions, for messages
        self._adopted: dict[str | bytes, int] = {}
        self._shipped: dict[tuple[str, str], Any] = {}  # globals, by module and name
        self._to_ship: list[tuple[FunctionType, str]] = []  # globals, by user and name
        self._before: list[tuple[dict[Any, Any], Any, Any]] = []

    @contextmanager
    def change(self) -> Iterator[None]:
        """Completes what the block adds to the log, or undoes it if something cannot travel.

        Raises:
            NotShippable: A global cannot travel.
        """
        mark = len(self.log)
        try:
            yield
            # Globals come last: a class may be the value of a global that its methods look at.
            while self._to_ship:
                self._ship_global(*self._to_ship.pop())
        except BaseException:
            self._undo(mark)
            raise
        finally:
            self._to_ship.clear()
            self._before.clear()

    def fault_of(self, value: object) -> Exception | None:
        """Gives what pickling a value raises, if it does; changes nothing."""
        mark = len(self.log)
        try:
            self.pickle(value)
        except Exception as error:  # noqa: BLE001  a user's __reduce__ may raise anything
            return error
        finally:
            self._undo(mark)
            self._to_ship.clear()
            self._before.clear()
        return None

    def _undo(self, mark: int) -> None:
        del self.log[mark:]
        for table, key, before in reversed(self._before):
            if before is _MISSING:
                del table[key]
            else:
                table[key] = before

    def name_number(self, name: str) -> int:
        """Gives the number of a function that a worker can import."""
        return self.adopt(name)

    def code_number(self, function: FunctionType) -> int:
        """Gives the number of a function's code."""
        return self.code_key(function)

    def adopt(self, key: int | str | bytes) -> int:
        """Gives the number for what the `WorkerCatalog` of a worker gave."""
        if isinstance(key, int):
            return key
        number = self._adopted.get(key)
        if number is None:
            kind = REFERENCE if isinstance(key, str) else CODE
            number = self._write(kind, key)
            self._set(self._adopted, key, number)
            if isinstance(key, str):
                self._set(self.names, number, key)
        return number

    def callable_number(self, payload: bytes) -> int:
        """Gives a number to the pickle of a callable."""
        return self._write(VALUE, payload)

    def code_key(self, function: FunctionType) -> int:
        code, module = function.__code__, module_of(function)
        number = self.code_numbers.get(id(code))
        if number is not None and self.codes[number].namespace is function.__globals__:
            return number
        imports = submodules(code, function.__globals__)
        shared = importable(module)
        number = self._write(CODE, self.pickle((code, module, shared, imports)))
        self._set(self.names, number, f"{function.__module__}:{function.__qualname__}")
        self._set(self.code_numbers, id(code), number)
        self._set(self.codes, number, SharedCode(code, module, function.__globals__, (), function))
        if not shared:
            shipped = global_names(code) & function.__globals__.keys() - _NOT_SHIPPED
            self._to_ship += [(function, name) for name in sorted(shipped)]
        return number

    def is_known(self, function: FunctionType, key: int | tuple[CodeType, str]) -> bool:
        """No: a worker has the code alone."""
        return False

    def class_key(self, cls: type) -> int:
        self._write(CLASSES, self.pickle(cls, self._number_class))
        return self.class_numbers[cls]

    def namespace(self, module: str) -> dict[str, Any]:
        found = sys.modules.get(module)
        return found.__dict__ if found is not None else {}

    def _number_class(self, cls: type) -> int:
        number = len(self.class_numbers)
        self._set(self.class_numbers, cls, number)
        self._set(self.classes, number, cls)
        return number

    def _ship_global(self, user: FunctionType, name: str) -> None:
        module, value = module_of(user), user.__globals__[name]
        if self._shipped.get((module, name), _MISSING) is value:
            return
        self._set(self._shipped, (module, name), value)
        try:
            self._write(GLOBALS, module, name, self.pickle(value))
        except Exception as error:
            raise NotShippable(
                f"the global {name!r} of {module}, which {user.__qualname__}() looks at, "
                f"{cannot_travel(error, 'it')}"
            ) from error

    def _write(self, kind: int, *fields: object) -> int:
        self.log.append(pack([kind, *fields]))
        return len(self.log) - 1

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._before.append((table, key, table.get(key, _MISSING)))
        table[key] = value


class WorkerCatalog(Catalog):
    """The reading end."""

    def __init__(self) -> None:
        super().__init__()
        self._length = 0
        self._keys: dict[int, str | bytes] = {}  # names and pickles of functions
        self._functions: dict[int, Any] = {}  # those that were looked up
        self._unread: dict[int, _Fault] = {}  # lines
        self._unread_globals: dict[str, _Fault] = {}  # by name
        self._namespaces: dict[str, dict[str, Any]] = {}
        self._shipped: dict[tuple[str, str], Any] = {}

    def read(self, line: bytes) -> None:
        """Enters the next line of the log; one that cannot be read fails where it is used."""
        number = self._length
        self._length += 1
        fields: list[Any] = []
        try:
            fields = unpack(line)
            self._enter(number, *fields)
        except BaseException as error:  # noqa: BLE001  a missing module, a sys.exit() in one
            self._unread[number] = fault = error, error.__traceback__
            if fields and fields[0] == GLOBALS:
                self._unread_globals[fields[2]] = fault
            log.warning("a definition cannot be read in this worker: %s", describe(repr, error))

    def _enter(self, number: int, kind: int, *fields: Any) -> None:
        if kind == REFERENCE:
            self._keys[number] = fields[0]
        elif kind == CODE:
            code, module, shared, imports = self.decode(fields[0])
            namespace = import_module(module).__dict__ if shared else self.namespace(module)
            self.codes[number] = SharedCode(code, module, namespace, imports)
            self.code_numbers[id(code)] = number
        elif kind == GLOBALS:
            module, name, payload = fields
            namespace, value = self.namespace(module), self.decode(payload)
            before = self._shipped.get((module, name), _MISSING)
            if namespace.get(name, _MISSING) is before:
                namespace[name] = self._shipped[module, name] = value
        elif kind == CLASSES:
            self.decode(fields[0])
        else:
            self._keys[number] = fields[0]

    def function(self, number: int) -> Any:
        """Gives the function of a number.

        Raises:
            Exception: Whatever importing it raises.
        """
        found = self._functions.get(number)
        if found is None:
            key = self._keys.get(number)
            if key is None:
                found = self._code(number).function
            else:
                found = resolve(key) if isinstance(key, str) else self.decode(key)
            self._functions[number] = found
        return found

    def closure(self, number: int, contents: Sequence[Any]) -> Any:
        """Gives a function with its own contents of the closure.

        Raises:
            Exception: Whatever reading its code has raised.
        """
        return self._code(number).make(contents)

    def explain(self, error: BaseException) -> None:
        """Notes with a NameError why the global is not here, if it was sent."""
        name = error.name if isinstance(error, NameError) else None
        fault = self._unread_globals.get(name) if name is not None else None
        if fault is not None:
            error.add_note(f"it cannot be read in this worker: {describe(repr, fault[0])}")

    def _code(self, number: int) -> SharedCode:
        shared = self.codes.get(number)
        if shared is None:
            error, found_at = self._unread[number]
            raise BaseException.with_traceback(error, found_at)
        return shared

    @contextmanager
    def change(self) -> Iterator[None]:
        """Nothing is changed here; see `HostCatalog.change`."""
        yield

    def fault_of(self, value: object) -> Exception | None:
        """As `HostCatalog.fault_of`."""
        try:
            self.pickle(value)
        except Exception as error:  # noqa: BLE001  a user's __reduce__ may raise anything
            return error
        return None

    def name_number(self, name: str) -> str:
        """Gives the name, which the host makes a number of."""
        return name

    def code_number(self, function: FunctionType) -> int | bytes:
        """Gives the number that the host has given, or the pickle of a CODE line for it."""
        number = self.code_numbers.get(id(function.__code__))
        if number is not None:
            return number
        code, module = function.__code__, module_of(function)
        shared, imports = importable(module), submodules(code, function.__globals__)
        return self.pickle((code, module, shared, imports))

    def code_key(self, function: FunctionType) -> int | tuple[CodeType, str]:
        number = self.code_numbers.get(id(function.__code__))
        return (function.__code__, module_of(function)) if number is None else number

    def is_known(self, function: FunctionType, key: int | tuple[CodeType, str]) -> bool:
        """The host has the functions that it sent: they come back as themselves."""
        return isinstance(key, int) and self.codes[key].function is function

    def class_key(self, cls: type) -> None:
        """A class made in the worker: the host gets it whole."""

    def namespace(self, module: str) -> dict[str, Any]:
        namespace = self._namespaces.get(module)
        if namespace is None:
            if module == "__main__" or module not in sys.modules:
                sys.modules[module] = ModuleType(module)  # the worker's own main is of no use
                # Python gives it to modules that it imports; what imports from C looks for it.
                vars(sys.modules[module])["__builtins__"] = builtins
            namespace = self._namespaces[module] = sys.modules[module].__dict__
        return namespace


def cannot_travel(error: BaseException, own: str = "") -> str:
    """The end of a NotShippable message: why, and what to do about it.

    Args:
        error: What pickling it raised.
        own: What of a script could be in a module instead.
    """
    module = f", or put {own} in a module of its own, which each worker imports" if own else ""
    return (
        f"cannot travel to a worker process: {error}. Pass plain data (an id, a path) and open "
        f"what it names in the worker, by initializer= or in the task{module}; or use workers=0"
    )
