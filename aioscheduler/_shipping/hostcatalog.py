"""The writing end of the definitions: the log, and the program's objects behind its lines.

    function, class, value ─► number, leased ─► in a pickle, a frame
                    └► line of the log, once

Whatever may add to the log is one change, which is completed or undone (`undolog`). The rules are
in `definitions`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakValueDictionary, ref

from .. import registry
from .._transport.definitionlog import DefinitionLog
from .._transport.wire import unpack
from ..errors import NotShippable
from ..options import Options
from ..registry import Durable
from .catalog import ClassTable
from .classgarbage import ClassGarbage
from .codec import Codec
from .definitions import CLASSES, CODE, GLOBAL, OPTIONS, PATH, REFERENCE, RELOAD, SPACE
from .names import module_of, submodules
from .optionlines import OptionLines
from .payloads import names_in, without_names
from .refusals import cannot_travel
from .sharedcode import SharedCode
from .spaces import Space, Spaces, looks_at
from .undolog import UndoLog
from .values import Values

_MISSING: Any = object()
_DROPPED = (
    "this outcome names a class or function that the program has dropped, and that no other task "
    "names"
)


class HostCatalog(Codec):
    """The writing end. Whatever may add to the log happens inside `with catalog.change():`."""

    def __init__(self) -> None:
        super().__init__()
        self.log: DefinitionLog = DefinitionLog()
        self.names: dict[int, str] = {}  # names of functions, for messages
        self.classes: WeakValueDictionary[int, type] = WeakValueDictionary()
        self._class_leases: ClassTable[int] = ClassTable()
        self._class_lines: dict[int, int] = {}  # by number of the class
        self._next_class = 0
        self._garbage = ClassGarbage()
        self._functions: WeakValueDictionary[int, FunctionType] = WeakValueDictionary()
        self._codes: dict[int, ref[CodeType]] = {}
        self._adopted: dict[str | bytes, int] = {}
        self._adopted_as: dict[int, bytes] = {}  # the reverse, of codes
        self._loaded: dict[str, CodeType] = {}  # the code behind a name when it was last shipped
        self._path = list(sys.path)
        self._undo_log = UndoLog()
        self._spaces = Spaces(self.log, self._undo_log)
        self.values: Values = Values(self.log, self._undo_log)
        self.options: OptionLines = OptionLines(self.log, self._undo_log, self.dump)
        self._to_ship: list[tuple[Space, str, str]] = []  # globals, with their users
        self._touched: list[Space] = []  # spaces of which globals were shipped
        self._changes = False  # a change is under way
        self._mark = 0  # the next line's number when the change began

    @contextmanager
    def change(self) -> Iterator[None]:
        """Complete what the block adds to the log, or undo it if something cannot travel.

        Raises:
            NotShippable: A global cannot travel.
        """
        self._begin()
        try:
            if len(sys.path) != len(self._path):
                self._ship_path()
            yield
            # Globals come last: a class may be the value of a global that its methods use.
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

    def _ship_path(self) -> None:
        """Send the workers new folders of `sys.path`, whatever becomes of the change."""
        # Python ignores entries that are not text. The text may not be valid UTF-8.
        new = [folder for folder in sys.path if isinstance(folder, str)]
        new = [folder for folder in new if folder not in self._path]
        self.log.write(PATH, [str.encode(folder, "utf-8", "surrogatepass") for folder in new])
        self._path = list(sys.path)
        self._mark = self.log.next

    def _begin(self) -> None:
        """Begin a change; changes cannot be nested, as the outer one may still be undone.

        Raises:
            NotShippable: A change is under way.
        """
        if self._changes:
            raise NotShippable(
                "this was called while another call was being pickled, by a __getstate__, "
                "__reduce__ or __del__ of one of its objects; use loop.call_soon() there"
            )
        self._changes = True
        self._mark = self.log.next

    def _end(self) -> None:
        self._to_ship.clear()
        self._touched.clear()
        self._undo_log.clear()
        self._changes = False
        if self.log.next > self._mark:
            self._garbage.note(self._next_class)
        if self.log.returned:
            self.forget_unused()

    def refresh(self, function: object = None) -> None:
        """Ship rebound globals; called for each call of a function that travels by value.

        Args:
            function: The function called. Globals that it does not use may fail to travel.

        Raises:
            NotShippable: A global that it uses cannot travel.
        """
        known = self._spaces
        spaces = known.seen_by(function) if known.has_apart else known.watched
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
                if not isinstance(function, FunctionType) or looks_at(function, space, name):
                    raise
        for space in spaces:
            space.look()

    def fault_of(self, value: object) -> Exception | None:
        """Return what pickling a value raises, None if it does not; change nothing."""
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
        self._undo_log.undo()
        for number in range(self._mark, self.log.next):
            self.log.drop(number)  # no reader has seen it
        self._spaces.undo()
        for space in self._touched:
            space.look()

    def name_number(self, name: str, function: FunctionType) -> int:
        """Return the number of a function that a worker can import."""
        code = self._loaded.get(name)
        if code is None:
            self._undo_log.set(self._loaded, name, function.__code__)
        elif code is not function.__code__:  # reloaded, as by importlib.reload
            self.log.write(RELOAD, name.partition(":")[0])
            self._undo_log.set(self._loaded, name, function.__code__)
            self._undo_log.note(self._adopted, name)
            self._adopted.pop(name, None)
        return self.adopt(name)

    def code_number(self, function: FunctionType) -> int:
        """Return the number of a function's code."""
        return self.code_key(function)

    def adopt(self, key: int | str | bytes) -> int:
        """Return the number, leased, of a function that a worker's `WorkerCatalog` sent."""
        if isinstance(key, int):
            return self.log.lease(key)
        number = self._adopted.get(key)
        if number is None:
            if isinstance(key, str):
                number = self.log.write(REFERENCE, key)
                self._undo_log.set(self.names, number, key)
            else:
                where, payload, name = unpack(key)
                known = type(where) is int
                space = self.log.lease(where) if known else self._spaces.define(where).number
                number = self.log.write(CODE, space, payload, None, names=(space,))
                self._spaces.add_code(space, number)
                self._undo_log.set(self._adopted_as, number, key)
                self._undo_log.set(self.names, number, name)
            self._undo_log.set(self._adopted, key, number)
        return self.log.lease(number)

    def options_number(self, options: Options) -> int:
        """Return the number, leased, of the options of a task; the same for equal ones."""
        return self.options.number(options)

    def adopt_options(self, fields: Sequence[Any]) -> int:
        """Return the number, leased, of options that a worker's `WorkerCatalog` sent."""
        *others, retry = fields
        lines = [self.log.lease(line) for line in names_in(retry)]
        return self.options.adopt([*others, without_names(retry) if lines else retry], lines)

    def forget_unused(self) -> None:
        """Retire unused lines, except a few values; drop those that no worker knows any more."""
        for number in self.log.unused():
            if number in self.values:
                self.values.rest(number)
            else:
                self.log.retire(number)
        for number in self.log.forgotten():
            self._forget(number)

    def look_after(self) -> None:
        """Forget unused lines, and namespaces that are garbage here; called once a tick."""
        self._spaces.let_go()
        self.forget_unused()

    def _forget(self, number: int) -> None:
        kind, _, *fields = unpack(self.log.drop(number))
        if kind == CODE:
            for table in (self.names, self._codes):
                table.pop(number, None)
            self._adopted.pop(self._adopted_as.pop(number, b""), None)
            self._spaces.drop_code(fields[0], number)
        elif kind == CLASSES:
            _, first, count = fields
            for part in range(first, first + count):
                del self._class_lines[part]
        elif kind == SPACE:
            self._spaces.drop(number)
        elif kind == OPTIONS:
            self.options.drop(number)

    def code_key(self, function: FunctionType) -> int:
        code, contents = function.__code__, function.__globals__
        space = self._spaces.find(function)
        number = space.codes.get(id(code)) if space is not None else None
        if number is not None:
            return number
        if space is None:
            space = self._spaces.define(module_of(function), contents)
        payload = self.pickle((code, submodules(code, contents)))
        durable, lines = self._dump_durable(registry.of_code(code))
        names = space.number, *lines
        line = self.log.write(CODE, space.number, payload, durable, names=names)
        number = self.log.lease(line)
        self._undo_log.set(self.names, line, f"{function.__module__}:{function.__qualname__}")
        self._undo_log.note(space.codes, id(code))
        self._undo_log.note(self._codes, line)
        self._know(number, function, space)
        self._spaces.add_code(space.number, line)
        user = f"{function.__qualname__}()"
        self._to_ship += [(space, name, user) for name in sorted(space.reads(code))]
        return number

    def _dump_durable(
        self, durable: Durable | None
    ) -> tuple[tuple[Any, ...] | None, Sequence[int]]:
        """Return what a worker needs of a registered function, and the lines that this names."""
        if durable is None:
            return None, ()
        *options, retry = durable.options
        payload, lines = (None, []) if retry is None else self.dump(retry)
        return (durable.name, durable.qualname, durable.once, *options, payload), lines

    def _know(self, number: int, function: FunctionType, space: Space) -> None:
        """Remember a function, and the number of its code, until they are garbage."""
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
        where, payload = unpack(line)[2:4] if line is not None else (-1, b"")
        space = self._spaces.numbered(where)
        if space is None:
            raise LookupError(_DROPPED)
        known = self._codes.get(number)
        code = known() if known is not None else None
        if code is None:
            code, _ = self.decode(payload)
        function = SharedCode(code, space.contents).function
        self._know(self.log.lease(number), function, space)
        return function

    def is_known(self, function: FunctionType, key: int | tuple[CodeType, str]) -> bool:
        """Return False: a worker has only the code."""
        return False

    def class_key(self, cls: type) -> int:
        first, made = self._next_class, []

        def give_number(part: type) -> int:
            number = self._next_class
            self._next_class += 1
            self._undo_log.set(self.class_numbers, part, number)
            self._undo_log.set(self.classes, number, part)
            made.append(part)
            return number

        payload, lines = self.dump(cls, give_number)
        line = self.log.write(CLASSES, payload, first, len(made), names=lines)
        for number, part in enumerate(made, first):
            self._undo_log.set(self._class_lines, number, line)
            self._undo_log.set(self._class_leases, part, self.log.lease(line))
        known: int = self.class_numbers[cls]
        return known

    def class_of(self, number: int) -> type:
        line = self.log.lines.get(self._class_lines.get(number, -1))
        if line is None:
            raise LookupError(_DROPPED)
        made = self.decode(unpack(line)[2])
        cls = self.classes.get(number)
        if cls is None:
            raise LookupError(f"{made!r} was recreated without the class that was asked for")
        return cls

    def is_complete(self, cls: type) -> bool:
        """Return whether it is the program's own, which may have changed since its definition."""
        return cls in self._class_leases

    def line_of_class(self, cls: type) -> int:
        lease: int | None = self._class_leases.get(cls)
        if lease is None:  # the class was recreated
            lease = self.log.lease(self._class_lines[self.class_numbers[cls]])
            self._class_leases[cls] = lease
        return lease

    def namespace(self, module: str) -> dict[str, Any]:
        found = sys.modules.get(module)
        return found.__dict__ if found is not None else {}

    def _ship_global(self, space: Space, name: str, user: str) -> None:
        value = space.contents[name]
        before, _ = space.shipped.get(name, (_MISSING, ""))
        if before is value:
            return
        self._undo_log.set(space.shipped, name, (value, user))  # first: it may refer to itself
        self._touched.append(space)
        try:
            payload, lines = self.dump(value)
        except Exception as error:
            raise NotShippable(
                f"the global {name!r} of {space.module}, which {user} uses, "
                f"{cannot_travel(error, 'it')}"
            ) from error
        number = int(space.number)
        line = self.log.write(GLOBAL, number, name, payload, names=lines)
        # Kept by the space's own line: pending tasks need it, whatever the program does.
        self._undo_log.set(self.log.keeps.setdefault(number, {}), name, self.log.lease(line))
        self._spaces.watch(space)
