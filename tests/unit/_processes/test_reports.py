"""The reports on the end of a process: a line, with details below it."""

from __future__ import annotations

import pytest

from aioscheduler._processes.reports import (
    is_said,
    name_process,
    report_end,
    report_slow,
    report_start,
)

WHO = "worker 0 (pid 7)"
TRACEBACK = "Traceback (most recent call last):\n  here\nValueError: no"


@pytest.mark.parametrize(
    ("why", "exitcode", "cause", "traceback", "report"),
    [
        ("", -9, "", None, "was killed by SIGKILL"),
        ("", -9, "it said so", None, "was killed by SIGKILL (it said so)"),
        ("was recycled", -9, "", None, "was recycled and was killed by SIGKILL"),
        ("", 3, "who it was\n  where\n", None, "exited with status 3 (who it was)\n  where"),
        ("", 0, "", TRACEBACK, f"could not go on (ValueError: no)\n{TRACEBACK}"),
        ("", -9, "", TRACEBACK, f"was killed by SIGKILL (ValueError: no)\n{TRACEBACK}"),
    ],
)
def test_the_end_of_a_process(
    why: str, exitcode: int, cause: str, traceback: str | None, report: str
) -> None:
    assert report_end(WHO, why, exitcode, cause, traceback) == f"{WHO} {report}"


def test_one_that_could_not_begin_says_why_itself_if_it_can() -> None:
    told = f"{WHO} could not begin (ValueError: no)\n\n{TRACEBACK}"
    assert report_start(WHO, 1, "", TRACEBACK) == told
    told = f"{WHO} exited with status 3 before it was ready; "
    assert report_start(WHO, 3, "no room", None) == told + "no room"
    assert report_start(WHO, 3, "", None) == told + "see its output above"
    lost = "the connection to its node ended"
    assert report_start(WHO, None, lost, None) == f"{WHO} ended before it was ready; {lost}"


def test_an_end_of_which_the_cause_alone_is_known() -> None:
    assert report_end(WHO, "", None, "its node is gone", None) == f"{WHO} ended (its node is gone)"
    assert "exit code is not known" in report_end(WHO, "", None, "", None)


def test_a_process_is_named_with_what_is_known_of_it() -> None:
    assert name_process("worker 0", None, 7) == WHO
    assert name_process("worker 0", "n1", 7) == "worker 0 on node n1 (pid 7)"
    assert name_process("worker 0", "n1", None) == "worker 0 on node n1"


def test_a_repeated_failure_is_logged_less_and_less_often() -> None:
    assert [times for times in range(1, 20_000) if is_said(times)] == [
        *(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
    ]


def test_a_slow_start_is_reported_with_its_cause() -> None:
    assert "its initializer, or an import" in report_slow(WHO, 5.2, refilling=False)
    told = report_slow(WHO, 5.2, refilling=True)
    assert "not ready after 5 s" in told
    assert told.endswith("no other worker is recycled until it is")
