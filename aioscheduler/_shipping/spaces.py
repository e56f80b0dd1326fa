"""The globals that by-value functions see, as the host knows them.

A namespace is a module's, and stays; or it is no module's (a console's, that of an `exec`), and
goes with its program: then a mark in it says what it is known as. What of it is shipped, and when,
is decided in `hostcatalog`.
"""

from __future__ import annotations

import functools
import sys
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from .._transport.definitionlog import DefinitionLog
from .definitions import DETACHED, IMPORTED, MODULE, SPACE
from .names import global_names, importable, importable_name
from .undolog import UndoLog

_MARK = "__aioscheduler__"  # the name of a mark in a namespace, beside Python's `__builtins__`
_NOT_SHIPPED = frozenset(
    ("__builtins__", "__name__", "__loader__", "__spec__", "__cached__", _MARK)
)


class Space:
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


class Mark:
    """Is put into a namespace that is no module's, to know it again.

    Who knows it keeps it only as long as its program does: the mark, the space and the namespace
    are a circle, which goes as one.
    """

    def __init__(self, of: int = 0) -> None:
        self.of = of  # the namespace's id: a copy has this mark, too
        self.spaces: WeakKeyDictionary[Spaces, Space] = WeakKeyDictionary()

    def __reduce__(self) -> Any:  # who ships all of a namespace
        return Mark, ()


class Spaces:
    """The spaces of one catalog.

    Args:
        log: Has a line for each.
        undo: Of the changes.

    Attributes:
        watched: Those of modules, with something that may be rebound.
        has_apart: Whether there was one that is no module's, ever.
    """

    def __init__(self, log: DefinitionLog, undo: UndoLog) -> None:
        self.watched: list[Space] = []
        self.has_apart = False
        self._log = log
        self._undo = undo
        self._of_modules: dict[int, Space] = {}  # by id of the globals
        self._apart: WeakValueDictionary[int, Space] = WeakValueDictionary()  # by number
        self._codes_apart: dict[int, set[int]] = {}  # their codes, by number, too

    def find(self, function: object) -> Space | None:
        """Return the space of a function's globals, if they have one; anything else has none."""
        if not isinstance(function, FunctionType):
            return None
        space = self._of_modules.get(id(function.__globals__))
        return self._find_apart(function.__globals__) if space is None else space

    def _find_apart(self, contents: dict[str, Any]) -> Space | None:
        mark = contents.get(_MARK)
        if isinstance(mark, Mark) and mark.of == id(contents):
            return mark.spaces.get(self)
        return None

    def seen_by(self, called: object) -> list[Space]:
        """Return what may have to be shipped anew when something is called.

        That is all of modules, and the one that a function sees itself.
        """
        function = function_in(called)
        apart = None
        if isinstance(function, FunctionType):
            apart = self._find_apart(function.__globals__)
        return self.watched if apart is None else [*self.watched, apart]

    def numbered(self, number: int) -> Space | None:
        """Return the space of a line."""
        spaces = *self._of_modules.values(), *self._apart.values()
        return next((space for space in spaces if space.number == number), None)

    def define(self, module: str, contents: dict[str, Any] | None = None) -> Space:
        """Add a space: of a module, or of these globals."""
        loaded = sys.modules.get(module)
        own = vars(loaded) if loaded is not None else None
        if contents is None:
            contents = own if own is not None else {}
        how = DETACHED if contents is not own else IMPORTED if importable(module) else MODULE
        package = contents.get("__package__")  # relative imports look for it, unseen in the code
        package = package if isinstance(package, str) else None
        if how != DETACHED:
            number = self._log.write(SPACE, module, how, package)
            space = Space(number, module, how, contents)
            self._undo.set(self._of_modules, id(contents), space)
            return space
        number = self._log.lease(self._log.write(SPACE, module, how, package, names=()))
        space = Space(number, module, how, contents)
        mark = contents.get(_MARK)
        if not isinstance(mark, Mark) or mark.of != id(contents):
            mark = contents[_MARK] = Mark(id(contents))
        self._undo.set(mark.spaces, self, space)
        self._apart[int(number)] = space
        self._undo.set(self._codes_apart, int(number), set())
        self.has_apart = True
        return space

    def watch(self, space: Space) -> None:
        """Take note that something of it was shipped, and may be rebound."""
        if space.how != DETACHED and space not in self.watched:
            self.watched.append(space)

    def undo(self) -> None:
        """Watch none any more of which nothing was shipped after all."""
        self.watched = [space for space in self.watched if space.shipped]

    def add_code(self, space: int, number: int) -> None:
        """Take note of a code that sees a space which may go."""
        self._codes_apart.get(int(space), set()).add(number)

    def drop_code(self, space: int, number: int) -> None:
        """Take note that a code's line is gone."""
        self._codes_apart.get(space, set()).discard(number)

    def drop(self, number: int) -> None:
        """Take note that the line of a space is gone."""
        self._codes_apart.pop(number, None)

    def let_go(self) -> None:
        """Let namespaces go that are garbage here, and that no task needs any more.

        Their line keeps their globals for tasks that wait; a global may be a function of theirs.
        """
        gone = self._codes_apart.keys() - self._apart.keys()
        for number in gone & self._log.keeps.keys():
            if not self._log.is_used_beyond(self._codes_apart[number], number):
                del self._log.keeps[number]


def function_in(called: object) -> object:
    """The function that is called, under partials and methods."""
    while not isinstance(called, FunctionType):
        if isinstance(called, functools.partial):
            called = called.func
        elif isinstance(called, MethodType):
            called = called.__func__
        else:
            return getattr(type(called), "__call__", None)  # noqa: B004  its function is wanted
    return called


def looks_at(function: FunctionType, space: Space, name: str) -> bool:
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
