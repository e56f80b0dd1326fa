from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aioscheduler import Every
from aioscheduler.top import figures
from aioscheduler.top.figures import BLOCKS, lateness_block, rate_block


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (28_600_000, "28.6 MB"),
        (286_400_000, "286 MB"),
        (999_700_000, "1.00 GB"),
        (1_234_000_000, "1.23 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(amount: float | None, text: str) -> None:
    assert figures.size(amount) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "–"),
        (0.0, "0.00 ms"),
        (0.00008, "0.08 ms"),
        (0.0123, "12.3 ms"),
        (0.09999, "100 ms"),
        (0.9996, "1.00 s"),
        (1.2, "1.20 s"),
        (59.94, "59.9 s"),
        (59.96, "1.00 min"),
        (3600 * 5, "5.00 h"),
        (86400 * 12, "12.0 d"),
    ],
)
def test_durations(amount: float | None, text: str) -> None:
    assert figures.seconds(amount) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "–"),
        (0, "0"),
        (12_345, "12,345"),
        (99_999, "99,999"),
        (100_000, "100 k"),
        (999_600, "1.00 M"),
        (1_234_567, "1.23 M"),
        (10_000_000, "10.0 M"),
    ],
)
def test_counts(amount: float | None, text: str) -> None:
    assert figures.count(amount) == text


def test_rates_that_are_small_have_a_fraction() -> None:
    assert [figures.rate(r) for r in (None, 0, 0.5, 9.94, 9.96, 1499.6)] == [
        "–", "0", "0.5", "9.9", "10", "1,500",
    ]  # fmt: skip


def test_no_figure_is_longer_than_its_column() -> None:
    amounts = [mantissa * 10.0**power for power in range(-5, 10) for mantissa in (1, 9.994, 9.996)]
    assert max(len(figures.count(amount)) for amount in amounts) == 6
    assert max(len(figures.size(amount)) for amount in amounts) == 7
    durations = [amount for amount in amounts if amount < 599]
    assert max(len(figures.seconds(amount)) for amount in durations) <= 8


def test_blocks_of_rates() -> None:
    line = "".join(rate_block(rate, 100) for rate in (None, 0, 0.1, 50, 100))
    assert line == " ▁▂▄▇"
    assert rate_block(0, 0) == "▁"


def test_blocks_of_lateness_go_by_the_logarithm() -> None:
    line = [lateness_block(late) for late in (None, 0, 1e-4, 1e-2, 1, 100)]
    assert line == [" ", "▁", "▁", BLOCKS[4], "█", "█"]


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        (0.1, "every 0.1 s"),
        (0.000001, "every 0.000001 s"),
        (1.5, "every 1.5 s"),
        (20, "every 20 s"),
        (90, "every 90 s"),
        (900, "every 15 min"),
        (3600, "every 1 h"),
        (86400, "every 1 d"),
        (8 * 86400 + 1, "every 691201 s"),
        (86400.25, "every 86400.25 s"),
    ],
)
def test_an_interval_is_shown_in_one_unit(step: float, shown: str) -> None:
    assert figures.rule(str(Every(step))) == shown
    start = datetime(2030, 1, 1, tzinfo=UTC)
    assert figures.rule(str(Every(step, start=start))) == f"{shown} from {start.isoformat()}"


@pytest.mark.parametrize(
    "text",
    [
        *("", "cron * * * * * in UTC", "every 0:01:00 or so", "every 0:01", "every 0:00:01.5"),
        *("every ٣:00:00", f"every {'9' * 5000} days, 0:00:00"),
    ],
)
def test_another_rule_is_shown_as_it_is(text: str) -> None:
    assert figures.rule(text) == text
