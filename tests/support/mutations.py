"""Small wrong changes of the rules, each of which the simulation must find.

    python tests/support/mutations.py                    all of them
    python tests/support/mutations.py "begins unheard"   one, by its name

A mutation replaces a piece of text in a copy of the two packages. It shows that the simulation can
fail: that it reaches the code where the rule matters, and that its model knows the promise. A
mutation whose text is no longer in the source is out of date and must be rewritten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("aioscheduler", "workers/aioscheduler_workers")
PATIENCE = 600.0  # seconds; mutated code may run for ever


class OutOfDate(Exception):
    """The text that a mutation replaces is not in its file, or more than once."""


class Mutation(NamedTuple):
    """A wrong change of the source.

    Attributes:
        name: Its name.
        breaks: The promise that it breaks.
        file: The file that it changes.
        old: The text that is replaced.
        new: The text that replaces it.
        seeds: The number of seeds within which it is found.
        fast: Whether it is found in a moment.
        hosts: Whether it needs hosts that succeed one another on a store.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    seeds: int = 300
    fast: bool = False
    hosts: bool = False


ANNOUNCEMENTS = "aioscheduler/_routing/announcements.py"
ANNOUNCER = "workers/aioscheduler_workers/announcer.py"
RUNNER = "workers/aioscheduler_workers/runner.py"
WORKER = "workers/aioscheduler_workers/worker.py"
DESK = "workers/aioscheduler_workers/upstream.py"
BOOK = "aioscheduler/_routing/book.py"
ENGINE = "aioscheduler/_scheduling/engine.py"
ENTRY = "aioscheduler/_transport/entry.py"
LEDGER = "aioscheduler/_transport/ledger.py"
OPTIONS = "aioscheduler/options.py"
OUTBOX = "aioscheduler/_transport/outbox.py"
RECYCLING = "aioscheduler/_routing/recycling.py"
ROUTER = "aioscheduler/_routing/router.py"
RECOVERY = "aioscheduler/_routing/recovery.py"
REMOTE = "aioscheduler/_routing/remote.py"
DRAINING = "aioscheduler/_processes/draining.py"
SUPERVISOR = "aioscheduler/_processes/supervisor.py"
WIRE = "aioscheduler/_transport/wire.py"
TIMERS = "aioscheduler/_scheduling/timers.py"
ADMISSION = "aioscheduler/_routing/admission.py"
COLUMNS = "aioscheduler/_durable/columns.py"
COMMITS = "aioscheduler/_routing/commits.py"
DRAFTS = "aioscheduler/_routing/drafts.py"
HORIZON = "aioscheduler/_durable/horizon.py"
PAGING = "aioscheduler/_routing/paging.py"
SHELF = "aioscheduler/_routing/shelf.py"
SHELFLISTING = "aioscheduler/_routing/shelflisting.py"
GROUP = "aioscheduler/_durable/group.py"
KEEPER = "aioscheduler/_routing/keeper.py"
CONFIRMED = "aioscheduler/_routing/confirmedstarts.py"
KEEPING = "aioscheduler/_routing/keeping.py"
LOCALCREW = "aioscheduler/_routing/localrunner.py"
RESTORING = "aioscheduler/_routing/restoring.py"
SQLITE = "aioscheduler/_durable/sqlite.py"

MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "begins unheard",
        "a task begins only when its announcement is in the pipe",
        ANNOUNCER,
        "        self._pipe.send(announcement, partial(engine.run, numbers, dues, ends))\n",
        "        self._pipe.send(announcement)\n        engine.run(numbers, dues, ends)\n",
        fast=True,
    ),
    Mutation(
        "begins unconfirmed",
        "a task that waits for the host's word begins on that alone",
        ANNOUNCER,
        "self._pipe.send(wire.encode([Kind.PROPOSED, engine.index, numbers]))",
        "self._pipe.send(\n                wire.encode([Kind.PROPOSED, engine.index, numbers]),\n"
        "                partial(engine.run, numbers, dues),\n            )",
        fast=True,
    ),
    Mutation(
        "a second attempt is unconfirmed",
        "so does every attempt of it",
        RUNNER,
        "            self._announcer.confirm_again(number, more.confirmed)\n",
        "            pass\n",
    ),
    Mutation(
        "old words for a new process",
        "the host's word is for the process that has announced",
        ANNOUNCEMENTS,
        "        self._unconfirmed.clear()  # functions returned by `proposed` still look there\n",
        "",
    ),
    Mutation(
        "a queue lets others by",
        "what comes behind a task of a queue begins behind it",
        ANNOUNCER,
        "confirmed or (waiting[0] and not timed)",
        "confirmed",
    ),
    Mutation(
        "what waits has begun",
        "what has not the host's word when its process dies waits again",
        ANNOUNCEMENTS,
        "        return list(self._unconfirmed.values())\n",
        "        return []\n",
        seeds=1500,
    ),
    Mutation(
        "two orders are one",
        "what has begun does not begin again",
        ANNOUNCEMENTS,
        "            self._confirmed[scheduler].extend(numbers)\n",
        "            self._started[scheduler].extend(numbers)\n",
        seeds=1500,
    ),
    Mutation(
        "withdraws what runs",
        "a withdrawal never touches what has begun",
        WORKER,
        "if number in engine.waiting or self._announcer.is_held_back(number):",
        "if engine.find(number) is not None:",
    ),
    Mutation(
        "a withdrawal is forgotten",
        "what was withdrawn and not announced is given to no other process",
        BOOK,
        "sorted(number for number in self._asked if number not in moved)",
        "sorted(n for n, asked in self._asked.items() if asked is Request.CANCEL)",
    ),
    Mutation(
        "a withdrawal counts twice",
        "the manager counts what waits",
        BOOK,
        "        waits = asked is not Request.WITHDRAW and self.state(number) is State.PENDING\n",
        "        waits = self.state(number) is State.PENDING\n",
        fast=True,
    ),
    Mutation(
        "a start counts as waiting that was cancelled",
        "the manager counts what waits",
        BOOK,
        "                waiting -= isinstance(asked, Request)\n",
        "",
        fast=True,
    ),
    Mutation(
        "moved to its old time",
        "a task that was rescheduled starts at its new time",
        BOOK,
        "{n: entry.move(moved[n]) for n, entry in entries.items()}",
        "entries",
        fast=True,
    ),
    Mutation(
        "a move is forgotten",
        "it does so over a death, too",
        BOOK,
        "        self._amend_moved(moved, send=False)\n",
        "",
    ),
    Mutation(
        "the first frame holds",
        "it does so over another death",
        LEDGER,
        "                        found[number] = Entry._make(row)\n",
        "                        found.setdefault(number, Entry._make(row))\n",
    ),
    Mutation(
        "an old time comes alive",
        "it does so however often its number came back",
        TIMERS,
        "return number in self._alive and self._again.get(number, due) == due",
        "return number in self._alive",
    ),
    Mutation(
        "a blob is not sent again",
        "what is given again comes with its large payload",
        OUTBOX,
        "large = [(n, blobs[n]) for n in numbers if n in blobs]",
        "large = [(n, blobs[n]) for n in () if n in blobs]",
    ),
    Mutation(
        "a retry does not wait",
        "a failed task is tried again after its wait",
        BOOK,
        "n: min(now + wait, LATEST) for",
        "n: now for",
    ),
    Mutation(
        "an attempt is not counted",
        "a task knows how often it has been started",
        WIRE,
        "attempt=self.attempt + 1, failed=self.failed + 1",
        "attempt=self.attempt, failed=self.failed + 1",
    ),
    Mutation(
        "a failure is not counted",
        "no more attempts fail than may",
        WIRE,
        "attempt=self.attempt + 1, failed=self.failed + 1",
        "attempt=self.attempt + 1, failed=self.failed",
        fast=True,
    ),
    Mutation(
        "a death is a failure",
        "an attempt that its worker did not survive has not failed",
        ENTRY,
        "more._replace(attempt=more.attempt + 1, ",
        "more._replace(failed=more.failed + 1, attempt=more.attempt + 1, ",
    ),
    Mutation(
        "a retry moves the due time",
        "a task is told the due time that it was given, whichever attempt it is",
        RUNNER,
        "shown = due if given is None else given",
        "shown = due",
        fast=True,
    ),
    Mutation(
        "an attempt in a queue is not counted",
        "a task knows how often it has been started",
        RUNNER,
        "more = more.after_failure()",
        "more = more._replace(failed=more.failed + 1)",
    ),
    Mutation(
        "a head is overtaken",
        "a queue runs nothing else while its head waits for its next attempt",
        ENGINE,
        "self._head is not None or len(self.running) >= self.concurrency",
        "len(self.running) >= self.concurrency",
    ),
    Mutation(
        "a queue runs two",
        "a queue runs one task at a time, though more are announced",
        ENGINE,
        "len(self.running) >= self.concurrency",
        "len(self.running) > self.concurrency",
    ),
    Mutation(
        "one more runs",
        "no more tasks run on a scheduler at a time than may",
        ENGINE,
        "room = self.concurrency - len(self.running) if",
        "room = self.concurrency + 1 - len(self.running) if",
    ),
    Mutation(
        "a queue goes on past a blob",
        "nothing overtakes a task whose payload is on its way",
        ANNOUNCER,
        "several and not (self._expected or self._alone or self._lone)",
        "several and not (self._alone or self._lone)",
    ),
    Mutation(
        "a place is not free again",
        "a cancelled task makes room for the next",
        ENGINE,
        "if self.concurrency is not None:  # it may have taken up room",
        "if False:",
        seeds=1500,
    ),
    Mutation(
        "a drain cancels",
        "what outlasts a drain is lost or runs again, and is not cancelled",
        RUNNER,
        "if given_up and ending == wire.CANCELLED:",
        "if given_up and ending == wire.FAILED:",
    ),
    Mutation(
        "a drain has no end",
        "a worker that was told to go is gone in the end",
        DRAINING,
        "        self._process.kill()\n",
        "        pass\n",
        seeds=1500,
    ),
    Mutation(
        "what blocks runs again",
        "a task that has blocked its worker never starts again",
        RECOVERY,
        "        if blocked is not None:\n            for change in book.lose(*blocked):\n",
        "        if blocked is not None:\n            for change in ():\n",
    ),
    Mutation(
        "who waits is blamed",
        "a task that has not begun is not lost because it is named",
        BOOK,
        "        known = self._runs(number) and self.ledger.scheduler(number) == scheduler\n",
        "        known = self.ledger.scheduler(number) == scheduler\n",
    ),
    Mutation(
        "all are to blame",
        "who has not blocked the worker is told that another has",
        RECOVERY,
        '            cause = f"another task is to blame: {cause}"\n',
        "",
    ),
    Mutation(
        "two are recycled",
        "one worker of a manager is recycled at a time",
        RECYCLING,
        "while self._current is None and self._line:",
        "while self._line:",
        fast=True,
    ),
    Mutation(
        "one more task is run",
        "a worker that has run so many tasks is recycled",
        RECYCLING,
        "self._ran >= self._max_tasks",
        "self._ran > self._max_tasks",
    ),
    Mutation(
        "a turn is not passed on",
        "it is when its turn has come",
        RECYCLING,
        "            self._avoid()\n            self._call_next()\n",
        "            self._avoid()\n",
    ),
    Mutation(
        "the old count holds",
        "each process runs as many",
        RECYCLING,
        "        self._ran = 0\n",
        "        pass\n",
        fast=True,
    ),
    Mutation(
        "recycled for its first size",
        "a process that is too large when it begins is not recycled for that",
        RECYCLING,
        "self._limit = math.inf",
        "pass",
    ),
    Mutation(
        "recycling spends the budget",
        "recycling is no death",
        SUPERVISOR,
        "elif kept is None and not (",
        "elif not (",
        fast=True,
    ),
    Mutation(
        "a death in a drain is free",
        "whatever ends a process that is to go, but its own end and ours, is a death",
        SUPERVISOR,
        "elif kept is None and not (",
        "elif drain is None and not (",
        fast=True,
    ),
    Mutation(
        "a death in a drain is a recycling",
        "so it is counted",
        SUPERVISOR,
        "recycled = kept is not None and kept.recycles",
        "recycled = drain is not None and drain.recycles",
    ),
    Mutation(
        "who is through is not believed",
        "a process that has gone by itself has not died",
        DRAINING,
        "return self._is_over or self.went_by_itself(exitcode)",
        "return self._is_over",
        fast=True,
    ),
    Mutation(
        "one too many has not begun",
        "what has begun does not begin again",
        ANNOUNCEMENTS,
        "islice(order, len(order) - after, None)",
        "islice(order, max(0, len(order) - after - 1), None)",
    ),
    Mutation(
        "what has not begun is lost",
        "what was announced and has not begun waits again",
        BOOK,
        "                    changes.append(self._unstart(scheduler, unbegun))\n",
        "                    del unbegun\n",
    ),
    Mutation(
        "a millisecond early",
        "no task starts before its time",
        TIMERS,
        "bound = (now + 1) << NUMBER_BITS",
        "bound = (now + 1_000_000) << NUMBER_BITS",
    ),
    Mutation(
        "the last comes first",
        "what is due at the same time starts in the order of scheduling",
        TIMERS,
        "        if first == odd:\n",
        "        if odd < bound:\n",
    ),
    Mutation(
        "the dead rise",
        "a task that has ended does not start",
        LEDGER,
        "        if page.count == page.kept:\n",
        "        if page.count * 4 > page.kept:\n",
        fast=True,
    ),
    Mutation(
        "a sweep loses",
        "no task is forgotten",
        LEDGER,
        "                    if states[number % PAGE] != _GONE and wanted(number):\n",
        "                    if states[number % PAGE] == _PENDING and wanted(number):\n",
    ),
    Mutation(
        "a replacement cancels",
        "nothing that has begun is cancelled because another takes its id",
        REMOTE,
        "        self.withdraw(scheduler, number)\n",
        "        self.cancel(scheduler, number)\n",
    ),
    Mutation(
        "a cancelled task keeps its id",
        "the id of a task that never starts is free",
        REMOTE,
        "        if change.waiting:  # no longer pending: its id is free\n",
        "        if not change:\n",
    ),
    Mutation(
        "a head is lost with its process",
        "a queue waits for the next attempt of its head, in the next process, too",
        WORKER,
        "            if self._is_queue and dues and (isinstance(dues, int) or any(dues)):\n",
        "            if self._is_queue and not self:\n",
    ),
    Mutation(
        "two have an id",
        "an id names one task",
        ROUTER,
        "        self.dispossess(known)\n        if draft",
        "        if draft",
    ),
    Mutation(
        "too late for its limit",
        "a task does not start later than it may",
        OPTIONS,
        "    if options.max_lateness is None or now - due <= options.max_lateness:\n",
        "    if options.max_lateness is None or now - due <= 2 * options.max_lateness + 10**9:\n",
    ),
    Mutation(
        "a further attempt has no context",
        "each attempt starts from the values that were taken when its task was scheduled",
        WIRE,
        "return self._replace(attempt=self.attempt + 1, ",
        "return self._replace(captured=None, attempt=self.attempt + 1, ",
        fast=True,
    ),
    Mutation(
        "a task's context is not handed on",
        "what a task schedules has what it has of a context",
        DESK,
        "captured = None if propagation is None else propagation.capture()",
        "captured = None",
        fast=True,
    ),
    Mutation(
        "a rerun has no context",
        "so does what runs again because its worker has died",
        ENTRY,
        "more._replace(attempt=more.attempt + 1, confirmed",
        "more._replace(captured=None, attempt=more.attempt + 1, confirmed",
    ),
    Mutation(
        "begins off the record",
        "what must not start twice, or may have ended its host, begins when that is on record",
        CONFIRMED,
        "        self._commits.when(stamp, partial(self._confirm, announcement, kept, begin))\n",
        "        self._confirm(announcement, kept, begin, None)\n",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "no mark for once",
        "a task that must not start twice is not started by the next host",
        CONFIRMED,
        "            if each.once or each.suspect:\n",
        "            if each.suspect:\n",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "begins before it is stored",
        "a task with an id starts once it is stored",
        DRAFTS,
        "wire.FEW if function.once else int(id_ is not None)",
        "wire.FEW if function.once else 0",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "a stamp too early",
        "what is said to be on disk is there",
        GROUP,
        "self.stamp = kept.stamp = stamp = self.stamp + 1",
        "kept.stamp, self.stamp = self.stamp, (stamp := self.stamp + 1)",
        hosts=True,
    ),
    Mutation(
        "a strike is lost",
        "what has ended is in the file no more",
        GROUP,
        "strikes.append((what.bucket if update is None else update.bucket, what.row))",
        "strikes += [] if update else [(what.bucket, what.row)]",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "puts before strikes",
        "an id that was given up is given again",
        COLUMNS,
        "    tasks = -_strike(connection, batch.strikes, sizes)\n",
        "    tasks = -_strike(connection, (), sizes)\n",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "what has ended behind the horizon comes back",
        "what the file does not say yet is known until it does",
        HORIZON,
        "            self._note(row, Unwritten(stamp, None, None))\n\n    # ---- tasks that",
        "\n    # ---- tasks that",
        hosts=True,
    ),
    Mutation(
        "what is written is forgotten while a page is taken",
        "a page is as the file was when it was read",
        HORIZON,
        "until = min(self._readers, default=stamp)",
        "until = stamp",
        seeds=900,
        hosts=True,
    ),
    Mutation(
        "what is ahead is taken again",
        "a task comes into memory once",
        HORIZON,
        "if row.row not in self._unwritten and row.row not in self.ahead",
        "if row.row not in self._unwritten",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "the rest of a page is passed over",
        "all tasks up to the horizon are in memory",
        PAGING,
        "reached = page.reached if start >= len(rows) else some[-1].position",
        "reached = page.reached",
        seeds=600,
        hosts=True,
    ),
    Mutation(
        "a page without what is not written",
        "so are those that the file has not yet",
        HORIZON,
        "        if late:\n",
        "        if False:\n",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "dealt out of order",
        "what is due at once begins in the order in which it was scheduled",
        ADMISSION,
        "            own.sort()\n",
        "",
        seeds=900,
        hosts=True,
    ),
    Mutation(
        "written past a claim",
        "a chain loses no link: who waits for its id is written before its maker is struck",
        COMMITS,
        "        until = self.until()\n",
        "        until = None\n",
        seeds=4000,
        hosts=True,
    ),
    Mutation(
        "doubts are moved away",
        "what may have ended its host begins on record, though it was moved",
        SHELF,
        "doubted = self._restoring.doubts(row)",
        "doubted = False",
        seeds=900,
        hosts=True,
    ),
    Mutation(
        "what is loaded is listed once more",
        "a task is listed once",
        SHELFLISTING,
        "        if self._has_passed(row):\n            self._give(row.row)\n",
        "        if self._has_passed(row):\n            self._seen.add(row.row)\n",
        seeds=900,
        hosts=True,
    ),
    Mutation(
        "a row is given again",
        "a number of a row is given once, whatever was not written",
        SQLITE,
        "_set_meta(connection, clean=0, next_row=self._reserved)",
        "_set_meta(connection, clean=0)",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "unclean is taken for clean",
        "after a crash what may have run is started on record alone",
        RESTORING,
        "self._in_doubt = 0 if opening.clean else opening.heartbeat + HEARTBEAT_SLACK",
        "self._in_doubt = 0",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "suspects are let go",
        "it is, and not beside all others",
        RESTORING,
        "confirmed = wire.ALONE if kept.losses else 1",
        "pass",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "a close clears suspects",
        "it is, though a host that has not come to it has closed in order",
        KEEPER,
        "clean = await self.settle() and not self._is_in_doubt()",
        "clean = await self.settle()",
        hosts=True,
    ),
    Mutation(
        "losses are not written",
        "what ends its host, or its worker, each time is a dead letter in the end",
        GROUP,
        "kept.attempt, kept.failed, kept.losses),",
        "kept.attempt, kept.failed, 0),",
        hosts=True,
    ),
    Mutation(
        "who waits is marked",
        "and what stood in line meanwhile is not",
        CONFIRMED,
        "        self._waiting.update(dict.fromkeys(kept, announcement))\n",
        "        self._waiting.update(dict.fromkeys(kept, announcement))\n"
        "        self._marks.begun(*kept.values())\n",
        hosts=True,
    ),
    Mutation(
        "an attempt is forgotten",
        "a task knows how often it was started, by any host",
        RESTORING,
        "            kept.attempt += 1\n            self._group",
        "            self._group",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "a close strikes",
        "what has not ended stays in the file when a host closes",
        KEEPING,
        "                self._leave(kept, has_begun)\n",
        "                self._group.strike(kept)\n",
        fast=True,
        hosts=True,
    ),
    Mutation(
        "a failure at a close is forgotten",
        "what failed while a host closed is tried again by the next",
        LOCALCREW,
        "(State.CANCELLED, None) if asked else unasked",
        "(State.CANCELLED, None)",
        seeds=1200,
        hosts=True,
    ),
    Mutation(
        "what is stopped is cancelled",
        "what must not start twice, and was stopped, is a dead letter",
        BOOK,
        "                    end = State.LOST\n",
        "                    pass\n",
        hosts=True,
    ),
    Mutation(
        "what cannot be written is dropped",
        "a batch that the disk has no room for is written later",
        COMMITS,
        "        self._retry = self._loop.call_later(delay, self._again)\n",
        "        self._under_way = 0\n        self._reach(stamp)\n",
        hosts=True,
    ),
    Mutation(
        "a cancellation is not written",
        "what was cancelled in one host does not start in the next",
        KEEPING,
        "            self._group.strike(kept)\n"
        "            self._where.forget((kept,), self._group.stamp)\n"
        "            self._commits.soon()\n"
        "            if is_confirmed(kept):\n",
        "            if is_confirmed(kept):\n",
        hosts=True,
    ),
    Mutation(
        "only what waits is cancelled for good",
        "nor does what was cancelled while it ran",
        REMOTE,
        "        if self._keeping is not None:\n            self._keeping.withdrawn(number)\n",
        "        if self._keeping is not None and change.waiting:\n"
        "            self._keeping.withdrawn(number)\n",
        hosts=True,
    ),
    Mutation(
        "what is stopped may fail",
        "what a task makes of a close, or of a drain, is no failure",
        RUNNER,
        "        if engine.running.was_interrupted(number) and self._is_kept(called):\n",
        "        if False:\n",
        hosts=True,
    ),
    Mutation(
        "what is stopped here may fail",
        "nor is it where there are no workers",
        LOCALCREW,
        "            if self._is_kept(number) and engine.running.was_interrupted(number):\n",
        "            if False:\n",
        hosts=True,
    ),
    Mutation(
        "an old time holds in the next host",
        "a task that was given another time starts then, in the next host, too",
        KEEPING,
        "            kept.due, kept.given = due, None\n",
        "            kept.given = None\n",
        seeds=2000,
        hosts=True,
    ),
    Mutation(
        "an announcement of the dead counts",
        "what was announced by a process that is gone has not begun",
        CONFIRMED,
        "            if self._waiting.get(number) is not announcement:",
        "            if False:",
        seeds=3000,
        hosts=True,
    ),
)


def make(mutation: Mutation, folder: Path) -> None:
    """Make a copy of the packages with the mutation in it.

    Raises:
        OutOfDate: The source has changed.
    """
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    file = folder / mutation.file
    source = file.read_text(encoding="utf-8")
    if source.count(mutation.old) != 1:
        raise OutOfDate(
            f"{mutation.name!r} replaces what stands {source.count(mutation.old)} times in "
            f"{mutation.file}, and not once; write it anew:\n{mutation.old}"
        )
    file.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")


def find(mutation: Mutation) -> str:
    """Simulate with a mutation; return the first fault found, or "".

    Raises:
        OutOfDate: The source has changed.
        RuntimeError: The simulation itself could not be run.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        make(mutation, folder)
        command = ["tests/support/simulate.py", "--seeds", str(mutation.seeds), "--until-bad"]
        if mutation.hosts:
            command.append("--hosts")
        path = os.pathsep.join((str(folder), str(folder / "workers")))
        try:
            done = subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"a seed that takes more than {PATIENCE:.0f} s"
    if done.returncode == 0:
        return ""
    if not done.stdout.startswith("seed "):
        raise RuntimeError(f"the simulation with {mutation.name!r} failed:\n{done.stderr}")
    return done.stdout.splitlines()[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of mutations; without: all")
    names = parser.parse_args().names
    escaped = 0
    for mutation in MUTATIONS:
        if not names or mutation.name in names:
            found = find(mutation)
            escaped += not found
            print(f"{mutation.name}: {found[:200] or 'ESCAPED'}", flush=True)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
