"""What is said of the end of a process: in a line where that will do, else with all there is."""

from __future__ import annotations

import pytest

from aioscheduler._processes.reports import report_end, report_start

WHO = "worker 0 (pid 7)"


@pytest.mark.parametrize(
    ("told", "cause", "report"),
    [
        ("", "", "was killed by SIGKILL"),
        ("", "it said so", "was killed by SIGKILL (it said so)"),
        ("was recycled", "", "was recycled and was killed by SIGKILL"),
        ("", "who it was\n  where", "was killed by SIGKILL: who it was\n  where\n"),
    ],
)
def test_the_end_of_a_process(told: str, cause: str, report: str) -> None:
    assert report_end(WHO, told, -9, cause) == f"{WHO} {report}"


def test_one_that_could_not_begin_says_why_itself_if_it_can() -> None:
    assert report_start(WHO, 1, "", "Traceback") == f"{WHO} could not begin:\n\nTraceback"
    told = f"{WHO} exited with status 3 before it was ready; "
    assert report_start(WHO, 3, "no room", None) == told + "no room"
    assert report_start(WHO, 3, "", None) == told + "look at its output above"
