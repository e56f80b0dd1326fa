"""The globals that by-value functions see, as the host knows them.

A namespace either belongs to a module and stays, or belongs to none (a console, an `exec`) and goes
with its program; then a mark in it leads to its space. Which globals are shipped, and when, is
decided in `hostcatalog`.
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

_MARK = "__aioscheduler__"  # the name of a mark in a namespace, like Python's `__builtins__`
_NOT_SHIPPED = frozenset(
    ("__builtins__", "__name__", "__loader__", "__spec__", "__cached__", _MARK)
)


class Space:
    """The globals of by-value functions, as the host knows them.

    Args:
        number: The number of the line that defines it.
        module: The module's name.
        how: IMPORTED: a worker imports the module, for functions in functions. MODULE: it has the
            module's name in the worker, too. DETACHED: the name belongs to another module or to
            none, as when a script is run by `runpy` or `exec`.
        contents: The globals.

    Attributes:
        codes: The numbers of the codes that see them, by id, as long as these live.
    """

    def __init__(self, number: int, module: str, how: int, contents: dict[str, Any]) -> None:
        self.number = number  # a lease, if the space may go
        self.module = module
        self.how = how
        self.contents = contents
        self.codes: dict[int, int] = {}
        self.shipped: dict[str, tuple[Any, str]] = {}  # value and user, by name
        self.bound: list[tuple[str, Any]] = []  # the shipped globals, for `refresh`
        self.unbound: list[str] = []

    def look(self) -> None:
        """Prepare for `refresh`, which costs 20 to 30 ns a name, modules among them."""
        self.bound = [
            (name, value) for name, (value, _) in self.shipped.items() if name in self.contents
        ]
        self.unbound = [name for name in self.shipped if name not in self.contents]

    def reads(self, code: CodeType) -> set[str]:
        """Return the names to ship for a code."""
        names = global_names(code) & self.contents.keys() - _NOT_SHIPPED
        if self.how == IMPORTED:
            # These are not in the source: pytest puts such names into modules that it rewrites.
            return {name for name in names if not name.isidentifier()}
        return names


class Mark:
    """A mark put into a namespace of no module, to recognise it.

    It does not outlive its program: the mark, the space and the namespace are a reference cycle,
    which goes as a whole.
    """

    def __init__(self, of: int = 0) -> None:
        self.of = of  # the namespace's id: a copy has this mark, too
        self.spaces: WeakKeyDictionary[Spaces, Space] = WeakKeyDictionary()

    def __reduce__(self) -> Any:  # for a program that ships a whole namespace
        return Mark, ()


class Spaces:
    """The spaces of one catalog.

    Args:
        log: The log, with a line for each.
        undo: Records the changes.

    Attributes:
        watched: The spaces of modules with globals that may be rebound.
        has_apart: Whether there has ever been a space of no module.
    """

    def __init__(self, log: DefinitionLog, undo: UndoLog) -> None:
        self.watched: list[Space] = []
        self.has_apart = False
        self._log = log
        self._undo = undo
        self._of_modules: dict[int, Space] = {}  # by id of the globals
        self._apart: WeakValueDictionary[int, Space] = WeakValueDictionary()  # by number
        self._codes_apart: dict[int, set[int]] = {}  # the lines of their codes, by number, too

    def find(self, function: object) -> Space | None:
        """Return the space of a function's globals, if any; None for anything else."""
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
        """Return the spaces to check for rebound globals when something is called.

        These are all watched spaces of modules, and the one that the function sees itself.
        """
        function = function_in(called)
        apart = None
        if isinstance(function, FunctionType):
            apart = self._find_apart(function.__globals__)
        return self.watched if apart is None else [*self.watched, apart]

    def numbered(self, number: int) -> Space | None:
        """Return the space of a line, None if there is none."""
        spaces = *self._of_modules.values(), *self._apart.values()
        return next((space for space in spaces if space.number == number), None)

    def define(self, module: str, contents: dict[str, Any] | None = None) -> Space:
        """Add the space of a module, or of these globals."""
        loaded = sys.modules.get(module)
        own = vars(loaded) if loaded is not None else None
        if contents is None:
            contents = own if own is not None else {}
        how = DETACHED if contents is not own else IMPORTED if importable(module) else MODULE
        package = contents.get("__package__")  # relative imports read it, though no code names it
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
        """Note that a global of a space was shipped, and may be rebound."""
        if space.how != DETACHED and space not in self.watched:
            self.watched.append(space)

    def undo(self) -> None:
        """Stop watching spaces of which nothing was shipped after all."""
        self.watched = [space for space in self.watched if space.shipped]

    def add_code(self, space: int, number: int) -> None:
        """Note the line of a code that sees a space of no module."""
        self._codes_apart.get(int(space), set()).add(number)

    def drop_code(self, space: int, number: int) -> None:
        """Note that the line of a code is gone."""
        self._codes_apart.get(space, set()).discard(number)

    def drop(self, number: int) -> None:
        """Note that the line of a space is gone."""
        self._codes_apart.pop(number, None)

    def let_go(self) -> None:
        """Release namespaces that are garbage here and that no task needs any more.

        Their line keeps their globals for pending tasks; a global may be one of their functions.
        """
        gone = self._codes_apart.keys() - self._apart.keys()
        for number in gone & self._log.keeps.keys():
            if not self._log.is_used_beyond(self._codes_apart[number], number):
                del self._log.keeps[number]


def function_in(called: object) -> object:
    """Return the function that a call reaches, through partials and methods."""
    while not isinstance(called, FunctionType):
        if isinstance(called, functools.partial):
            called = called.func
        elif isinstance(called, MethodType):
            called = called.__func__
        else:
            return getattr(type(called), "__call__", None)  # noqa: B004  the function is needed
    return called


def looks_at(function: FunctionType, space: Space, name: str) -> bool:
    """Return whether a function, or by-value code that it leads to, uses a global."""
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
