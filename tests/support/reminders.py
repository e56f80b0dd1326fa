"""Durable functions, and a record of their calls, in the test's process with its workers."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from aioscheduler import ManagerProxy, Retry, current_attempt, durable

done: list[Any] = []
"""The calls, in order; a test clears it."""

gates: dict[str, asyncio.Event] = {}
"""The gates that `hold` waits for, by name."""

request_id: ContextVar[str] = ContextVar("request_id")


@durable("test.note")
async def note(value: Any) -> Any:
    done.append(value)
    return value


@durable("test.once", on_loss="fail")
async def once(value: Any) -> Any:
    done.append(value)
    return value


@durable("test.fail")
async def fail(value: Any) -> None:
    done.append(value)
    raise ValueError(f"no {value}")


@durable("test.retried", retry=Retry(attempts=3, wait_initial=60, wait_exp_base=1, wait_jitter=0))
async def retried(value: Any, good: int = 3) -> Any:
    done.append((value, current_attempt()))
    if current_attempt() < good:
        raise ValueError(f"not yet {value}")
    return value


@durable("test.late", max_lateness=5)
async def late(value: Any) -> None:
    done.append(value)


@durable("test.hold")
async def hold(name: str) -> str:
    done.append(name)
    await gates[name].wait()
    return name


@durable("test.hold_once", on_loss="fail")
async def hold_once(name: str) -> str:
    done.append(name)
    await gates[name].wait()
    return name


async def _convert(name: str) -> None:
    """Wait, and turn a cancellation into another error."""
    done.append(name)
    try:
        await gates[name].wait()
    except asyncio.CancelledError:
        raise LookupError(f"{name} was cut off") from None
    raise ValueError(f"{name} has failed")


@durable("test.convert")
async def convert(name: str) -> None:
    await _convert(name)


@durable("test.convert_retried", retry=Retry(attempts=3, wait_initial=60))
async def convert_retried(name: str) -> None:
    await _convert(name)


@durable("test.convert_once", on_loss="fail", retry=Retry(attempts=3, wait_initial=60))
async def convert_once(name: str) -> None:
    await _convert(name)


async def convert_plainly(name: str) -> None:
    await _convert(name)


@durable("test.clean")
async def clean(name: str, end: str) -> str:
    """Wait for ever, and clean up until a gate is open."""
    done.append(name)
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        await gates[name].wait()
        if end == "fails":
            raise LookupError(name) from None
        if end != "returns":
            raise
    return end


@durable("test.cut", retry=Retry(BaseException, attempts=3))
async def cut(how: str) -> None:
    """Raise a CancelledError of its own."""
    done.append(how)
    if how == "by itself":
        raise asyncio.CancelledError(how)
    if how == "at its gate":
        await gates[how].wait()
    inner = asyncio.get_running_loop().create_future()
    inner.cancel(how)
    await inner


@durable("test.chain")
async def chain(manager: ManagerProxy, left: int) -> None:
    done.append(left)
    if left:
        manager.schedule(chain(manager, left - 1), timedelta(seconds=10), id="chain", replace=True)


@durable("test.request")
async def request(value: Any) -> None:
    done.append((value, request_id.get("none")))


@durable("test.last")
async def last(manager: ManagerProxy, gate: str) -> None:
    """Schedule more once the gate is open, while the manager is closing."""
    done.append(gate)
    await gates[gate].wait()
    for value, id_, replace in (
        ("kept", "kept", False),
        ("taken", "taken", True),
        ("new", "new", False),
        ("plain", None, False),
    ):
        manager.schedule(note(f"late {value}"), timedelta(days=1), id=id_, replace=replace)
