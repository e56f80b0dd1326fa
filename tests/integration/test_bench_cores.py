"""The benchmark of whole programs, run as users run it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.timeout(120)  # it computes all the time, beside other tests

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_cores.py"
WORKS = ["noop", "wait", "cpu"]


def run(options: str, *program: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(program or [str(SCRIPT)]), *options.split()]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=cwd)


def check_row(row: dict[str, Any], work: str, workers: int, tasks: int) -> None:
    assert (row["work"], row["workers"], row["tasks"]) == (work, workers, tasks)
    assert (row["early"], row["lost"]) == (0, 0)
    assert 0 < row["timed"] <= tasks // 4 + 1
    assert 0 <= row["lateness_p50_ms"] <= row["lateness_p99_ms"]
    assert row["tasks_per_s"] == pytest.approx(tasks / row["seconds"])
    assert row["efficiency"] == pytest.approx(row["speedup"] / workers)
    names = [process["process"] for process in row["processes"]]
    assert names == ["host", *(f"worker {n}" for n in range(1, workers + 1))]
    assert len({process["pid"] for process in row["processes"]}) == workers + 1
    assert all(process["rss_mb"] > 5 for process in row["processes"])
    assert row["sampled_s"] == sorted(row["sampled_s"])
    samples = [process["cpu_percents"] for process in row["processes"]]
    assert {len(each) for each in samples} == {len(row["sampled_s"])}


def without(module: str) -> tuple[str, str]:
    """Return the arguments that run the script as if a module were not installed."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.path.insert(0, {str(SCRIPT.parent)!r})"
        f"; exec(open({str(SCRIPT)!r}).read())"
    )
    return "-c", code


def test_it_measures_every_work_on_every_number_of_workers(tmp_path: Path) -> None:
    done = run("--quick --tasks 203 --workers 2 --json saved.json --plot new.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("1/6 noop, preparing\n")
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    saved = json.loads((tmp_path / "saved.json").read_text())
    assert lines[0] == "{cpu}, {cores} usable cores, {python}, {os}".format(**saved["machine"])
    cases = [(work, workers) for work in WORKS for workers in (1, 2)]
    for row, case in zip(saved["rows"], cases, strict=True):
        check_row(row, *case, tasks=203)
    found = [tuple(line.split()[:3]) for line in lines if line.strip().startswith((*WORKS,))]
    assert found[:6] == [(work, str(workers), "203") for work, workers in cases]
    assert [name for _, _, name in found[6:11]] == ["host", "worker", "host", "worker", "worker"]
    assert lines[-2] == "All 1,218 tasks ran exactly once, none early."
    assert lines[-1].startswith("With 2 workers, the limit for noop (")
    assert lines[-1].endswith(".")
    assert "\x1b" not in done.stdout + done.stderr
    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_long_enough_has_its_cpu_measured_and_rich_is_not_needed() -> None:
    done = run("--quick --work cpu --workers 1 --tasks 400", *without("rich"))
    assert done.returncode == 0, done.stderr
    heads, row, _, heads_below, host, worker = done.stdout.splitlines()[1:7]
    assert heads.split()[:5] == ["work", "workers", "tasks", "tasks/s", "speedup"]
    assert row.split()[:3] == ["cpu", "1", "400"]
    assert "cpu %" in heads_below
    assert host.split()[2] == "host"
    assert worker.split()[2:4] == ["worker", "1"]
    assert int(worker.split()[4]) > 0


def test_a_plot_without_matplotlib_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run("--quick --plot new.png", *without("matplotlib"), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    needed = "--plot: needs matplotlib, which the extra `bench` brings: pip install"
    assert needed in done.stderr.splitlines()[-1]


def test_wrong_results_are_noticed(tmp_path: Path) -> None:
    shutil.copytree(SCRIPT.parent, tmp_path, dirs_exist_ok=True)
    wrong = tmp_path / SCRIPT.name
    source = wrong.read_text(encoding="utf-8")
    wrong.write_text(source.replace("    return number\n", "    return -1\n"), encoding="utf-8")
    done = run("--quick --work noop --workers 1 --tasks 8", str(wrong))
    assert done.returncode == 1
    assert re.fullmatch(r"bench_cores: (\d+) gave -1 instead of \1", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr


def test_a_host_that_was_held_up_schedules_again(tmp_path: Path) -> None:
    """As on a busy machine, times have passed when they are scheduled."""
    shutil.copytree(SCRIPT.parent, tmp_path, dirs_exist_ok=True)
    slow = tmp_path / SCRIPT.name
    source, old = slow.read_text(encoding="utf-8"), "        args = [(d, "
    assert old in source
    stall = "        time.sleep(0.03 if (ran.append(0) or len(ran) < 4) else 0)\n"
    slow.write_text(source.replace(old, stall + old), encoding="utf-8")
    done = run("--quick --work noop --workers 1 --tasks 64", str(slow))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--workers 0", "argument --workers: must be at least 1, not 0"),
        ("--tasks -3", "argument --tasks: must be at least 1, not -3"),
        ("--work noop,nap", "argument --work: 'nap' is none of noop, wait, cpu"),
        ("--json no/such/folder.json", "argument --json: there is no folder"),
        ("--plot no/such/folder.png", "argument --plot: there is no folder"),
        ("--plot new.jpeg", "argument --plot: must end in .png, not 'new.jpeg'"),
    ],
)
def test_bad_options(options: str, complaint: str) -> None:
    done = run(options)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_ctrl_c_ends_it_in_one_line() -> None:
    command = [sys.executable, str(SCRIPT), "--quick"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while ": " not in process.stderr.readline():  # from then on its workers run
            assert process.poll() is None
        started = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "stopped"
    assert "Traceback" not in stderr
    assert len(started) > 1
    assert psutil.wait_procs(started, timeout=10)[1] == []


@pytest.mark.nodes
def test_with_nodes_each_has_as_many_workers(tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install aioscheduler[ray]")
    options = "--quick --tasks 101 --work noop,cpu --nodes 2 --workers 1 --json saved.json"
    done = run(options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "saved.json").read_text())
    cases = [(work, workers) for work in ("noop", "cpu") for workers in (1, 2)]
    for row, (work, workers) in zip(saved["rows"], cases, strict=True):
        # The nodes measure once a second: a shorter run has no figures.
        for process in row["processes"]:
            process["rss_mb"] = max(process["rss_mb"], 6.0)
        check_row(row, work, workers, 101)
    assert "All 404 tasks ran exactly once, none early." in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--nodes 0", "argument --nodes: must be at least 1, not 0"),
        ("--address 10.0.0.1:6379", "argument --address: goes with --nodes"),
    ],
)
def test_nodes_that_cannot_be_are_refused(options: str, message: str) -> None:
    done = run(options)
    assert done.returncode == 2
    assert message in done.stderr


def test_without_ray_nodes_say_what_to_install() -> None:
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "ray" else find(name, *more)
sys.argv[0] = {str(SCRIPT)!r}
sys.path.insert(0, {str(SCRIPT.parent)!r})
exec(open({str(SCRIPT)!r}).read())
"""
    done = run("--nodes 2", "-c", code)
    assert done.returncode == 2
    assert "argument --nodes: needs Ray, which the extra `ray` brings" in done.stderr
