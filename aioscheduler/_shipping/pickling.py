"""Values to payloads and back, in the host and in its workers.

    payload = a plain value, as it is                            (numbers, None, short texts)
            | msgpack of one scalar, or of a list of scalars    (exact for these types, and fast)
            | pickle                                             (begins with 0x80, as msgpack of
                                                                  a scalar or list never does)
            | 0xC1, length, msgpack of lines, pickle             (of an outcome: it names these
                                                                  lines of the definitions)

What a fresh interpreter can import is pickled by name. The rest (functions and classes of
`__main__`, of notebooks, closures, lambdas) goes by value: its code or class is *defined* once,
and then spoken of by number. The two ends of that are in `definitions`; here is what they
share. The work of pickling code and classes is cloudpickle's.

Never plain pickle first and something better on error: plain pickle takes instances of classes
of `__main__` happily, and only the worker finds out.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import enum
import io
import multiprocessing.connection
import pickle
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Callable, MutableMapping, Sequence
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from types import CellType, CodeType, CoroutineType, FunctionType
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

import cloudpickle  # type: ignore[import-untyped]  # ships no type information
import msgpack  # type: ignore[import-untyped]  # ships no type information

from .._transport import wire
from ..errors import RemoteError, RemoteTraceback
from .byvalue import (
    REDUCERS,
    facts_of,
    is_single_dispatch,
    make_skeleton,
    reduce_enum,
    reduce_member,
    reduce_single_dispatch,
)
from .failures import describe, reduce_error, reduce_some, set_cause, text_of
from .names import importable, importable_name, is_of_namespace, resolve, type_name

SCALARS = frozenset((int, float, bool, str, bytes, type(None)))
PICKLED = 0x80  # the first byte of a pickle
NAMING = 0xC1  # of one with names in front; neither a pickle nor anything in msgpack begins so
_NAMES_FROM = 5  # after that byte and the length of the names
SHORT_TEXT = 256  # characters of a text that goes as it is


class _Scalars:
    """Packs one scalar, or a list of them: with a packer that is kept, in half the time.

    Such a packer keeps its buffer, too, which after one large value is as large as that.
    """

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._pack: Callable[[Any], bytes] = msgpack.Packer(autoreset=True).pack

    def pack(self, value: Any) -> bytes:
        packed = self._pack(value)
        if len(packed) > wire.BLOB_LIMIT:
            self._renew()
        return packed


_scalars = _Scalars()
_active = threading.local()  # .catalog: whose numbers are meant while something is unpickled


def with_names(payload: bytes, lines: Sequence[int]) -> bytes:
    """Return a pickle that says in front which lines of the definitions it names, if it does."""
    if not lines:
        return payload
    names = wire.pack(lines)
    return b"%c%b%b%b" % (NAMING, len(names).to_bytes(4), names, payload)


def names_in(payload: wire.Payload) -> Sequence[int]:
    """Return the lines that a payload says it names.

    Raises:
        Exception: It is none of `with_names`.
    """
    if not isinstance(payload, bytes) or payload[0] != NAMING:
        return ()
    names = wire.unpack(payload[_NAMES_FROM : _NAMES_FROM + int.from_bytes(payload[1:_NAMES_FROM])])
    if type(names) is not list or set(map(type, names)) != {int}:
        raise wire.WireError(f"no names of definitions: {names!r:.80}")
    return names


def is_plain(value: Any) -> bool:
    """Whether a value is its own payload: msgpack carries it exactly, and it is short."""
    kind = type(value)
    if kind is int:
        return bool(-(1 << 63) <= value < 1 << 64)
    if kind is str:
        return len(value) <= SHORT_TEXT and bool(value.isascii())
    return kind is float or kind is bool or value is None


V = TypeVar("V")


class ClassTable(Generic[V]):
    """Something for each of some classes, as long as they live.

    By identity: a metaclass may say of equality what it likes, and fail where a class is half made.
    """

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[type], V]] = {}

    def get(self, cls: type, default: Any = None) -> Any:
        entry = self._entries.get(id(cls))
        return default if entry is None else entry[1]

    def pop(self, cls: type, default: Any = None) -> Any:
        entry = self._entries.pop(id(cls), None)
        return default if entry is None else entry[1]

    def __getitem__(self, cls: type) -> V:
        return self._entries[id(cls)][1]

    def __setitem__(self, cls: type, value: V) -> None:
        key, entries = id(cls), self._entries
        # It goes before the id is used again, in whatever thread garbage is collected.
        entries[key] = weakref.ref(cls, lambda _: entries.pop(key, None)), value

    def __contains__(self, cls: object) -> bool:
        return id(cls) in self._entries

    def __len__(self) -> int:
        return len(self._entries)


class Catalog(ABC):
    """Codes and classes by number, as one process knows them; encodes and decodes values."""

    def __init__(self) -> None:
        self.owner: object = None  # the manager, or its proxy: each arrives as the other
        self.handed: list[Any] = []  # what each worker process inherits, of the initargs
        self.classes: MutableMapping[int, type] = {}
        self.class_numbers: ClassTable[int] = ClassTable()

    def function_number(self, function: FunctionType) -> Any:
        """Gives what stands for a function in a frame: its name's number, or that of its code."""
        name = importable_name(function)
        return self.code_number(function) if name is None else self.name_number(name, function)

    @abstractmethod
    def name_number(self, name: str, function: FunctionType) -> Any:
        """Gives what stands for a function that is found by name."""

    @abstractmethod
    def code_number(self, function: FunctionType) -> Any:
        """Gives what stands for a function's code."""

    @abstractmethod
    def code_key(self, function: FunctionType) -> int | tuple[CodeType, str]:
        """Gives what stands for a function's code in a pickle: a number, or code and module."""

    @abstractmethod
    def is_known(self, function: FunctionType, key: int | tuple[CodeType, str]) -> bool:
        """Whether the other end has this function, with its defaults and attributes."""

    @abstractmethod
    def shared_function(self, number: int) -> Any:
        """Gives the function of a code's number."""

    @abstractmethod
    def class_key(self, cls: type) -> int | None:
        """Gives the number of a by-value class; None has cloudpickle pickle it in full."""

    @abstractmethod
    def class_of(self, number: int) -> type:
        """Gives the class of a number."""

    @abstractmethod
    def is_complete(self, cls: type) -> bool:
        """Whether a class has its attributes, which its definition must not set again."""

    @abstractmethod
    def line_of_class(self, cls: type) -> int:
        """Gives the number of the line that defines a class."""

    @abstractmethod
    def namespace(self, module: str) -> dict[str, Any]:
        """Gives the globals for by-value functions of a module."""

    def encode(self, value: Any) -> wire.Payload:
        """Gives the payload of a value, exact in its types.

        Raises:
            Exception: Whatever pickle or the value's own methods raise.
        """
        if is_plain(value):
            return value  # type: ignore[no-any-return]  # a number, a text or None
        if type(value) in SCALARS:
            try:
                return _scalars.pack(value)
            except (OverflowError, ValueError):  # an int over 64 bit, a lone surrogate
                pass
        return self.pickle(value)

    def encode_scalars(self, values: Sequence[Any]) -> bytes | None:
        """Gives the payload of a list of scalars; None if something else is among them."""
        for value in values:
            if type(value) not in SCALARS:
                return None
        try:
            return _scalars.pack(list(values))
        except (OverflowError, ValueError):
            return None

    def pickle(self, value: object) -> bytes:
        """Pickles a value, with codes and classes by number.

        Raises:
            Exception: Whatever pickle or the value's own methods raise.
            KeyboardInterrupt: It may be a Ctrl-C.
        """
        return self.dump(value)[0]

    def dump(
        self, value: object, number_class: Callable[[type], int] | None = None
    ) -> tuple[bytes, list[int]]:
        """Pickles a value as `pickle`, and gives the lines that its pickle names, too.

        Args:
            value: Anything.
            number_class: If given, by-value classes that have no number are pickled in full,
                with the number that this gives them.
        """
        file = io.BytesIO()
        pickler = _Pickler(file, self, number_class)
        try:
            pickler.dump(value)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:  # a sys.exit(), or the panic of a library in Rust
            raise pickle.PicklingError(f"pickling it raised {error!r}") from error
        return file.getvalue(), pickler.lines

    def dump_call(self, value: object) -> tuple[bytes, list[int]]:
        """Pickles a call of the initializer; locks, queues and the like go to `handed`."""
        file = io.BytesIO()
        pickler = _CallPickler(file, self, None)
        pickler.dump(value)
        return file.getvalue(), pickler.lines

    def dump_some(
        self, value: object, inside: frozenset[int] = frozenset()
    ) -> tuple[bytes, list[int]]:
        """Pickles a value; exceptions in it lose the attributes that cannot travel.

        Args:
            value: Anything.
            inside: The ids of exceptions whose attributes this is for: they are not followed.

        Returns:
            As `dump`.
        """
        file = io.BytesIO()
        pickler = _LenientPickler(file, self, inside)
        pickler.dump(value)
        return file.getvalue(), pickler.lines

    def decode(self, payload: wire.Payload) -> Any:
        """Gives a value back.

        Raises:
            Exception: Whatever unpickling raises.
        """
        if not isinstance(payload, bytes):
            return payload
        if payload[0] == NAMING:
            payload = payload[_NAMES_FROM + int.from_bytes(payload[1:_NAMES_FROM]) :]
        if payload[0] != PICKLED:
            return wire.unpack(payload)
        outer = getattr(_active, "catalog", None)
        _active.catalog = self
        try:
            return pickle.loads(payload)
        finally:
            _active.catalog = outer

    def decode_result(self, payload: wire.Payload) -> Any:
        """Gives back a result.

        Raises:
            RemoteError: It cannot be unpickled here.
            KeyboardInterrupt: It may be that of a Ctrl-C, which has nothing to do with the result.
        """
        if not isinstance(payload, bytes):
            return payload
        try:
            return self.decode(payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            why = f"the outcome cannot be unpickled in this process: {describe(str, error)}"
            raise RemoteError(type_name(error), why, text_of(error)) from error

    def decode_failure(self, payload: bytes) -> BaseException:
        """Gives back what a task raised, with the worker's traceback as its cause.

        Raises:
            RemoteError: It cannot be unpickled here.
            KeyboardInterrupt: As of `decode_result`.
        """
        error, text = self.decode_result(payload)
        if not isinstance(error, BaseException):
            why = f"a failure of the task became {describe(repr, error)} in this process"
            return RemoteError(type_name(error), why, text)
        if text:
            set_cause(error, RemoteTraceback(text))
        return error


class SharedCode:
    """A function's code, with the globals that it sees in this process.

    Args:
        code: The code.
        namespace: The globals.
        imports: Modules to import before a function is made of it.
    """

    def __init__(
        self, code: CodeType, namespace: dict[str, Any], imports: Sequence[str] = ()
    ) -> None:
        self.code = code
        self.namespace = namespace
        self._imports = imports
        self._function: FunctionType | None = None

    @property
    def function(self) -> Any:
        """The function; always the same one, unless it has a closure (then with an empty one)."""
        if self._function is not None:
            return self._function
        function = self.make([EMPTY] * len(self.code.co_freevars))
        if not self.code.co_freevars:
            self._function = function
        return function

    def make(self, contents: Sequence[Any]) -> FunctionType:
        """Makes a function with these contents of its closure."""
        for name in self._imports:
            __import__(name)
        cells = tuple(CellType() if value is EMPTY else CellType(value) for value in contents)
        return FunctionType(self.code, self.namespace, None, None, cells)


class _Empty:
    """Stands for a closure variable that has no value yet."""

    def __reduce__(self) -> str:
        return "EMPTY"


EMPTY = _Empty()


def refuse(obj: object) -> NoReturn:
    """Refuses what would arrive as a copy that is good for nothing, or as something else."""
    hint = next((_HINTS[kind] for kind in _HINTS if isinstance(obj, kind)), "its copy is of no use")
    raise pickle.PicklingError(f"{type_name(obj)} belongs to one process: {hint}")


def _reduce_file(file: io.TextIOWrapper) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    refuse(file)


def _reduces_itself(cls: type) -> bool:
    """Whether Python code of a class says how to pickle its instances."""
    return isinstance(cls.__reduce_ex__, FunctionType) or isinstance(cls.__reduce__, FunctionType)


def _reduce_by_method(obj: object) -> Any:
    """As pickle does, which writes down a name that only this process knows, too."""
    reduced = obj.__reduce_ex__(5)
    if isinstance(reduced, str):
        module = pickle.whichmodule(obj, reduced)  # type: ignore[attr-defined]  # not documented
        if not importable(module):
            raise pickle.PicklingError(
                f"{describe(repr, obj)} is pickled by its name, {reduced!r} of {module}, which a "
                "worker process cannot import"
            )
    return reduced


LoopBound = asyncio.mixins._LoopBoundMixin  # the base of asyncio's locks, events and queues
_HINTS: dict[type, str] = {
    asyncio.AbstractEventLoop: "a task asks for its own, asyncio.get_running_loop()",
    asyncio.Future: "await it here, and pass its result",
    concurrent.futures.Future: "await it here, by asyncio.wrap_future(), and pass its result",
    CoroutineType: "have the task call and await it, in an async function that is scheduled; for a "
    "deadline of it all give schedule() a timeout=",
}
_OF_ONE_PROCESS = (LoopBound, *_HINTS)
_SPECIAL = (BaseException, *_OF_ONE_PROCESS)
_TABLE: dict[type, Callable[[Any], Any]] = {
    # cloudpickle sends the bytes, or a read-only copy of a file's text; pickle sends a number
    # that is no descriptor elsewhere.
    memoryview: refuse,
    io.TextIOWrapper: _reduce_file,
    multiprocessing.connection.Connection: refuse,
}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped base
    """cloudpickle's, but the code of by-value functions, and classes, go by number."""

    dispatch_table: ClassVar[Any] = ChainMap(_TABLE, *cloudpickle.Pickler.dispatch_table.maps)

    def __init__(
        self, file: io.BytesIO, catalog: Catalog, number_class: Callable[[type], int] | None
    ) -> None:
        super().__init__(file, protocol=5)
        self._catalog = catalog
        self._number_class = number_class
        self._begun: set[int] = set()  # ids of the classes that this defines
        self.lines: list[int] = []  # that the pickle names

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType):
            if importable_name(obj) is None:
                return self._reduce_function(obj)
        elif type(obj) in REDUCERS:
            if importable_name(obj) is None:
                return REDUCERS[type(obj)](obj)
        elif isinstance(obj, type):
            number = self._catalog.class_numbers.get(obj)
            if number is not None and id(obj) not in self._begun:
                self.lines.append(self._catalog.line_of_class(obj))
                return _class_of, (number,)
            name = importable_name(obj)
            if name is None:
                return self._reduce_class(obj)
            if name != f"{obj.__module__}:{obj.__qualname__}":
                return resolve, (name,)
        elif isinstance(obj, CodeType):
            # cloudpickle forgets the file, which tracebacks need to show the line.
            _, args = self.dispatch_table[CodeType](obj)
            return _code_of, (obj.co_filename, args)
        elif obj is self._catalog.owner:
            return _owner, ()
        elif issubclass(type(obj), _SPECIAL):
            return refuse(obj) if isinstance(obj, _OF_ONE_PROCESS) else self._reduce_error(obj)
        elif issubclass(type(obj), enum.Enum) and importable_name(type(obj)) is None:
            reduced = reduce_member(obj)
            return _reduce_by_method(obj) if reduced is NotImplemented else reduced
        elif _reduces_itself(type(obj)) and not any(
            type(obj) in table for table in self.dispatch_table.maps
        ):
            return _reduce_by_method(obj)
        return super().reducer_override(obj)

    def _reduce_error(self, error: BaseException) -> Any:
        return reduce_error(error)

    def _reduce_function(self, function: FunctionType) -> Any:
        if is_single_dispatch(function):
            return reduce_single_dispatch(function)
        if not is_of_namespace(function):
            # It has globals of its own, as the methods of a namedtuple do: they go with it.
            return super().reducer_override(function)
        key = self._catalog.code_key(function)
        if isinstance(key, int):
            self.lines.append(key)
            key = int(key)  # a lease is not to be pickled
        if self._catalog.is_known(function, key):
            return _function_of, (key,)
        cells = function.__closure__ or ()
        facts = facts_of(function)
        state = (cells, function.__defaults__, function.__kwdefaults__, function.__dict__, facts)
        if not any(state):
            return _function_of, (key,)
        return _function_of, (key,), state, None, None, _set_function_state

    def _reduce_class(self, cls: type) -> Any:
        reduced = super().reducer_override(cls)
        if len(reduced) != 6:  # NoneType and the like
            return reduced
        is_enum = issubclass(cls, enum.Enum)
        if is_enum:
            reduced = reduce_enum(cls, reduced)
        if self._number_class is None:
            number = self._catalog.class_key(cls)
            if number is None:
                return reduced
            self.lines.append(self._catalog.line_of_class(cls))
            return _class_of, (number,)
        # Inside a definition, further classes are defined in passing: they may refer to each
        # other in a circle, which the pickle's memo resolves. A class that is asked for again is
        # not in the memo yet: its base lists it, and the base comes before it. The definition
        # inside the base is the one that counts then; `_make_class` gives the same class twice.
        self._begun.add(id(cls))
        number = self._catalog.class_numbers.get(cls)
        if number is None:
            number = self._number_class(cls)
        make, args, state, *_, set_state = reduced
        if is_enum:
            contents = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
            skeleton = type(cls), cls.__name__, cls.__bases__, contents
            args = _make_skeleton, skeleton, *args[2:]
        else:
            meta, name, bases, contents, *_ = args
            contents["__qualname__"] = cls.__qualname__
            if "__slots__" in vars(cls):  # of no effect later
                bases = cls.__bases__
                for special in {"__slots__", "__orig_bases__"} & vars(cls).keys():
                    contents[special] = vars(cls)[special]
            make, args = _make_skeleton, (meta, name, bases, contents)
        return _make_class, (number, make, args), (set_state, state), None, None, _set_class_state


class _CallPickler(_Pickler):
    """One for what a new process is given: it may inherit primitives of multiprocessing."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__ in _INHERITED:
            check_inheritable(obj)
            self._catalog.handed.append(obj)
            return _handed, (len(self._catalog.handed) - 1,)
        return super().reducer_override(obj)


_INHERITED = frozenset(
    f"multiprocessing.{name}" for name in ("connection", "queues", "sharedctypes", "synchronize")
)


class _Spawning:
    """Stands for the start of a process, to find out what can be passed to one."""

    def duplicate_for_child(self, descriptor: int) -> int:
        return descriptor

    DupFd = duplicate_for_child


def check_inheritable(primitive: object) -> None:
    """Looks whether a process that is spawned can be given a primitive of multiprocessing.

    Raises:
        pickle.PicklingError: It is made for processes that are forked.
    """
    before = get_spawning_popen()
    set_spawning_popen(_Spawning())  # type: ignore[arg-type]  # it has what is asked of it
    try:
        ForkingPickler.dumps(primitive)
    except RuntimeError as error:
        raise pickle.PicklingError(
            f"{error}; make it by multiprocessing.get_context('spawn'), as workers are spawned"
        ) from error
    finally:
        set_spawning_popen(before)


def _handed(index: int) -> Any:
    catalog: Catalog = _active.catalog
    return catalog.handed[index]


class _LenientPickler(_Pickler):
    """One that leaves out what it can of exceptions."""

    def __init__(self, file: io.BytesIO, catalog: Catalog, inside: frozenset[int]) -> None:
        super().__init__(file, catalog, None)
        self._inside = inside

    def _reduce_error(self, error: BaseException) -> Any:
        if id(error) in self._inside:
            raise pickle.PicklingError("an exception among its own attributes")
        inside = self._inside | {id(error)}

        def encode(value: Any) -> bytes:
            payload, lines = self._catalog.dump_some(value, inside)
            self.lines += lines
            return payload

        return reduce_some(error, encode)


def _code_of(filename: str, args: Sequence[Any]) -> CodeType:
    return CodeType(*args).replace(co_filename=filename)


def _owner() -> object:
    catalog: Catalog = _active.catalog
    return catalog.owner


def _class_of(number: int) -> type:
    catalog: Catalog = _active.catalog
    cls = catalog.classes.get(number)
    return catalog.class_of(number) if cls is None else cls


def _make_class(number: int, make: Callable[..., type], args: Sequence[Any]) -> type:
    catalog: Catalog = _active.catalog
    cls = catalog.classes.get(number)
    if cls is None:
        cls = catalog.classes[number] = make(*args)
        catalog.class_numbers[cls] = number
    return cls


def _set_class_state(cls: type, state: Any) -> None:
    catalog: Catalog = _active.catalog
    if not catalog.is_complete(cls):
        set_state, of_class = state
        set_state(cls, of_class)


def _make_skeleton(meta: Any, name: str, bases: tuple[Any, ...], contents: Any) -> type:
    catalog: Catalog = _active.catalog
    return make_skeleton(catalog.class_numbers, meta, name, bases, contents)


def _function_of(key: int | tuple[CodeType, str]) -> Any:
    catalog: Catalog = _active.catalog
    if isinstance(key, int):
        return catalog.shared_function(key)
    code, module = key
    return SharedCode(code, catalog.namespace(module)).function


def _set_function_state(function: FunctionType, state: Any) -> None:
    cells, function.__defaults__, function.__kwdefaults__, attributes, facts = state
    for own, sent in zip(function.__closure__ or (), cells, strict=True):
        try:
            own.cell_contents = sent.cell_contents
        except ValueError:  # no value yet, there as here
            continue
    function.__dict__.update(attributes)
    for name, fact in facts.items():
        setattr(function, name, fact)
