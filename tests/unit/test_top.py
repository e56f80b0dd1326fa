from __future__ import annotations

import io
import json
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from aioscheduler import __main__ as command_line
from aioscheduler import __version__
from aioscheduler.monitor import Snapshot
from aioscheduler.stats import COUNTS, HostStats, ManagerStats, WorkerState, WorkerStats
from aioscheduler.top import live, sampling
from aioscheduler.top.columns import COLUMNS, GROWTH, LEFT_OUT, LONGEST
from aioscheduler.top.live import Watch
from aioscheduler.top.rates import SORTS, Rates
from aioscheduler.top.sampling import NO_MANAGER, Sample, Sampler, program_name
from aioscheduler.top.table import KEYS, View, draw


def worker(number: int, finished: int = 0, **more: Any) -> WorkerStats:
    values: dict[str, Any] = {
        "worker": number,
        "state": WorkerState.READY,
        "pid": 1000 + number,
        "cpu_percent": 45.2,
        "rss": 28_600_000,
        "schedulers": 4,
        "pending": 1_234_567,
        "running": 12,
        "finished": finished,
        "failed": 0,
        "cancelled": 0,
        "lost": 0,
        "restarts": 0,
        "lateness_p50": 0.00008,
        "lateness_p99": 0.0012,
        "lateness_max": 0.5,
        "lateness_sum": finished * 0.001,
        "lateness_buckets": ((0.001, finished), (float("inf"), finished)),
        "loop_lag": 0.001,
    }
    return WorkerStats(**(values | more))


def snapshot(*workers: WorkerStats, pid: int = 77, manager: str = "0a1b2c3d") -> Snapshot:
    totals = {name: sum(getattr(w, name) for w in workers) for name in COUNTS}
    host = HostStats(pid, 12.0, 36_000_000, 0.002)
    stats = ManagerStats(manager=manager, workers=workers, host=host, **totals)
    return Snapshot(pid, manager, json.loads(json.dumps(stats.as_dict(), allow_nan=False)))


def render(
    snapshots: list[Snapshot],
    width: int = 140,
    height: int | None = None,
    view: View | None = None,
    rates: Rates | None = None,
    styles: bool = False,
    **more: Any,
) -> list[str]:
    """Draws, and gives the lines."""
    if rates is None:
        rates = Rates()
        rates.add(0.0, snapshots)
    file = io.StringIO()
    console = Console(
        width=width, file=file, color_system="standard" if styles else None, _environ={}
    )
    console.print(draw(snapshots, rates, view or View(), width, height, **more), end="")
    return file.getvalue().splitlines()


def sampled(seconds: int, *workers: WorkerStats) -> tuple[list[Snapshot], Rates]:
    """Workers that have done ten tasks a second for so long."""
    rates = Rates()
    shown: list[Snapshot] = []
    for second in range(seconds + 1):
        more = [{"finished": 10 * second, "lateness_sum": 0.01 * second}] * len(workers)
        shown = [snapshot(*(_with(w, m) for w, m in zip(workers, more, strict=True)))]
        rates.add(float(second), shown)
    return shown, rates


def _with(stats: WorkerStats, more: dict[str, Any]) -> WorkerStats:
    values = {name: getattr(stats, name) for name in stats.__slots__}
    buckets = ((float("inf"), more["finished"]),)
    return WorkerStats(**(values | more | {"lateness_buckets": buckets}))


# ---- the table


def test_a_manager_has_its_host_its_workers_and_their_total() -> None:
    shown, rates = sampled(1, worker(0), worker(1, state=WorkerState.SILENT))
    lines = render(shown, rates=rates, programs={77: "bot.py"}, view=View(clock="12:00:00"))
    assert lines[0].split() == ["aioscheduler", "top", "12:00:00", "1", "manager", "2", "workers"]
    assert lines[3].startswith("manager 0a1b2c3d  bot.py  pid 77 ───")
    heads, host, first, second, total = (line.split() for line in (lines[2], *lines[4:]))
    assert heads[:8] == ["worker", "pid", "state", "cpu", "memory", "pending", "running", "done/s"]
    assert [word for word in host if word.strip("■·")] == [
        "host", "77", "12%", "36.0", "MB", "2.00", "ms",
    ]  # fmt: skip
    assert [word for word in first if word.strip("■·")] == [
        "0", "1000", "ready", "45%", "28.6", "MB", "1.23", "M", "12", "10", "0",
        "0.08", "ms", "1.20", "ms", "1.00", "ms", "0",
    ]  # fmt: skip
    assert second[2] == "silent"
    assert [word for word in total if word.strip("■·")] == [
        "total", "102%", "93.2", "MB", "2.47", "M", "24", "20", "0",
        "0.08", "ms", "1.20", "ms", "1.00", "ms", "0",
    ]  # fmt: skip


def test_the_first_sample_has_no_rate() -> None:
    lines = render([snapshot(worker(0, 500))])
    assert lines[-2].split().count("–") == 1


WORDS = {  # the heads that a width has room for
    70: "worker state cpu memory pending done/s fail p99 rst",
    80: "worker state cpu memory pending run done/s fail p50 p99 rst",
    100: "worker pid state cpu memory pending run done/s fail p50 p99 lag rst",
    120: "worker pid state cpu memory pending run done/s throughput fail p50 p99 lateness lag rst",
    160: "worker pid state cpu memory pending running done/s throughput failed late p50 late p99 "
    "lateness loop lag restarts",
}


@pytest.mark.parametrize("width", [40, *WORDS, 300])
def test_every_width_is_filled_and_not_exceeded(width: int) -> None:
    shown, rates = sampled(70, worker(0), worker(1), worker(2))
    lines = render(shown, width, rates=rates)
    assert max(map(len, lines)) <= width
    if width in WORDS:
        assert " ".join(lines[2].split()) == WORDS[width]
    if 120 <= width <= 200:
        assert max(map(len, lines)) == width
        assert "▇▇▇▇▇▇▇▇" in lines[4 + 1]
    if width < 120:
        assert not any(block in "".join(lines) for block in "▁▂▃▄▅▆▇█")


def test_what_was_lost_is_shown_in_every_width() -> None:
    shown, rates = sampled(3, worker(0, lost=3))
    for width in (70, 80, 120, 160):
        lines = render(shown, width, rates=rates)
        assert " lost " in lines[2]
        assert lines[5].split().count("3") == 1


def test_no_width_breaks_it() -> None:
    shown, rates = sampled(5, worker(0, lost=3), worker(1, pid=None, state=WorkerState.RESTARTING))
    for width in (*range(1, 130, 3), *range(130, 250, 20)):
        lines = render(shown, width, 24, rates=rates)
        assert len(lines) <= 24
        assert max(map(len, lines)) <= width


def test_every_key_of_the_columns_is_one() -> None:
    keys = {column.key for column in COLUMNS}
    assert keys > {*LEFT_OUT, *LONGEST, *(key for step in GROWTH for key in step)}
    assert keys >= set(SORTS)  # the head of the order is lit
    assert {sort for _, sort in KEYS if sort} == set(SORTS)


RED, YELLOW, GREEN = "31m", "33m", "32m"


@pytest.mark.parametrize(
    ("more", "text", "colour"),
    [
        ({"state": WorkerState.READY}, "ready", GREEN),
        ({"state": WorkerState.SILENT}, "silent", YELLOW),
        ({"state": WorkerState.DRAINING}, "draining", YELLOW),
        ({"state": WorkerState.RESTARTING}, "restarting", YELLOW),
        ({"state": WorkerState.STOPPED}, "stopped", RED),
        ({"lateness_p99": 0.02}, "20.0 ms", YELLOW),
        ({"lateness_p99": 0.2}, "200 ms", RED),
        ({"failed": 17}, "17", RED),
        ({"lost": 17}, "17", RED),
        ({"restarts": 17}, "17", RED),
        ({"cpu_percent": 40.0}, "■", GREEN),
        ({"cpu_percent": 75.0}, "■", YELLOW),
        ({"cpu_percent": 98.0}, "■", RED),
    ],
)
def test_what_matters_is_coloured(more: dict[str, Any], text: str, colour: str) -> None:
    line = render([snapshot(worker(0, **more))], styles=True)[5]
    assert re.search(f"{colour} *{text}", line)


def test_what_does_not_matter_is_not() -> None:
    line = render([snapshot(worker(0))], styles=True)[5]
    assert RED not in line
    assert YELLOW not in line


def test_workers_are_sorted_inside_their_manager() -> None:
    shown = [
        snapshot(worker(0, pending=5), worker(1, pending=9), worker(2, pending=5)),
        snapshot(worker(0), worker(1), pid=78),
    ]

    def order(view: View) -> list[str]:
        lines = render(shown, view=view)
        return [line.split()[0] for line in lines[3:] if line[0].isdigit()]

    assert order(View()) == ["0", "1", "2", "0", "1"]
    assert order(View(reverse=True)) == ["2", "1", "0", "1", "0"]
    assert order(View("pending")) == ["1", "0", "2", "0", "1"]
    assert order(View("pending", reverse=True)) == ["0", "2", "1", "0", "1"]


def test_a_silent_manager_keeps_what_it_told_or_says_that_it_told_nothing() -> None:
    shown, rates = sampled(2, worker(0))
    silent = Snapshot(77, "0a1b2c3d", None)
    rates.add(3.0, [silent])
    lines = render([silent], rates=rates)
    assert "does not answer" in lines[3]
    assert [line.split()[0] for line in lines[4:]] == ["host", "0", "total"]
    lines = render([silent])
    assert "does not answer" in lines[3]
    assert len(lines) == 4


def test_without_a_manager_it_says_what_to_do() -> None:
    assert NO_MANAGER in render([])
    assert len(render([], 40, 24)) <= 24


def test_what_is_too_much_for_the_screen_is_cut_where_most_is() -> None:
    many = [
        snapshot(*map(worker, range(40))),
        snapshot(worker(0), worker(1), pid=78),
        snapshot(*map(worker, range(9)), pid=79),
    ]
    lines = render(many, height=24)
    assert len(lines) == 24
    assert [line for line in lines if "more" in line] == ["… 36 more workers", "… 5 more workers"]
    assert sum(line.startswith("total") for line in lines) == 3
    lines = render(many, height=10)
    assert lines[-1] == "… 2 more managers"
    for height in range(1, 70):
        assert len(render(many, height=height)) <= height


def test_with_no_workers_of_its_own_the_host_is_counted_once() -> None:
    lines = render([snapshot(worker(0, pid=77, rss=36_000_000, cpu_percent=12.0))])
    assert [w for w in lines[-1].split()[:4] if w.strip("■·")] == ["total", "12%", "36.0"]


def test_a_manager_of_another_version_may_tell_less() -> None:
    shown = snapshot(worker(0))
    assert shown.stats is not None
    shown.stats["workers"] = [{"worker": 0, "state": "dozing", "pid": 5, "finished": 1}]
    shown.stats["host"] = {"pid": 77}
    assert "dozing" in render([shown])[5]


# ---- the command


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[list[Snapshot]]:
    """What managers answer; the last again and again."""
    found: list[list[Snapshot]] = [[]]
    monkeypatch.setattr(command_line, "PAUSE", 0.0)
    monkeypatch.setattr(sampling, "snapshots", lambda: found.pop(0) if len(found) > 1 else found[0])
    return found


@pytest.mark.parametrize("options", [["--once"], ["--json"], ["--once", "--json"]])
def test_no_manager_is_status_1(
    answers: list[list[Snapshot]], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["top", *options]) == 1
    told = capsys.readouterr()
    assert told.err == f"{NO_MANAGER}\n"
    assert (json.loads(told.out)["managers"] == []) if "--json" in options else not told.out


def test_json_is_strict_and_needs_no_rich(
    answers: list[list[Snapshot]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    answers[:] = [[snapshot(worker(0, 5)), Snapshot(99, "ff", None)]]
    assert command_line.main(["top", "--json"]) == 0
    managers = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["managers"]
    assert [manager["pid"] for manager in managers] == [77, 99]
    assert managers[1]["stats"] is None
    told = managers[0]["stats"]["workers"][0]
    assert (told["finished"], told["done_per_second"]) == (5, 0.0)
    assert told["lateness_buckets"][-1] == [None, 5]


def test_without_rich_it_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "has_rich", lambda: False)
    for options in ([], ["--once"]):
        assert command_line.main(["top", *options]) == 2
        assert "the extra aioscheduler[top]" in capsys.readouterr().err


def test_without_a_terminal_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["top"]) == 2
    assert "--once" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [[], ["bottom"], ["top", "--interval", "0.05"], ["top", "--interval", "nan"],
     ["top", "--interval", "soon"], ["top", "--sort", "beauty"]],
)  # fmt: skip
def test_wrong_options_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(options)
    assert left.value.code == 2
    assert "usage: aioscheduler" in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command_line.main(["--version"])
    assert (left.value.code, capsys.readouterr().out) == (0, f"aioscheduler {__version__}\n")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/python3.11 -B bot.py --token x", "bot.py"),
        ("python /srv/bots/bot.py", "bot.py"),
        ("python -m bot --token x", "-m bot"),
        ("python -c pass", "-c"),
        ("python", "python"),
        ("/usr/bin/gunicorn: worker", "gunicorn:"),
        ("", ""),
        ("python b\x1b[2Jt.py", "b?[2Jt.py"),
    ],
)
def test_programs_are_named_without_their_arguments(command: str, name: str) -> None:
    assert program_name(command.split()) == name


# ---- live, as far as it needs no terminal


def test_keys() -> None:
    watch = Watch(View())
    for key in "x\x1b[A":
        watch.press(key)
    assert watch.view == View()
    watch.press("l")
    watch.press("r")
    assert watch.view == View("lateness", reverse=True)
    watch.press("c")
    assert watch.view == View("cpu")
    watch.press(" ")
    watch.take(Sample(1.0, [snapshot(worker(0))], {}))
    assert watch.view == View("cpu", paused=True)
    assert not watch.ended
    watch.press("q")
    assert watch.ended


@pytest.fixture
def sampler(answers: list[list[Snapshot]]) -> Iterator[Sampler]:
    bell = live.Bell()
    made = Sampler(0.1, bell.ring)
    yield made
    made.stop()
    made.join(5)
    bell.close()


def test_samples_come_from_a_thread(sampler: Sampler, answers: list[list[Snapshot]]) -> None:
    answers[:] = [[snapshot(worker(1), pid=9), snapshot(worker(0), pid=8)]]
    assert sampler.get() is None
    sampler.start()
    while (sample := sampler.get()) is None:
        pass
    assert [found.pid for found in sample.snapshots] == [8, 9]


def test_what_goes_wrong_in_the_thread_is_raised_outside(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[Snapshot]:
        raise RuntimeError("boo")

    monkeypatch.setattr(sampling, "snapshots", fail)
    sampler.start()
    sampler.join(5)
    with pytest.raises(RuntimeError, match="boo"):
        sampler.get()


def test_signals_ring_the_bell_and_get_their_handlers_back() -> None:
    bell = live.Bell()
    before = signal.getsignal(signal.SIGWINCH)
    with bell.listening():
        signal.raise_signal(signal.SIGWINCH)
    assert signal.getsignal(signal.SIGWINCH) is before
    assert bell.signals == [signal.SIGWINCH]
    bell.quiet()
    bell.close()
    bell.ring()  # too late, and no harm
