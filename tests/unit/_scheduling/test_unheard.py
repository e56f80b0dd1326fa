"""Failures that nobody awaits are reported, in the right thread, whatever the handler does."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from aioscheduler._scheduling.unheard import Unseen, describe, report, report_unheard


def refuse(value: Any) -> Any:
    raise ValueError(f"cannot read {value}")


@pytest.mark.parametrize("seen", [False, True])
async def test_what_nobody_has_seen_is_reported_by_the_loop(
    reports: list[dict[str, Any]], seen: bool
) -> None:
    failure = KeyError("x")
    unseen = Unseen(asyncio.get_running_loop(), "task 1", failure, None)
    unseen.seen = seen
    del unseen
    gc.collect()
    assert not reports  # garbage collection may run anywhere
    await asyncio.sleep(0)
    told = [] if seen else [{"message": "task 1: its failure was never awaited"}]
    assert reports == [context | {"exception": failure} for context in told]
    reports.clear()


async def test_what_cannot_be_read_is_the_failure(reports: list[dict[str, Any]]) -> None:
    whose = describe("work", "an id", None)
    report_unheard(asyncio.get_running_loop(), "it failed", b"x", refuse, whose)
    (context,) = reports
    assert context["scheduled_task"] == {"name": "work", "id": "an id", "ref": None}
    assert (context["message"], str(context["exception"])) == ("it failed", "cannot read b'x'")
    reports.clear()


def test_without_a_loop_nothing_is_reported() -> None:
    report(None, "task 1", b"x", refuse)


async def test_a_handler_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    called: list[Any] = []

    def handler(_: object, context: dict[str, Any]) -> None:
        called.append(context["message"])
        raise SystemExit(3)

    loop.set_exception_handler(handler)
    sent: list[Any] = []
    loop.call_soon_threadsafe = lambda *call: sent.append(call)  # type: ignore[method-assign, assignment]
    report(loop, "task 1", ValueError("x"), None)
    assert called == ["task 1: its failure was never awaited"]
    ((throw, error),) = sent  # an error that must end the loop does so in a turn of its own
    with pytest.raises(SystemExit):
        throw(error)
    # From another thread, as when garbage is collected there:
    thread = threading.Thread(target=report, args=(loop, "task 2", ValueError("y"), None))
    thread.start()
    thread.join()
    assert sent[1] == (
        loop.call_exception_handler,
        {"message": "task 2: its failure was never awaited", "exception": sent[1][1]["exception"]},
    )
    other = asyncio.new_event_loop()
    other.set_exception_handler(handler)
    other.close()
    report(other, "task 3", b"z", refuse)
    assert len(called) == 2
    assert "task 3: its failure was never awaited; and the loop's" in caplog.text
