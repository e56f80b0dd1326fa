"""What is said of the end of a process: in a line, and below it what is longer."""

from __future__ import annotations

import pytest

from aioscheduler._processes.reports import report_end, report_start

WHO = "worker 0 (pid 7)"
TRACEBACK = "Traceback (most recent call last):\n  here\nValueError: no"


@pytest.mark.parametrize(
    ("told", "exitcode", "cause", "traceback", "report"),
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
    told: str, exitcode: int, cause: str, traceback: str | None, report: str
) -> None:
    assert report_end(WHO, told, exitcode, cause, traceback) == f"{WHO} {report}"


def test_one_that_could_not_begin_says_why_itself_if_it_can() -> None:
    told = f"{WHO} could not begin (ValueError: no)\n\n{TRACEBACK}"
    assert report_start(WHO, 1, "", TRACEBACK) == told
    told = f"{WHO} exited with status 3 before it was ready; "
    assert report_start(WHO, 3, "no room", None) == told + "no room"
    assert report_start(WHO, 3, "", None) == told + "look at its output above"
