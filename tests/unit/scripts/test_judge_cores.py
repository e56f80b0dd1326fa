"""Who is blamed for what psutil saw. The figures are those of real runs, where there were any."""

from __future__ import annotations

import pytest
from judge_cores import Process, Row, conclude, limit


def a_row(host: float | None, *workers: float | None, others: float = 0, work: str = "noop") -> Row:
    processes = [Process("host", 1, host)]
    processes += [Process(f"worker {n}", n, cpu) for n, cpu in enumerate(workers, 1)]
    return Row(work, len(workers), 10, others_percent=others, processes=processes)


@pytest.mark.parametrize(
    ("row", "cores", "expected"),
    [
        (a_row(51, 100), 2, "the worker, which fills its core, so more workers would help"),
        (a_row(9, 100), 1, "the worker, which fills its core, so more cores would help"),
        (a_row(9, 93, 91), 2, "the workers, one core each, so more cores would help"),
        (a_row(9, 93, 91), 4, "the workers, one core each, so more workers would help"),
        (a_row(52, 64, 62), 2, "the cores, as the host and 2 workers share 2"),
        (a_row(31, 82, 80), 2, "the cores, as the host and 2 workers share 2"),
        (a_row(40, 58), 1, "the cores, as the host and 1 worker share one"),
        (a_row(98, 40, 42, 41, 40), 8, "the host, which fills its one core"),
        (a_row(97, 50, 52), 2, "the host, which fills its one core"),
        (a_row(12, 40, 99), 4, "worker 2, which fills its core while others have room"),
        (a_row(12, 37, 30, others=121), 2, "other programs on the cores"),
        (a_row(12, 20, 20), 2, "waiting, as nothing is full"),
        (a_row(12, 37, 30, others=60), 8, "waiting, as nothing is full"),
        (a_row(None, None), 2, "not known, as the run was too short to measure"),
        (a_row(51, None), 2, "not known, as the run was too short to measure"),
    ],
)
def test_who_holds_up_a_run(row: Row, cores: int, expected: str) -> None:
    assert limit(row, cores) == expected


def test_one_sentence_for_all_kinds_of_work() -> None:
    rows = [
        a_row(52, 100),
        a_row(52, 64, 62),
        a_row(31, 82, 80, work="wait"),
        a_row(9, 97, 99, work="cpu"),
    ]
    for row, speedup in zip(rows, (1, 1.12, 1.61, 1.93), strict=True):
        row.speedup = speedup
    assert conclude(rows, 2) == (
        "With 2 workers, the limit for noop (1.12 x) and wait (1.61 x) is the cores, as the host "
        "and 2 workers share 2; for cpu (1.93 x) it is the workers, one core each, so more cores "
        "would help."
    )


def test_a_busy_machine_is_told_of() -> None:
    assert conclude([a_row(10, 100, others=44.6)], 4) == (
        "With 1 worker, the limit for noop (1.00 x) is the worker, which fills its core, so more "
        "workers would help; the machine was busy, other programs took up to 45 % of a core, so "
        "repeat it when it is idle."
    )


def test_means_are_those_of_the_time_between_samples() -> None:
    row = a_row(None, None)
    row.sum_up()  # the run was shorter than a sample
    assert row.others_percent == 0
    assert row.processes[0].cpu_percent is None
    row.sampled_s, row.others_percents = [0.5, 2.0], [40.0, 0.0]
    for one in row.processes:
        one.cpu_percents = [100.0, 60.0]
    row.sum_up()
    assert row.others_percent == pytest.approx(10)
    assert [one.cpu_percent for one in row.processes] == pytest.approx([70, 70])
