"""A file from the future, and one for other schedulers."""

from __future__ import annotations

import pytest

from aioscheduler import StoreError
from aioscheduler._durable.records import Page, Row
from aioscheduler._routing.opened import HEARTBEAT_SLACK, check_kind, warn_of_clock

NOW = 10**18


def test_a_store_from_the_future_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_clock("tasks.db", 0, NOW)
    warn_of_clock("tasks.db", NOW + HEARTBEAT_SLACK, NOW)
    assert not caplog.messages
    warn_of_clock("tasks.db", NOW + 90 * 10**9, NOW)
    assert "tasks.db is from the future: its last host was alive 90 s later" in caplog.text


@pytest.mark.parametrize(
    "page", [Page([Row(1, NOW, 1, b"")], (NOW, 1), None), Page([], (0, 0), NOW)]
)
def test_a_file_of_timed_tasks_is_for_timed_schedulers(page: Page) -> None:
    check_kind(page, True, "tasks.db")
    with pytest.raises(StoreError, match="tasks.db has tasks of a TimedScheduler"):
        check_kind(page, False, "tasks.db")


def test_a_file_of_a_queue_is_for_queues() -> None:
    page = Page([Row(1, 0, 1, b"")], (0, 1), None)
    check_kind(page, False, "tasks.db")
    with pytest.raises(StoreError, match="tasks.db has tasks of a queue"):
        check_kind(page, True, "tasks.db")


@pytest.mark.parametrize("timed", [True, False])
def test_an_empty_file_is_for_any(timed: bool) -> None:
    check_kind(Page([], (0, 0), None), timed, "tasks.db")
