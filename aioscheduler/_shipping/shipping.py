"""Takes unstarted coroutines apart, and recreates them on the other side.

    work(1) ─ take ─► function number + payload ═══ frames ═══► open ─► work(1)
                │
                └─ definitions that workers do not have yet (see `definitions`)

A coroutine that has not started consists of its function and its arguments, nothing else. `gc`
finds the function, even under `functools.wraps` (the qualified name may be wrong), followed by the
code and the arguments. The payload is a single plain argument itself, a msgpack list of positional
scalars, or the pickle of (args, kwargs, contents of the closure).
"""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable, Sequence
from types import CellType, CodeType, CoroutineType, FunctionType
from typing import Any, Generic, NoReturn, TypeVar

from .._scheduling.coroutines import check_awaitable, read_arguments
from .._transport.definitionlog import leased
from .._transport.wire import BLOB_LIMIT, Payload, Record
from ..errors import NotShippable
from ..options import Options
from .hostcatalog import HostCatalog
from .names import importable_name, is_of_module
from .payloads import is_plain
from .propagation import Captured
from .refusals import blame, parts_of
from .sharedcode import contents_of
from .workercatalog import WorkerCatalog

Call = tuple[Any, Payload, Record]
"""The number of a function, the payload of its arguments, and the record of the task."""

MOST_CAPTURED = BLOB_LIMIT
"""The most bytes of captured values that may go with a task."""


class _Shape:
    """How to read the arguments of one code object's coroutines.

    Args:
        namespace: The globals of its functions; None if they must not be kept.
        number: The catalog's number, an int in the host. None for code with a closure, whose
            functions may each have a name: all wrappers of one decorator share one code.
        by_value: Whether to look for rebound globals; with a closure, that depends on the
            function.
        simple: The count of arguments if all are positional and none is in a cell, else -1.

    Attributes:
        gone: Removes this when the code is garbage, before its id is reused.
    """

    gone: weakref.ref[CodeType]

    __slots__ = ("by_value", "gone", "namespace", "number", "simple")

    def __init__(
        self, namespace: dict[str, Any] | None, number: Any, by_value: bool, simple: int
    ) -> None:
        self.namespace = namespace
        self.number = number
        self.by_value = by_value
        self.simple = simple


C = TypeVar("C", HostCatalog, WorkerCatalog)


class Shipper(Generic[C]):
    """Turns coroutines into calls. One for all workers of a manager, and one in each worker.

    Args:
        catalog: The source of the numbers.

    Attributes:
        inspect: Called with each function that is new here; raises if it must not be shipped.
            None to allow all.
    """

    def __init__(self, catalog: C) -> None:
        self.catalog: C = catalog
        self.inspect: Callable[[object], None] | None = None
        self._shapes: dict[int, _Shape] = {}
        self._named: dict[int, tuple[FunctionType, Any]] = {}  # have a closure, but found by name

    def forget(self) -> None:
        """Forget the numbers of functions, as they may change."""
        self._shapes.clear()

    def take(self, coro: Any, record: Record = None) -> Call:
        """Take an unstarted coroutine apart and close it; it is untouched if this raises.

        Args:
            coro: The coroutine.
            record: The record of the task.

        Raises:
            NotShippable: It is not a coroutine, has started, or something it needs cannot travel.
        """
        if type(coro) is not CoroutineType or coro.cr_running or coro.cr_suspended:
            _refuse(coro)
        referents = gc.get_referents(coro)
        if _CLOSED_LOOK_NEW and coro.cr_frame is None:  # last, as this adds a frame to referents
            _refuse(coro)
        position = _POSITION
        function = referents[position] if position < len(referents) else None
        if type(function) is not FunctionType:  # as in asyncio's debug mode
            position = next((i for i, r in enumerate(referents) if type(r) is FunctionType), -1)
            if position < 0:
                _refuse(coro)
            function = referents[position]
        shape = self._shapes.get(id(function.__code__))
        if shape is None or shape.namespace is not function.__globals__:
            shape = self._learn(coro, function)
        if shape.by_value:
            self.catalog.refresh(function)
        number, payload = shape.number, None
        # The function is followed by its code, then the arguments. A single one is handled here,
        # as in `_encode_simple`: that saves 5 % of `schedule` (`benchmarks/bench_accept.py`).
        if shape.simple == 1 and is_plain(value := referents[position + 2]) and value is not None:
            payload = value
        elif shape.simple >= 0:
            payload = self._encode_simple(referents[position + 2 : position + 2 + shape.simple])
        if payload is None:
            cells = function.__closure__ or ()
            if cells:
                number, cells = self._number_closure(function, shape)
            payload = self._pickle_arguments(coro, function, cells)
        coro.close()
        return number, payload, record

    def take_options(self, options: Options) -> Any:
        """Return what represents options, which travel once for all tasks with equal ones.

        Raises:
            NotShippable: The predicate of `retry` cannot travel.
        """
        on: Any = None if options.retry is None else options.retry.on
        asks = callable(on) and not isinstance(on, type)
        if asks and importable_name(on) is None:
            self.catalog.refresh(on)
        try:
            with self.catalog.change():
                return self.catalog.options_number(options)
        except NotShippable:
            raise  # which names a global
        except Exception as error:
            what, why = blame(self.catalog.fault_of, parts_of(on) if asks else {}, error)
            raise NotShippable(f"{what and what + ' of '}the option retry {why}") from error

    def take_captured(self, captured: Captured | None) -> bytes | None:
        """Return the payload of the values captured for a task; None if there are none.

        Raises:
            NotShippable: A value cannot travel, or they are too large.
        """
        if captured is None or len(captured) == 1:
            return None
        payload = self.catalog.encode_scalars(captured)
        if payload is None:
            try:
                with self.catalog.change():
                    payload = leased(*self.catalog.dump(captured))
            except NotShippable:
                raise  # which names a global
            except Exception as error:
                assert self.catalog.propagation is not None  # it has captured the values
                kinds = self.catalog.propagation.named(captured)
                what, why = blame(self.catalog.fault_of, kinds, error)
                raise NotShippable(f"{what} {why}") from error
        check_captured(payload)
        return payload

    def _encode_simple(self, args: Sequence[Any]) -> Payload:
        """Return the payload of positional arguments if they are scalars, else None."""
        if len(args) == 1 and args[0] is not None and is_plain(args[0]):
            return args[0]  # type: ignore[no-any-return]  # a number or a text
        return self.catalog.encode_scalars(args)

    def _learn(self, coro: CoroutineType[Any, Any, Any], function: FunctionType) -> _Shape:
        code = function.__code__
        if coro.cr_code is not code:
            raise NotShippable(
                f"the code of {coro.__qualname__}() was exchanged after the call; call it again"
            )
        if self.inspect is not None and not code.co_freevars:  # else each function is asked
            self.inspect(function)
        number, by_value = None, False
        if not code.co_freevars:
            by_value = importable_name(function) is None
            with self.catalog.change():
                number = self.catalog.function_number(function)
        # A namespace of no module must not be kept: each of its calls comes here.
        kept = is_of_module(function)
        simple = -1 if code.co_freevars else simple_count(code)
        shape = _Shape(function.__globals__ if kept else None, number, by_value, simple)
        key, shapes = id(code), self._shapes
        shape.gone = weakref.ref(code, lambda _: shapes.pop(key, None))
        shapes[key] = shape
        return shape

    def _number_closure(
        self, function: FunctionType, shape: _Shape
    ) -> tuple[Any, tuple[CellType, ...]]:
        """Return the number of a function with a closure, and the cells that must travel."""
        known = self._named.get(id(function))
        if known is not None:
            return known[1], ()
        if self.inspect is not None:
            self.inspect(function)
        name = importable_name(function)
        if name is None:
            self.catalog.refresh(function)
            if shape.number is None:
                with self.catalog.change():
                    coded = self.catalog.code_number(function)
                shape.number = coded  # now that its globals can travel
            return shape.number, function.__closure__ or ()
        with self.catalog.change():
            number = self.catalog.name_number(name, function)
        self._named[id(function)] = function, number
        return number, ()

    def _pickle_arguments(
        self,
        coro: CoroutineType[Any, Any, Any],
        function: FunctionType,
        cells: tuple[CellType, ...],
    ) -> bytes:
        args, kwargs = read_arguments(coro)
        contents = [contents_of(cell) for cell in cells]
        try:
            with self.catalog.change():
                return leased(*self.catalog.dump((args, kwargs, contents)))
        except NotShippable:
            raise  # which names a global
        except Exception as error:
            code = function.__code__
            own = arguments_by_name(code, args, kwargs)
            closure = dict(zip(code.co_freevars, contents, strict=False))
            kinds = {"argument": own, "closure variable": closure}
            what = blame(self.catalog.fault_of, kinds, error)
            raise NotShippable(f"{what[0]} of {coro.__qualname__}() {what[1]}") from error


def open_call(
    catalog: WorkerCatalog, function: Any, payload: Payload
) -> tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]:
    """Return the function of a call, and its positional and keyword arguments.

    Args:
        catalog: The worker's catalog.
        function: Its number, or a callable that came with the frame.
        payload: The payload of its arguments.

    Raises:
        Exception: Whatever importing or unpickling what it needs raises.
    """
    arguments: Any = catalog.decode(payload) if isinstance(payload, bytes) else [payload]
    if isinstance(arguments, list):
        called = catalog.function(function) if isinstance(function, int) else function
        return called, arguments, _NO_KEYWORDS
    args, kwargs, contents = arguments
    if contents:
        called = catalog.closure(function, contents)
    else:
        called = catalog.function(function) if isinstance(function, int) else function
    return called, args, kwargs


_NO_KEYWORDS: dict[str, Any] = {}


def check_captured(payload: bytes) -> None:
    """Refuse the payload of captured values if it is too large.

    Raises:
        NotShippable: It is.
    """
    if len(payload) > MOST_CAPTURED:
        raise NotShippable(
            f"the values of context= take {len(payload):,} bytes, and {MOST_CAPTURED:,} at most "
            "may go with each task: pass ids, and look up in the task what they stand for"
        )


def simple_count(code: CodeType) -> int:
    """Return the count of arguments if all are positional and none is in a cell, else -1."""
    simple = (
        not code.co_kwonlyargcount
        and not code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
        and not set(code.co_cellvars) & set(code.co_varnames[: code.co_argcount])
    )
    return code.co_argcount if simple else -1


def simple_arguments(coro: CoroutineType[Any, Any, Any], count: int) -> Sequence[Any]:
    """Return the arguments of an unstarted coroutine, whose `simple_count` is `count`.

    It takes a third of the time of `read_arguments`, which makes a frame.

    Raises:
        NotShippable: It has started.
    """
    if coro.cr_running or coro.cr_suspended:
        _refuse(coro)
    referents = gc.get_referents(coro)
    if _CLOSED_LOOK_NEW and coro.cr_frame is None:
        _refuse(coro)
    first = _POSITION
    if first >= len(referents) or type(referents[first]) is not FunctionType:
        first = next((i for i, each in enumerate(referents) if type(each) is FunctionType), -1)
        if first < 0:
            _refuse(coro)
    return referents[first + 2 : first + 2 + count]


def arguments_by_name(
    code: CodeType, args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments that `read_arguments` returned, by name; for messages."""
    count = code.co_argcount
    named = dict(zip(code.co_varnames[:count], args, strict=False)) | kwargs
    if code.co_flags & inspect.CO_VARARGS:
        named[code.co_varnames[count + code.co_kwonlyargcount]] = args[count:]
    return named


async def _probe() -> None:
    """Serve `_find_position`, which looks for this function among a coroutine's referents."""


def _find_position() -> tuple[int, bool]:
    coro = _probe()
    position = gc.get_referents(coro).index(_probe)
    coro.close()
    return position, _probe in gc.get_referents(coro)


_POSITION, _CLOSED_LOOK_NEW = _find_position()  # closed ones look new from Python 3.12 on


def _refuse(awaitable: Any) -> NoReturn:
    """Raise a NotShippable with the reason."""
    try:
        check_awaitable(awaitable)
    except TypeError as error:
        raise NotShippable(str(error)) from None
    raise NotShippable(
        f"a {type(awaitable).__name__} cannot be taken apart and shipped to a worker; wrap it in "
        "an async def function that makes and awaits it there, or use workers=0"
    )
