"""The command line: `aioscheduler top` and `aioscheduler store`, or `python -m aioscheduler top`.

Modules that need rich or a terminal are imported where they are used: `--json` needs neither.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from . import __version__, storecli
from .top.rates import SORTS, Rates
from .top.sampling import NO_MANAGER, Sample, take_sample

PAUSE = 0.5  # seconds between the two samples that make a rate
WIDTH = 160  # characters, if the output is no terminal
NO_RICH = "aioscheduler top needs rich: install the extra aioscheduler[top], or use --json"
NO_TERMINAL = "this is not a terminal: use --once or --json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    options = _parser().parse_args(arguments)
    is_top = options.command == "top"
    if not is_top:
        storecli.check(options)
    try:
        status = _top(options) if is_top else storecli.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has closed the pipe
        _print_no_more()
        return 141
    except OSError as error:  # the output may go to a full disk
        if is_top:
            raise
        _print_no_more()
        return _complain(f"aioscheduler store cannot go on: {error}", 1)
    return status


def _print_no_more() -> None:
    """Discard all further output: otherwise Python would flush at exit, and fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def has_rich() -> bool:
    """Return whether rich is installed."""
    return importlib.util.find_spec("rich") is not None


def _top(options: argparse.Namespace) -> int:
    if options.json:
        return _print_json()
    if not has_rich():
        return _complain(NO_RICH, 2)
    if options.once:
        return _print_once(options.sort)
    if sys.platform == "win32" or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _complain(NO_TERMINAL, 2)
    from .top.live import watch

    watch(options.interval, options.sort)
    return 0


def _print_once(sort: str) -> int:
    from rich.console import Console

    from .top.table import View, draw

    sample, rates = _two_samples()
    if not sample.snapshots:
        return _complain(NO_MANAGER, 1)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # even a log in Latin-1 gets the figures
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(width=WIDTH if wide else None)
    view = View(sort, clock=time.strftime("%H:%M:%S"), keys=False, repeats=True)
    console.print(
        draw(sample.snapshots, rates, view, console.width, programs=sample.programs), end=""
    )
    return 0


def _print_json() -> int:
    sample, rates = _two_samples()
    managers = []
    for snapshot in sample.snapshots:
        pid, manager, stats = snapshot
        made: dict[str, Any] | None = None
        if stats is not None:
            workers = [
                {**worker, "done_per_second": rates.track(snapshot, worker["worker"]).rate}
                for worker in stats["workers"]
            ]
            made = {**stats, "workers": workers, "done_per_second": rates.track(snapshot).rate}
        program = sample.programs.get(pid)
        managers.append({"pid": pid, "manager": manager, "program": program, "stats": made})
    document = {"time": datetime.now(UTC).isoformat(), "managers": managers}
    print(json.dumps(document, allow_nan=False, indent=2))
    return 0 if managers else _complain(NO_MANAGER, 1)


def _two_samples() -> tuple[Sample, Rates]:
    """Take two samples, which make rates; only one if there is no manager."""
    rates = Rates()
    sample = take_sample()
    rates.add(sample.at, sample.snapshots)
    if sample.snapshots:
        time.sleep(PAUSE)
        sample = take_sample()
        rates.add(sample.at, sample.snapshots)
    return sample, rates


def _complain(message: str, status: int) -> int:
    print(message, file=sys.stderr)
    return status


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"seconds from 0.1 to 3600, not {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aioscheduler", description="Tools for programs that run aioscheduler."
    )
    parser.add_argument("--version", action="version", version=f"aioscheduler {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    top = commands.add_parser(
        "top",
        help="show the running managers and their workers, live",
        description="Show the managers of this user that run with Manager(monitor=True) or "
        "AIOSCHEDULER_MONITOR=1, with their workers. Keys: q or Ctrl-C quits; c, m, p, d, l, w "
        "sort workers by cpu, memory, pending, done, lateness, worker; r reverses; e shows "
        "repeats; space pauses.",
        epilog="A total row has the sums of its workers and their worst lateness and loop lag; its "
        "cpu and rss include the host's. Lateness is of the last minute; its sparkline shows the "
        "mean of the tasks since the last sample, from 0.1 ms at the bottom to 1 s at the top.",
    )
    top.add_argument("--once", action="store_true", help="print the table once")
    top.add_argument("--json", action="store_true", help="print everything once, as JSON")
    top.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="seconds between two samples, from 0.1 to 3600 (default: 1)",
    )
    top.add_argument("--sort", choices=SORTS, default="worker", help="column to sort workers by")
    storecli.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
