"""What travels by value, once: the log of definitions that a host writes and its workers read.

A line of the log (`definitionlog`) is msgpack: a kind, its number, and the fields.

    [REFERENCE, n, "module:qualname"]         a function that is found by name
    [SPACE, n, module, how, package]          the globals of by-value functions, see `_Space`
    [CODE, n, space, pickle of (code, imports)]
    [GLOBAL, n, space, name, payload]
    [CLASSES, n, payload, first, count]       with numbers of their own, from `first`
    [VALUE, n, payload]                       any callable
    [PATH, n, folders]                        of modules, added since the host has begun
    [RELOAD, n, module]                       the host has loaded it again
    [OPTIONS, n, ...]                         the fields of `Options`
    [FORGET, serial, numbers]                 of lines that nothing uses any more

Rules of this file:

1. A function's closure and defaults are values and travel with each use; its code is a line. So
   a line of code refers to nothing, and functions that call each other make no circle.
2. All by-value functions that share globals in the host share them in a worker.
3. What was bound anew is noticed when a function is called that sees the namespace, or any module.
   A worker remembers what was shipped under a name. While the name still holds that, what the
   host has rebound takes its place; what the worker has bound itself is never overwritten.
4. A change that fails leaves the log and every table as they were.
5. Each worker, and each replacement, is sent the log from its beginning.
6. A value is there once, however often it is mapped. Values, codes and classes are there as long
   as something uses them (`Lease`); the last few idle values stay, to be mapped again. Names, and
   the globals of modules, stay: there are as many as the program has. A namespace that is no
   module's goes with its program: it is known by a mark in it (`_Mark`), and not kept here.
7. The host knows its codes and classes weakly. One that its program has dropped, and an outcome
   names, is made again from its line, as in a worker.
"""

from __future__ import annotations

import builtins
import functools
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib import import_module, invalidate_caches, reload
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, TracebackType
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from .._transport import wire
from .._transport.definitionlog import FORGET, DefinitionLog
from .._transport.wire import pack, unpack
from ..errors import NotShippable
from ..options import Options
from .classgarbage import ClassGarbage
from .failures import describe
from .names import global_names, importable, importable_name, module_of, resolve, submodules
from .pickling import Catalog, ClassTable, SharedCode, with_names

REFERENCE, CODE, GLOBAL, CLASSES, VALUE, SPACE, PATH, RELOAD = range(8)
OPTIONS = FORGET + 1
IMPORTED, MODULE, DETACHED = range(3)
IDLE_VALUES = 4  # that are kept though no task uses them

_Fault = tuple[BaseException, TracebackType | None]

log: logging.Logger = logging.getLogger("aioscheduler")

_MISSING: Any = object()
_MARK = "__aioscheduler__"  # the name of a mark in a namespace, beside Python's `__builtins__`
_NOT_SHIPPED = frozenset(
    ("__builtins__", "__name__", "__loader__", "__spec__", "__cached__", _MARK)
)


class _Space:
    """The globals of by-value functions, as the host knows them.

    Args:
        number: Of the line that defines it.
        module: Its name.
        how: IMPORTED: a worker imports the module, for functions in functions; MODULE: it has the
            module's name there, too; DETACHED: another has the name, or nobody, as when a script
            is run by `runpy` or `exec`.
        contents: The globals.

    Attributes:
        codes: The numbers of the codes that see them, by id, as long as these live.
    """

    def __init__(self, number: int, module: str, how: int, contents: dict[str, Any]) -> None:
        self.number = number  # a lease, if it may go
        self.module = module
        self.how = how
        self.contents = contents
        self.codes: dict[int, int] = {}
        self.shipped: dict[str, tuple[Any, str]] = {}  # value, user
        self.bound: list[tuple[str, Any]] = []  # of what was shipped, for `refresh`
        self.unbound: list[str] = []

    def look(self) -> None:
        """Prepare for `refresh`, which costs 20 to 30 ns a name, modules among them."""
        self.bound = [
            (name, value) for name, (value, _) in self.shipped.items() if name in self.contents
        ]
        self.unbound = [name for name in self.shipped if name not in self.contents]

    def reads(self, code: CodeType) -> set[str]:
        """The names to be shipped for a code."""
        names = global_names(code) & self.contents.keys() - _NOT_SHIPPED
        if self.how == IMPORTED:
            # Not from the source: pytest puts such names into the modules that it rewrites.
            return {name for name in names if not name.isidentifier()}
        return names


class _Mark:
    """Is put into a namespace that is no module's, to know it again.

    Who knows it keeps it only as long as its program does: the mark, the space and the namespace
    are a circle, which goes as one.
    """

    def __init__(self, of: int = 0) -> None:
        self.of = of  # the namespace's id: a copy has this mark, too
        self.spaces: WeakKeyDictionary[HostCatalog, _Space] = WeakKeyDictionary()

    def __reduce__(self) -> Any:  # who ships all of a namespace
        return _Mark, ()


class HostCatalog(Catalog):
    """The writing end. What may add to the log is done inside `with catalog.change():`."""

    def __init__(self) -> None:
        super().__init__()
        self.log: DefinitionLog = DefinitionLog()
        self.names: dict[int, str] = {}  # of functions, for messages
        self.classes: WeakValueDictionary[int, type] = WeakValueDictionary()
        self._class_leases: ClassTable[int] = ClassTable()
        self._class_lines: dict[int, int] = {}  # by number of the class
        self._next_class = 0
        self._garbage = ClassGarbage()
        self._functions: WeakValueDictionary[int, FunctionType] = WeakValueDictionary()
        self._codes: dict[int, ref[CodeType]] = {}
        self.options: dict[int, Options] = {}
        self._options: dict[Options, int] = {}  # the other way round
        self._adopted: dict[str | bytes, int] = {}
        self._adopted_as: dict[int, bytes] = {}  # the other way round, of codes
        self._spaces: dict[int, _Space] = {}  # of modules, by id of the globals
        self._spaces_apart: WeakValueDictionary[int, _Space] = WeakValueDictionary()  # by number
        self._codes_apart: dict[int, set[int]] = {}  # their codes, by number, too
        self._has_apart = False  # whether there was one, ever
        self._watched: list[_Space] = []  # of modules, with something that may be rebound
        self._loaded: dict[str, CodeType] = {}  # what a name led to when it was first shipped
        self._path = list(sys.path)
        self._values: dict[bytes, int] = {}  # by digest
        self._digests: dict[int, bytes] = {}  # the other way round
        self._idle: dict[int, None] = {}  # values that nobody uses, the longest idle first
        self._to_ship: list[tuple[_Space, str, str]] = []  # globals, with their users
        self._touched: list[_Space] = []  # by what was shipped
        self._changes = False  # a change is under way
        self._mark = 0  # the next line's number when it began
        self._before: list[tuple[Any, Any, Any]] = []

    @contextmanager
    def change(self) -> Iterator[None]:
        """Completes what the block adds to the log, or undoes it if something cannot travel.

        Raises:
            NotShippable: A global cannot travel.
        """
        self._begin()
        if len(sys.path) != len(self._path):
            self.log.write(PATH, [folder for folder in sys.path if folder not in self._path])
            self._path = list(sys.path)
            self._mark = self.log.next
        try:
            yield
            # Globals come last: a class may be the value of a global that its methods look at.
            if self._to_ship:
                while self._to_ship:
                    self._ship_global(*self._to_ship.pop())
                for space in self._touched:
                    space.look()
        except BaseException:
            self._undo()
            raise
        finally:
            self._end()

    def _begin(self) -> None:
        """Begin a change. None begins within another, whose end is not known yet.

        Raises:
            NotShippable: One is under way.
        """
        if self._changes:
            raise NotShippable(
                "this was called while another call was being pickled, by a __getstate__, "
                "__reduce__ or __del__ of what it has to do with; have that use loop.call_soon()"
            )
        self._changes = True
        self._mark = self.log.next

    def _end(self) -> None:
        self._to_ship.clear()
        self._touched.clear()
        self._before.clear()
        self._changes = False
        if self.log.next > self._mark:
            self._garbage.note(self._next_class)
        if self.log.returned:
            self.forget_unused()

    def refresh(self, function: object = None) -> None:
        """Ships what has been rebound; at each call of a function that travels by value.

        Args:
            function: The one that is called. What it does not look at may be what cannot travel.

        Raises:
            NotShippable: It cannot travel.
        """
        spaces = self._watched
        if self._has_apart:
            apart = self._find_space(_function_in(function), apart=True)
            if apart is not None:
                spaces = [*spaces, apart]
        try:
            for space in spaces:
                contents = space.contents
                for name, value in space.bound:
                    if contents[name] is not value:
                        raise KeyError
                for name in space.unbound:
                    if name in contents:
                        raise KeyError
        except KeyError:
            pass
        else:
            return
        rebound = [
            (space, name, user)
            for space in spaces
            for name, (value, user) in space.shipped.items()
            if space.contents.get(name, value) is not value
        ]
        for space, name, user in rebound:
            try:
                with self.change():
                    self._to_ship.append((space, name, user))
            except NotShippable:
                if not isinstance(function, FunctionType) or _looks_at(function, space, name):
                    raise
        for space in spaces:
            space.look()

    def _find_space(self, function: object, apart: bool = False) -> _Space | None:
        """Gives the space of a function's globals, if they have one.

        Args:
            function: The function; anything else has none.
            apart: Only of a namespace that is no module's.
        """
        if not isinstance(function, FunctionType):
            return None
        contents = function.__globals__
        space = None if apart else self._spaces.get(id(contents))
        if space is None:
            mark = contents.get(_MARK)
            if isinstance(mark, _Mark) and mark.of == id(contents):
                return mark.spaces.get(self)
        return space

    def fault_of(self, value: object) -> Exception | None:
        """Gives what pickling a value raises, if it does; changes nothing."""
        self._begin()
        try:
            self.pickle(value)
        except Exception as error:  # noqa: BLE001  a user's __reduce__ may raise anything
            return error
        finally:
            self._undo()
            self._end()
        return None

    def _undo(self) -> None:
        for table, key, before in reversed(self._before):
            if before is _MISSING:
                table.pop(key, None)
            else:
                table[key] = before
        for number in range(self._mark, self.log.next):
            self.log.drop(number)  # no reader has seen it
        self._watched = [space for space in self._watched if space.shipped]
        for space in self._touched:
            space.look()

    def name_number(self, name: str, function: FunctionType) -> int:
        """Gives the number of a function that a worker can import."""
        code = self._loaded.get(name)
        if code is None:
            self._set(self._loaded, name, function.__code__)
        elif code is not function.__code__:  # loaded again, as by importlib.reload
            self.log.write(RELOAD, name.partition(":")[0])
            self._set(self._loaded, name, function.__code__)
            self._before.append((self._adopted, name, self._adopted.pop(name, _MISSING)))
        return self.adopt(name)

    def code_number(self, function: FunctionType) -> int:
        """Gives the number of a function's code."""
        return self.code_key(function)

    def adopt(self, key: int | str | bytes) -> int:
        """Gives the number, leased, for what the `WorkerCatalog` of a worker gave."""
        if isinstance(key, int):
            return self.log.lease(key)
        number = self._adopted.get(key)
        if number is None:
            if isinstance(key, str):
                number = self.log.write(REFERENCE, key)
                self._set(self.names, number, key)
            else:
                where, payload, name = unpack(key)
                space = self.log.lease(where) if type(where) is int else self._space(where).number
                number = self.log.write(CODE, space, payload, names=(space,))
                self._codes_apart.get(int(space), set()).add(number)
                self._set(self._adopted_as, number, key)
                self._set(self.names, number, name)
            self._set(self._adopted, key, number)
        return self.log.lease(number)

    def options_number(self, options: Options) -> int:
        """Gives a number, leased, to the options of a task; the same to equal ones."""
        number = self._options.get(options)
        if number is None:
            number = self.log.write(OPTIONS, *options, names=())
            self._set(self._options, options, number)
            self._set(self.options, number, options)
        return self.log.lease(number)

    def callable_number(self, payload: bytes, lines: list[int]) -> int:
        """Gives a number, leased, to the pickle of a callable.

        Args:
            payload: The pickle.
            lines: What it names.
        """
        digest = blake2b(payload, digest_size=16).digest()
        number = self._values.get(digest)
        if number is None:
            number = self.log.write(VALUE, payload, names=lines)
            self._set(self._values, digest, number)
            self._set(self._digests, number, digest)
        self._idle.pop(number, None)
        return self.log.lease(number)

    def forget_unused(self) -> None:
        """Retire the lines that nothing uses, but for a few values; drop what no worker knows."""
        for number in self.log.unused():
            if number not in self._digests:
                self.log.retire(number)
                continue
            self._idle[number] = None
            if len(self._idle) > IDLE_VALUES:
                longest = next(iter(self._idle))
                del self._idle[longest], self._values[self._digests.pop(longest)]
                self.log.retire(longest)
        for number in self.log.forgotten():
            self._forget(number)

    def forget_namespaces(self) -> None:
        """Let namespaces go that are garbage here, and that no task needs any more.

        Their line keeps their globals for tasks that wait; a global may be a function of theirs.
        """
        gone = self._codes_apart.keys() - self._spaces_apart.keys()
        for number in gone & self.log.keeps.keys():
            if not self.log.is_used_beyond(self._codes_apart[number], number):
                del self.log.keeps[number]

    def _forget(self, number: int) -> None:
        kind, _, *fields = unpack(self.log.drop(number))
        if kind == CODE:
            for table in (self.names, self._codes):
                table.pop(number, None)
            self._adopted.pop(self._adopted_as.pop(number, b""), None)
            self._codes_apart.get(fields[0], set()).discard(number)
        elif kind == CLASSES:
            _, first, count = fields
            for part in range(first, first + count):
                del self._class_lines[part]
        elif kind == SPACE:
            self._codes_apart.pop(number, None)
        elif kind == OPTIONS:
            del self._options[self.options.pop(number)]

    def code_key(self, function: FunctionType) -> int:
        code, contents = function.__code__, function.__globals__
        space = self._find_space(function)
        number = space.codes.get(id(code)) if space is not None else None
        if number is not None:
            return number
        if space is None:
            space = self._space(module_of(function), contents)
        payload = self.pickle((code, submodules(code, contents)))
        line = self.log.write(CODE, space.number, payload, names=(space.number,))
        number = self.log.lease(line)
        self._set(self.names, line, f"{function.__module__}:{function.__qualname__}")
        self._before += [(space.codes, id(code), _MISSING), (self._codes, line, _MISSING)]
        self._know(number, function, space)
        if space.how == DETACHED:
            self._codes_apart[int(space.number)].add(line)
        user = f"{function.__qualname__}()"
        self._to_ship += [(space, name, user) for name in sorted(space.reads(code))]
        return number

    def _know(self, number: int, function: FunctionType, space: _Space) -> None:
        """Remembers a function, and that its code has this number, until they are garbage."""
        code, codes = function.__code__, space.codes
        key = id(code)
        codes[key] = number
        self._codes[int(number)] = ref(code, lambda _: codes.pop(key, None))
        if not code.co_freevars:
            self._functions[int(number)] = function

    def shared_function(self, number: int) -> Any:
        function = self._functions.get(number)
        if function is not None:
            return function
        line = self.log.lines.get(number)
        where, payload = unpack(line)[2:] if line is not None else (-1, b"")
        spaces = *self._spaces.values(), *self._spaces_apart.values()
        space = next((space for space in spaces if space.number == where), None)
        if space is None:
            raise LookupError(_DROPPED)
        known = self._codes.get(number)
        code = known() if known is not None else None
        if code is None:
            code, _ = self.decode(payload)
        function = SharedCode(code, space.contents).function
        self._know(self.log.lease(number), function, space)
        return function

    def _space(self, module: str, contents: dict[str, Any] | None = None) -> _Space:
        """Defines a space: of a module, or of these globals."""
        loaded = sys.modules.get(module)
        own = vars(loaded) if loaded is not None else None
        if contents is None:
            contents = own if own is not None else {}
        how = DETACHED if contents is not own else IMPORTED if importable(module) else MODULE
        package = contents.get("__package__")  # relative imports look for it, unseen in the code
        package = package if isinstance(package, str) else None
        if how != DETACHED:
            number = self.log.write(SPACE, module, how, package)
            space = _Space(number, module, how, contents)
            self._set(self._spaces, id(contents), space)
            return space
        number = self.log.lease(self.log.write(SPACE, module, how, package, names=()))
        space = _Space(number, module, how, contents)
        mark = contents.get(_MARK)
        if not isinstance(mark, _Mark) or mark.of != id(contents):
            mark = contents[_MARK] = _Mark(id(contents))
        self._set(mark.spaces, self, space)
        self._spaces_apart[int(number)] = space
        self._set(self._codes_apart, int(number), set())
        self._has_apart = True
        return space

    def is_known(self, function: FunctionType, key: int | tuple[CodeType, str]) -> bool:
        """No: a worker has the code alone."""
        return False

    def class_key(self, cls: type) -> int:
        first, made = self._next_class, []

        def give_number(part: type) -> int:
            number = self._next_class
            self._next_class += 1
            self._set(self.class_numbers, part, number)
            self._set(self.classes, number, part)
            made.append(part)
            return number

        payload, lines = self.dump(cls, give_number)
        line = self.log.write(CLASSES, payload, first, len(made), names=lines)
        for number, part in enumerate(made, first):
            self._set(self._class_lines, number, line)
            self._set(self._class_leases, part, self.log.lease(line))
        known: int = self.class_numbers[cls]
        return known

    def class_of(self, number: int) -> type:
        line = self.log.lines.get(self._class_lines.get(number, -1))
        if line is None:
            raise LookupError(_DROPPED)
        made = self.decode(unpack(line)[2])
        cls = self.classes.get(number)
        if cls is None:
            raise LookupError(f"{made!r} is made again without the class that is asked for")
        return cls

    def is_complete(self, cls: type) -> bool:
        """Yes, if it is the program's own: what it is now, its definition does not know."""
        return cls in self._class_leases

    def line_of_class(self, cls: type) -> int:
        lease: int | None = self._class_leases.get(cls)
        if lease is None:  # it was made again
            lease = self.log.lease(self._class_lines[self.class_numbers[cls]])
            self._class_leases[cls] = lease
        return lease

    def namespace(self, module: str) -> dict[str, Any]:
        found = sys.modules.get(module)
        return found.__dict__ if found is not None else {}

    def _ship_global(self, space: _Space, name: str, user: str) -> None:
        value = space.contents[name]
        before, _ = space.shipped.get(name, (_MISSING, ""))
        if before is value:
            return
        self._set(space.shipped, name, (value, user))  # first: it may refer to itself
        self._touched.append(space)
        try:
            payload, lines = self.dump(value)
        except Exception as error:
            raise NotShippable(
                f"the global {name!r} of {space.module}, which {user} looks at, "
                f"{cannot_travel(error, 'it')}"
            ) from error
        number = int(space.number)
        line = self.log.write(GLOBAL, number, name, payload, names=lines)
        # Kept by the space's own line: a task that waits needs it, whatever the program does.
        self._set(self.log.keeps.setdefault(number, {}), name, self.log.lease(line))
        if space.how != DETACHED and space not in self._watched:
            self._watched.append(space)

    def _set(self, table: Any, key: Any, value: Any) -> None:
        self._before.append((table, key, table.get(key, _MISSING)))
        table[key] = value


_DROPPED = (
    "this outcome names a class or function that the program had dropped, and that no task had "
    "named any more"
)


def _function_in(called: object) -> object:
    """The function that is called, under partials and methods."""
    while not isinstance(called, FunctionType):
        if isinstance(called, functools.partial):
            called = called.func
        elif isinstance(called, MethodType):
            called = called.__func__
        else:
            return getattr(type(called), "__call__", None)  # noqa: B004  its function is wanted
    return called


def _looks_at(function: FunctionType, space: _Space, name: str) -> bool:
    """Whether a function, or by-value code that it leads to, looks at a global."""
    seen: set[int] = set()
    left = [function]
    while left:
        user = left.pop()
        if id(user) in seen:
            continue
        seen.add(id(user))
        names = global_names(user.__code__)
        if user.__globals__ is space.contents and name in names:
            return True
        leads_to = [user.__globals__[n] for n in names if n in user.__globals__]
        leads_to += [cell.cell_contents for cell in user.__closure__ or () if cell != CellType()]
        for value in leads_to:
            if isinstance(value, FunctionType):
                left.append(value)
            elif isinstance(value, type) and importable_name(value) is None:
                return True  # its methods may
    return False


class WorkerCatalog(Catalog):
    """The reading end."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: dict[int, SharedCode] = {}
        self.options: dict[int, Options] = {}
        self.code_numbers: dict[tuple[int, int], int] = {}  # by ids, which `codes` keeps alive
        self.forgotten: int = 0  # classes
        self.confirmed: int = 0  # the serial of the last FORGET
        self._class_lines: dict[int, int] = {}  # by number of the class
        self._line_classes: dict[int, range] = {}
        self._keys: dict[int, str | bytes] = {}  # names and pickles of functions
        self._functions: dict[int, Any] = {}  # those that were looked up
        self._unread: dict[int, _Fault] = {}  # lines
        self._unread_globals: dict[str, _Fault] = {}  # by name
        self._namespaces: dict[str, dict[str, Any]] = {}
        self._spaces: dict[int, dict[str, Any]] = {}
        self._space_numbers: dict[int, int] = {}  # by id
        self._shipped: dict[tuple[int, str], Any] = {}
        self._kept: set[tuple[int, str]] = set()  # globals that are this worker's own

    def read(self, line: bytes) -> None:
        """Enters the next line of the log; one that cannot be read fails where it is used."""
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
            begun = list(self.classes)[known:]  # half made: none is better than one that is wrong
            what = self._describe(fields, [self.classes[number].__qualname__ for number in begun])
            for number in begun:
                self.class_numbers.pop(self.classes.pop(number))
            log.warning("%s cannot be read in this worker: %s", what, describe(repr, error))

    def _describe(self, fields: Sequence[Any], classes: Sequence[str]) -> str:
        """Says what a line defines, as far as it can be told."""
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
            space, payload = fields
            contents = self._space(space)
            code, imports = self.decode(payload)
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
            sys.path += [folder for folder in fields[0] if folder not in sys.path]
            invalidate_caches()
        elif kind == OPTIONS:
            self.options[number] = Options(*fields)
        elif kind == FORGET:
            for line in fields[0]:
                self._forget(line)
            self.confirmed = number
        elif kind == RELOAD:
            if fields[0] in sys.modules:  # else it will be imported as it is now
                reload(sys.modules[fields[0]])
        else:
            self._keys[number] = fields[0]

    def _forget(self, line: int) -> None:
        """Forgets what a line has defined; tasks that run may have it in their hands."""
        for table in (self._keys, self._functions, self._unread, self.options):
            table.pop(line, None)
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
            contents = self.namespace(module)
        else:
            contents = _new_module(module).__dict__
        if how != IMPORTED:
            if contents.get("__package__") is None:
                contents["__package__"] = package
            # What a new module has of itself is not this worker's own.
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
        """Sets a global, unless this worker has bound the name itself."""
        contents, value = self._space(space), self.decode(payload)
        before = self._shipped.get((space, name), _MISSING)
        if contents.get(name, _MISSING) is before:
            contents[name] = self._shipped[space, name] = value
        elif (space, name) not in self._kept:
            self._kept.add((space, name))
            log.info(
                "the global %r of %s stays what this worker has bound it to",
                name,
                contents["__name__"],
            )

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
            if number not in self._unread:
                raise LookupError("this worker does not know the code of the function any more")
            error, found_at = self._unread[number]
            raise BaseException.with_traceback(error, found_at)
        return shared

    @contextmanager
    def change(self) -> Iterator[None]:
        """Nothing is changed here; see `HostCatalog.change`."""
        yield

    def refresh(self, function: object = None) -> None:
        """Nothing to be shipped here; see `HostCatalog.refresh`."""

    def pickle(self, value: object) -> bytes:
        """As `Catalog.pickle`; says in front which lines the pickle names, for the host."""
        return with_names(*self.dump(value))

    def pickle_some(self, value: object) -> bytes:
        """As `pickle`; exceptions in it lose the attributes that cannot travel."""
        return with_names(*self.dump_some(value))

    def fault_of(self, value: object) -> Exception | None:
        """As `HostCatalog.fault_of`."""
        try:
            self.pickle(value)
        except Exception as error:  # noqa: BLE001  a user's __reduce__ may raise anything
            return error
        return None

    def name_number(self, name: str, function: FunctionType) -> str:
        """Gives the name, which the host makes a number of."""
        return name

    def code_number(self, function: FunctionType) -> int | bytes:
        """Gives the number that the host has given, or the pickle of a CODE line for it."""
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
        """The host has the functions that it sent: they come back as themselves."""
        return isinstance(key, int) and self.codes[key].function is function

    def shared_function(self, number: int) -> Any:
        return self._code(number).function

    def class_key(self, cls: type) -> None:
        """A class made in the worker: the host gets it whole."""

    def class_of(self, number: int) -> type:
        raise LookupError("a class could not be defined in this process; the log of it says why")

    def is_complete(self, cls: type) -> bool:
        """No: what defines it may come in parts."""
        return False

    def line_of_class(self, cls: type) -> int:
        return self._class_lines[self.class_numbers[cls]]

    def namespace(self, module: str) -> dict[str, Any]:
        namespace = self._namespaces.get(module)
        if namespace is None:
            if module == "__main__" or module not in sys.modules:
                sys.modules[module] = _new_module(module)  # the worker's own main is of no use
            namespace = self._namespaces[module] = sys.modules[module].__dict__
        return namespace


def _new_module(name: str) -> ModuleType:
    module = ModuleType(name)
    # Python gives it to modules that it imports; what imports from C looks for it.
    vars(module)["__builtins__"] = builtins
    return module


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
