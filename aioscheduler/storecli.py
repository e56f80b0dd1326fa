"""The command `aioscheduler store`: inspects a file of durable tasks that no host has open.

__main__ ─► add_parser, run ─┬─► _durable.offline ── the file
                             └─► storetext ── lines
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from datetime import datetime
from itertools import islice

from . import storetext
from ._durable.offline import Changes, change, look
from ._durable.records import Reason
from .deadletters import read_before
from .errors import AioschedulerError, StoreError, StoreLocked

ASK_HOST = "While a host runs, ask it: manager.tasks(), manager.dead_letters(), manager.requeue()"
BACKUP_BY_HOST = "While a host runs, let it make the copy: await manager.backup(path)"


def run(options: argparse.Namespace) -> int:
    """Run the command, and return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may have any character
    do: Callable[[argparse.Namespace], int] = options.do
    try:
        return do(options)
    except StoreLocked as error:
        return _complain(f"{error}. {BACKUP_BY_HOST if do is _back_up else ASK_HOST}", 1)
    except AioschedulerError as error:
        return _complain(str(error), 1)


def _sum_up(options: argparse.Namespace) -> int:
    now = time.time_ns()
    with look(options.file) as found:
        _print(storetext.lines_of_info(found.info, now))
        _print(storetext.lines_of_tasks(found.count_tasks(), now))
        _print(storetext.lines_of_repeats(*found.count_repeats()))
        _print(storetext.lines_of_reasons(found.count_letters()))
        return _end(found.complaint)


def _list_tasks(options: argparse.Namespace) -> int:
    with look(options.file) as found:
        width = storetext.width_of(found.names.values())
        with closing(found.tasks(options.name, options.id_prefix, options.limit)) as tasks:
            _print([storetext.head_of_tasks(width)])
            _print(storetext.line_of_task(task, width) for task in tasks)
        return _end(found.complaint)


def _list_letters(options: argparse.Namespace) -> int:
    with look(options.file) as found:
        width = storetext.width_of(found.names.values())
        _print([storetext.head_of_letters(width)])
        for letter in islice(found.letters(options.reason), options.limit):
            _print(storetext.lines_of_letter(letter, width, options.text))
        return _end(found.complaint)


def _requeue(options: argparse.Namespace) -> int:
    count = status = 0
    with change(options.file) as file:
        rows = file.rows(options.reason) if options.all else _given(file, options.row)
        for row, task, why in file.requeue(rows, time.time_ns()):
            if task is None:
                status = _complain(f"dead letter {row} was not requeued: {why}", 1)
            elif not options.all:
                _print([f"dead letter {row} is now task {task}"])
            count += task is not None
        bad = file.complaint
    if options.all:
        _print([f"{count:,} requeued"])
    return _end(bad) or status


def _discard(options: argparse.Namespace) -> int:
    with change(options.file) as file:
        if options.all:
            rows: Iterable[int] = file.rows(options.reason, options.before)
        else:
            rows = _given(file, options.row)
        count, stay = file.discard(rows)
        bad = file.complaint
    _print([f"{count:,} discarded"])
    if stay:
        return _complain(f"{len(stay):,} stay: a corrupt page of the file is in the way. {bad}", 1)
    return _end(bad)


def _given(file: Changes, rows: Iterable[int]) -> list[int]:
    """Return the rows given on the command line, each once.

    Raises:
        UnknownTask: One of them is no dead letter; nothing has been changed yet.
    """
    given = list(dict.fromkeys(rows))
    for row in given:
        with suppress(StoreError):  # a corrupt page, which the change itself reports
            file.find(row)
    return given


def _back_up(options: argparse.Namespace) -> int:
    with look(options.file) as found:
        found.backup(options.dest)
    return 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _end(complaint: str) -> int:
    """Say what could not be read, and return the status to exit with."""
    return _complain(complaint, 1) if complaint else 0


def _complain(message: str, status: int) -> int:
    sys.stdout.flush()
    print(storetext.show(message), file=sys.stderr)
    return status


# ---- the command line


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `store` to `aioscheduler`."""
    store = commands.add_parser(
        "store",
        help="inspects the file of durable tasks, while no host has it open",
        description="Inspects the file of durable tasks (Manager(store=FILE)) while no host has it "
        "open; without a verb it prints a summary. Reading changes nothing.",
        epilog="No host can open the file while this command reads it.",
    )
    store.add_argument("file", metavar="FILE", help="the file that Manager(store=...) was given")
    store.set_defaults(do=_sum_up)
    verbs = store.add_subparsers(metavar="[VERB]")

    tasks = verbs.add_parser("tasks", help="lists the tasks, in order of their due times (UTC)")
    tasks.add_argument("--name", help="only those of one function, by its durable name")
    tasks.add_argument(
        "--id-prefix", default="", metavar="TEXT", help="only those whose ids begin with TEXT"
    )
    _add_limit(tasks)
    tasks.set_defaults(do=_list_tasks)

    dead = verbs.add_parser("dead", help="lists dead letters, in order of their rows")
    _add_reason(dead)
    _add_limit(dead)
    dead.add_argument("--text", action="store_true", help="show their full texts, with tracebacks")
    dead.set_defaults(do=_list_letters)

    requeue = verbs.add_parser("requeue", help="schedules the tasks of dead letters again")
    _add_which(requeue)
    requeue.set_defaults(do=_requeue, usage=requeue)

    discard = verbs.add_parser("discard", help="deletes dead letters for good")
    _add_which(discard)
    discard.add_argument(
        "--before",
        type=_time,
        metavar="TIME",
        help="with --all: only those older than TIME, such as 2026-11-26T08:00Z",
    )
    discard.set_defaults(do=_discard, usage=discard)

    backup = verbs.add_parser("backup", help="copies everything to a new file")
    backup.add_argument("dest", metavar="DEST", help="the path of the copy, which must not exist")
    backup.set_defaults(do=_back_up)


def check(options: argparse.Namespace) -> None:
    """Exit with a usage error, as argparse does, if options do not go together."""
    if options.do not in (_requeue, _discard):
        return
    if not options.all and (options.reason or getattr(options, "before", None) is not None):
        options.usage.error("--reason and --before need --all: a ROW is one dead letter")
    if options.do is _requeue and options.all and options.reason is None:
        options.usage.error("--all needs a --reason: not every dead letter may run again")


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=_number, metavar="N", help="N at most")


def _add_reason(parser: argparse.ArgumentParser, more: str = "") -> None:
    names = ", ".join(each.value for each in Reason)
    parser.add_argument(
        "--reason",
        type=_reason,
        metavar="REASON",
        help=f"{more}only those with this reason, one of {names}",
    )


def _add_which(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "row", type=_number, nargs="*", default=[], metavar="ROW", help="the rows of dead letters"
    )
    which.add_argument("--all", action="store_true", help="all that match the other options")
    _add_reason(parser, "with --all: ")


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 1 << 63:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more, not {text!r}")


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        known = ", ".join(each.value for each in Reason)
        raise argparse.ArgumentTypeError(f"must be one of {known}, not {text!r}") from None


def _time(text: str) -> int:
    try:
        before = read_before(datetime.fromisoformat(text))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"must be a time with an offset, such as 2026-11-26T08:00Z, not {text!r}"
        ) from None
    assert before is not None
    return before
