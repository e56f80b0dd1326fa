"""The reading end of the definitions: the objects that a worker makes from the lines of the log.

    line ─► code, class, value, namespace by number ─► where a pickle or a frame names it

A line that cannot be read fails where it is used, and globals that this worker has bound itself
stay. The rules are in `definitions`.
"""

from __future__ import annotations

import builtins
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, invalidate_caches, reload
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Any

from .. import registry
from .._transport import wire
from .._transport.definitionlog import FORGET
from .._transport.wire import pack, unpack
from ..options import Options
from .codec import Codec
from .definitions import CLASSES, CODE, GLOBAL, IMPORTED, MODULE, OPTIONS, PATH, RELOAD, SPACE
from .failures import describe
from .names import importable, module_of, resolve, submodules
from .payloads import make_failure, with_names
from .sharedcode import SharedCode

_Fault = tuple[BaseException, TracebackType | None]

log: logging.Logger = logging.getLogger("aioscheduler")

_MISSING: Any = object()


class WorkerCatalog(Codec):
    """The reading end."""

    def __init__(self) -> None:
        super().__init__()
        self.node: str | None = None  # the name of the machine, if not the host's
        self.codes: dict[int, SharedCode] = {}
        self._options: dict[int, Options] = {}
        self._unread_options: dict[int, Sequence[Any]] = {}
        self.code_numbers: dict[tuple[int, int], int] = {}  # by ids, which `codes` keeps alive
        self.forgotten: int = 0  # the number of classes forgotten
        self.confirmed: int = 0  # the serial of the last FORGET
        self._class_lines: dict[int, int] = {}  # by number of the class
        self._line_classes: dict[int, range] = {}
        self._keys: dict[int, str | bytes] = {}  # names and pickles of functions
        self._functions: dict[int, Any] = {}  # functions looked up so far
        self._unread: dict[int, _Fault] = {}  # by line
        self._unread_globals: dict[str, _Fault] = {}  # by name
        self._namespaces: dict[str, dict[str, Any]] = {}
        self._spaces: dict[int, dict[str, Any]] = {}
        self._space_numbers: dict[int, int] = {}  # by id of the namespace
        self._shipped: dict[tuple[int, str], Any] = {}
        self._kept: set[tuple[int, str]] = set()  # globals that this worker has bound itself

    def read(self, line: bytes) -> None:
        """Enter the next line of the log; one that cannot be read fails where it is used."""
        fields: list[Any] = []
        known = len(self.classes)
        try:
            fields = unpack(line)
            self._enter(*fields)
        except BaseException as error:  # noqa: BLE001  a missing module, a sys.exit() in one
            fault = error, error.__traceback__
            if len(fields) > 1:
                self._unread[fields[1]] = fault
            if fields and fields[0] == GLOBAL:
                self._unread_globals[fields[3]] = fault
            begun = list(self.classes)[known:]  # half made: no class is better than a wrong one
            what = self._describe(fields, [self.classes[number].__qualname__ for number in begun])
            for number in begun:
                self.class_numbers.pop(self.classes.pop(number))
            log.warning("%s cannot be read in this worker: %s", what, describe(repr, error))

    def _describe(self, fields: Sequence[Any], classes: Sequence[str]) -> str:
        """Return what a line defines, as far as it can be read."""
        match fields:
            case [kind, _, str(module), *_] if kind in (SPACE, RELOAD):
                return f"the module {module}"
            case [kind, _, int(space), *rest] if kind in (GLOBAL, CODE):
                module = self._spaces.get(space, {}).get("__name__", "a module that is missing")
                return (
                    f"code of {module}" if kind == CODE else f"the global {rest[0]!r} of {module}"
                )
        return f"the class {' or '.join(classes)}" if classes else "a definition"

    def _enter(self, kind: int, number: int, *fields: Any) -> None:
        if kind == CODE:
            space, payload, durable = fields
            contents = self._space(space)
            code, imports = self.decode(payload)
            if durable is not None:  # the decorator is not called here
                name, qualname, once, *options, retry = durable
                read = Options._make([*options, retry and self.decode(retry)])
                registry.adopt(code, name, qualname, once, read)
            self.codes[number] = SharedCode(code, contents, imports)
            self.code_numbers[id(code), id(contents)] = number
        elif kind == GLOBAL:
            self._bind(*fields)
        elif kind == CLASSES:
            payload, first, count = fields
            self._line_classes[number] = range(first, first + count)
            self._class_lines |= dict.fromkeys(range(first, first + count), number)
            self.decode(payload)
        elif kind == SPACE:
            self._define_space(number, *fields)
        elif kind == PATH:
            folders = [folder.decode("utf-8", "surrogatepass") for folder in fields[0]]
            sys.path += [folder for folder in folders if folder not in sys.path]
            invalidate_caches()
        elif kind == OPTIONS:
            # A `Retry` is read when a task needs it: what it names may need the initializer.
            self._unread_options[number] = fields
        elif kind == FORGET:
            for line in fields[0]:
                self._forget(line)
            self.confirmed = number
        elif kind == RELOAD:
            if fields[0] in sys.modules:  # else its import will read the present version
                reload(sys.modules[fields[0]])
        else:
            self._keys[number] = fields[0]

    def _forget(self, line: int) -> None:
        """Forget what a line defines; running tasks may still hold it."""
        for table in (self._keys, self._functions, self._unread, self._options):
            table.pop(line, None)
        self._unread_options.pop(line, None)
        shared = self.codes.pop(line, None)
        if shared is not None:
            self.code_numbers.pop((id(shared.code), id(shared.namespace)), None)
        for number in self._line_classes.pop(line, ()):
            del self._class_lines[number]
            self.forgotten += 1
            if number in self.classes:  # else it could not be defined
                self.class_numbers.pop(self.classes.pop(number))
        contents = self._spaces.pop(line, None)
        if contents is not None:
            del self._space_numbers[id(contents)]
            self._kept = {key for key in self._kept if key[0] != line}
            self._shipped = {k: value for k, value in self._shipped.items() if k[0] != line}

    def _define_space(self, number: int, module: str, how: int, package: str | None) -> None:
        if how == IMPORTED:
            contents = import_module(module).__dict__
        elif how == MODULE:
            contents = self._namespace_of_its_own(module)
        else:
            contents = _new_module(module).__dict__
        if how != IMPORTED:
            if contents.get("__package__") is None:
                contents["__package__"] = package
            # These attributes of a new module do not count as bound by this worker.
            self._shipped[number, "__package__"] = package
            self._shipped[number, "__doc__"] = None
        self._spaces[number] = contents
        self._space_numbers[id(contents)] = number

    def _space(self, number: int) -> dict[str, Any]:
        if number not in self._spaces:
            error, found_at = self._unread[number]
            raise BaseException.with_traceback(error, found_at)
        return self._spaces[number]

    def _bind(self, space: int, name: str, payload: wire.Payload) -> None:
        """Set a global, unless this worker has bound the name itself."""
        contents, value = self._space(space), self.decode(payload)
        before = self._shipped.get((space, name), _MISSING)
        if contents.get(name, _MISSING) is before:
            contents[name] = self._shipped[space, name] = value
        elif (space, name) not in self._kept:
            self._kept.add((space, name))
            log.info(
                "the global %r of %s keeps the value that this worker has bound it to",
                name,
                contents["__name__"],
            )

    def function(self, number: int) -> Any:
        """Return the function of a number.

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

    def find_options(self, number: int) -> Options:
        """Return the options of a number.

        Raises:
            Exception: Whatever reading their `Retry` raises.
        """
        found = self._options.get(number)
        if found is None:
            *others, retry = self._unread_options[number]
            found = self._options[number] = Options._make([*others, self.decode(retry)])
            del self._unread_options[number]
        return found

    def closure(self, number: int, contents: Sequence[Any]) -> Any:
        """Return a function with these contents of its closure.

        Raises:
            Exception: Whatever reading its code has raised.
        """
        return self._code(number).make(contents)

    def explain(self, error: BaseException) -> None:
        """Add a note to a NameError: why a global that was sent is missing.

        On another machine than the host's, also note on a missing module where it is missing.
        """
        if self.node is not None and isinstance(error, ModuleNotFoundError):
            error.add_note(
                f"on node {self.node}: what tasks import must be installed there, or sent there "
                "(runtime_env)"
            )
        name = error.name if isinstance(error, NameError) else None
        fault = self._unread_globals.get(name) if name is not None else None
        if fault is not None:
            error.add_note(f"it cannot be read in this worker: {describe(repr, fault[0])}")

    def _code(self, number: int) -> SharedCode:
        shared = self.codes.get(number)
        if shared is None:
            if number not in self._unread:
                raise LookupError("this worker no longer has the code of the function")
            error, found_at = self._unread[number]
            raise BaseException.with_traceback(error, found_at)
        return shared

    @contextmanager
    def change(self) -> Iterator[None]:
        """Do nothing: a worker writes no log; see `HostCatalog.change`."""
        yield

    def refresh(self, function: object = None) -> None:
        """Do nothing: a worker ships no globals; see `HostCatalog.refresh`."""

    def pickle(self, value: object) -> bytes:
        """Pickle as `Codec.pickle` does, preceded by the lines that it names, for the host."""
        return with_names(*self.dump(value))

    def pickle_failure(self, error: BaseException, text: str, some: bool) -> bytes:
        """Return the payload of a failure, for the host.

        Args:
            error: What was raised.
            text: Its traceback.
            some: Whether exceptions in it lose the attributes that cannot travel.
        """
        payload, lines = self.dump_some(error) if some else self.dump(error)
        return make_failure(text, payload, lines)

    def fault_of(self, value: object) -> Exception | None:
        """Return what pickling a value raises, None if it does not."""
        try:
            self.pickle(value)
        except Exception as error:  # noqa: BLE001  a user's __reduce__ may raise anything
            return error
        return None

    def options_number(self, options: Options) -> Sequence[Any]:
        """Return the fields of options, to which the host gives a number."""
        retry = options.retry
        return options if retry is None else [*options[:-1], self.pickle(retry)]

    def name_number(self, name: str, function: FunctionType) -> str:
        """Return the name, to which the host gives a number."""
        return name

    def code_number(self, function: FunctionType) -> int | bytes:
        """Return the number that the host has given, or the fields of a CODE line for it."""
        code, contents = function.__code__, function.__globals__
        number = self.code_numbers.get((id(code), id(contents)))
        if number is not None:
            return number
        where = self._space_numbers.get(id(contents), module_of(function))
        name = f"{function.__module__}:{function.__qualname__}"
        return pack([where, self.pickle((code, submodules(code, contents))), name])

    def code_key(self, function: FunctionType) -> int | tuple[CodeType, str]:
        number = self.code_numbers.get((id(function.__code__), id(function.__globals__)))
        return (function.__code__, module_of(function)) if number is None else number

    def is_known(self, function: FunctionType, key: int | tuple[CodeType, str]) -> bool:
        """Return whether the host sent the function: it returns as itself."""
        return isinstance(key, int) and self.codes[key].function is function

    def shared_function(self, number: int) -> Any:
        return self._code(number).function

    def class_key(self, cls: type) -> None:
        """Return None: a class made in the worker is pickled in full."""

    def class_of(self, number: int) -> type:
        raise LookupError("a class could not be defined in this process; its log says why")

    def is_complete(self, cls: type) -> bool:
        """Return False: a class may be defined in parts."""
        return False

    def line_of_class(self, cls: type) -> int:
        return self._class_lines[self.class_numbers[cls]]

    def namespace(self, module: str) -> dict[str, Any]:
        # For a by-value function of a module that another worker has imported.
        if module not in self._namespaces and module not in sys.modules and importable(module):
            return import_module(module).__dict__
        return self._namespace_of_its_own(module)

    def _namespace_of_its_own(self, module: str) -> dict[str, Any]:
        namespace = self._namespaces.get(module)
        if namespace is None:
            if module == "__main__" or module not in sys.modules:
                sys.modules[module] = _new_module(module)  # the worker's own __main__ is no use
            namespace = self._namespaces[module] = sys.modules[module].__dict__
        return namespace


def _new_module(name: str) -> ModuleType:
    module = ModuleType(name)
    # Python sets it in modules that it imports; imports from C code need it.
    vars(module)["__builtins__"] = builtins
    return module
