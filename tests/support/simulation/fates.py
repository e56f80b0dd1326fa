"""What is known of durable tasks over all hosts, and judged at once.

    tasks ── begins, leaves ─────────────┐
    hosts ── schedule, cancel, stored ───┼─► Fates: faults, in words
    Disk ─── opened, committed, closed ──┘

Of each batch it is asked whether its strikes and burials are allowed; so an acknowledged task is in
the file until it has run, or is a dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aioscheduler import QueuedScheduler, State, Task
from aioscheduler._durable.records import Batch, Begun, Burial, Opening, Reason, Row
from aioscheduler._scheduling.clock import SECOND
from aioscheduler._shipping.shipping import open_call
from aioscheduler._shipping.workercatalog import WorkerCatalog
from aioscheduler._transport import wire
from aioscheduler._transport.wire import BLOB_LIMIT, Kind
from aioscheduler.inside import Running

from .durables import ATTEMPTS, ONCE, RETRIED, RETRY
from .lives import Life

if TYPE_CHECKING:
    from .hosts import Host, HostWorld, OwnLife, OwnPlace

DOUBT = 2 * SECOND  # after a host's last heartbeat: a task due by then may have begun
MOST_LOSSES = 3


@dataclass(eq=False)
class Start:
    """One start of a task."""

    fate: Fate
    life: OwnLife | OwnPlace
    number: int
    attempt: int
    at: float
    over: bool = False
    returned: bool = False
    failed: bool = False  # it raised, and its process lived to report it
    heard: bool = False  # the host has read that it has ended
    retried: bool = False  # the host has read that it starts again

    @property
    def is_cut(self) -> bool:
        """Return whether its process has died with it."""
        return self.life.dead and not (self.heard or self.retried)


@dataclass
class Fate:
    """What the model knows of a durable task.

    Attributes:
        ident: Its number here.
        kind: The name of its function.
        dues: The times that it was given, at which it may start.
        host: The host in which it was scheduled.
        deed: What it does.
        nap: Seconds that it sleeps.
        size: Bytes of its arguments.
        id_: The id that it was given.
        replaces: Whether it takes the id from another.
        early: Whether it was scheduled before the file was open.
        follows: The task that scheduled it, if any.
        row: Its number in the file, once it is known.
        starts: Its starts, since it was last put back from a letter.
        asked: The hosts in which it was asked to end, or lost its id to another.
        cancelled: The hosts in which it was asked to end.
        forgone: The host in which that was on disk.
        moves: How often it was rescheduled.
        requeued: The host in which it was last put back.
        was_put: Whether it was ever in the file.
    """

    ident: int
    kind: str
    dues: set[int]
    host: int
    deed: str = ""
    nap: float = 0.0
    size: int = 0
    id_: str | None = None
    replaces: bool = False
    early: bool = False
    follows: int | None = None
    row: int | None = None
    starts: list[Start] = field(default_factory=list, repr=False)
    asked: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    forgone: int | None = None
    moves: int = 0
    requeued: int | None = None
    was_put: bool = False

    @property
    def has_ended(self) -> bool:
        return any(start.returned or start.failed for start in self.starts)


class Fates:
    """The fates of a seed's durable tasks.

    Attributes:
        faults: What went wrong, in words.
        all: By the number that the world gives a task.
        rows: The tasks in the file, derived from the batches written.
        letters: The dead letters in the file, and their reasons.
        is_clean: Whether the last host closed it clean.
        is_closed: Whether it has closed the file.
        by_row: The tasks by their numbers in the file.
    """

    def __init__(self, world: HostWorld) -> None:
        self.world = world
        self.faults: list[str] = []
        self.all: list[Fate] = []
        self.rows: dict[int, Row] = {}
        self.letters: dict[int, Reason] = {}
        self.by_row: dict[int, Fate] = {}
        self.is_clean = True
        self.is_closed = True
        self._catalog = WorkerCatalog()
        self._latest = 0

    def fault(self, what: str) -> None:
        self.world.say("FAULT", what)
        self.faults.append(what)

    def _check(self, fate: Fate, good: object, what: str) -> None:
        if not good:
            row = None if fate.row is None else self.rows.get(fate.row)
            self.fault(f"{fate} {what}; in the file: {row!r:.300}; {fate.starts!r:.600}")

    def new(self, kind: str, dues: set[int], **known: Any) -> Fate:
        """Note a task before it is scheduled."""
        fate = Fate(len(self.all), kind, dues, self.world.host.number, **known)
        self.all.append(fate)
        return fate

    def follows(self, ident: int, when: timedelta | None) -> Fate:
        """Note a task before another schedules it."""
        before, due = self.all[ident], 0
        if self.world.cls is not QueuedScheduler:
            due = self.world.due(when)
        return self.new(
            "chain", {due}, nap=before.nap, id_=before.id_, replaces=True, follows=ident
        )

    # ---- requests

    def was_asked_to_end(self, fate: Fate, host: Host) -> None:
        """Note that a host was asked to cancel a task, or that it lost its id to another."""
        fate.asked.add(host.number)

    def with_id(self, id_: str) -> list[Fate]:
        """Return the task of the file that has an id, if any."""
        return [self.by_row[number] for number, row in self.rows.items() if row.id == id_]

    def is_forgone(self, fate: Fate, host: Host) -> None:
        """Note that this is on disk."""
        fate.forgone = host.number

    def is_acknowledged(self, fate: Fate) -> None:
        """Judge a host's word that a task is on disk: it is, or it ended before it got there."""
        # Or it was never made, as one with its id was cleaning up.
        cancelled = any(each.cancelled for each in self.all if each.id_ == fate.id_)
        merged = fate.id_ is not None and (fate.early or cancelled)
        gone = fate.has_ended or fate.asked or merged
        self._check(fate, fate.was_put or gone, "is said to be on disk, and never was")

    # ---- from the file

    def opened(self, opening: Opening, rows: Mapping[int, Row]) -> None:
        """Judge an opening: all that was written is there, and nothing else."""
        if rows != self.rows:
            differ = {n for n in rows.keys() | self.rows.keys() if rows.get(n) != self.rows.get(n)}
            self.fault(f"the file and what was written differ in the rows {differ}")
        told = opening.tasks, opening.letters, opening.clean
        known = len(self.rows), len(self.letters), self.is_clean
        if told != known:
            self.fault(f"a store says {told} of tasks, letters, its end, where it has {known}")
        if any(row >= opening.next_row for row in self.by_row):
            self.fault(f"{opening.next_row} is to be the next row, and was given")
        host = self.world.host
        host.base = dict(rows)
        host.in_doubt = 0 if opening.clean else self.world.disk.heartbeat + DOUBT
        self.is_clean = self.is_closed = False

    def closed(self, clean: bool) -> None:
        self.is_clean, self.is_closed = clean, True

    def committed(self, batch: Batch) -> None:
        """Judge a batch that is on disk."""
        self.world.say("commit", *map(len, batch[:-1]))
        for bucket, number in batch.strikes:
            row = self._take(bucket, number)
            if row is not None:
                self._check_strike(self.by_row[number])
        were = {update.row: self.rows.get(update.row) for update in batch.updates}
        for update in batch.updates:
            row = self._take(update.bucket, update.row)
            if row is not None:
                bucket, number, due, begun, attempt, failed, losses, given, id_ = update
                self.rows[number] = row._replace(
                    due=due,
                    begun=begun,
                    attempt=attempt,
                    failed=failed,
                    losses=losses,
                    given=given,
                    id=id_,
                )
                if losses >= MOST_LOSSES:
                    self.fault(f"{row} was lost {losses} times, and stays")
        for row in batch.puts:
            self._put(row)
        for burial in batch.burials:
            buried = self._take(burial.bucket, burial.row)
            if buried is not None:
                self.letters[burial.row] = burial.reason
                # It was not buried for changes in the same batch.
                before = were.get(burial.row) or buried
                self._check_burial(self.by_row[burial.row], before, burial)
        for number in (*batch.discards, *(letter for letter, _ in batch.requeues)):
            self._discard(number)
        ids = [row.id for row in self.rows.values() if row.id is not None]
        if len(ids) != len(set(ids)):
            self.fault(f"an id is there twice: {sorted(ids)}")

    def _take(self, bucket: int, number: int) -> Row | None:
        row = self.rows.pop(number, None)
        if row is None or row.bucket != bucket:
            self.fault(f"row {number} is not in bucket {bucket}: {row}, {self.by_row.get(number)}")
        return row

    def _put(self, row: Row) -> None:
        _, args, _ = open_call(self._catalog, None, row.payload)
        fate = self.all[args[0]]
        if row.row in self.by_row and self.by_row[row.row] is not fate or row.row in self.rows:
            self._check(fate, False, f"has the row {row.row} of {self.by_row[row.row]}")
        again = fate.requeued == self.world.host.number
        self._check(fate, again or not fate.was_put, "is put twice")
        fate.row, fate.was_put = row.row, True
        self.by_row[row.row] = fate
        self.rows[row.row] = row

    def _discard(self, number: int) -> None:
        fate = self.by_row[number]
        good = self.letters.pop(number, None) and fate.row != number
        self._check(fate, good, f"was requeued, and its letter {number} goes before it comes")

    def _check_strike(self, fate: Fate) -> None:
        replaced = any(
            other.id_ == fate.id_ and other.replaces for other in self.all[fate.ident + 1 :]
        )
        good = (
            any(start.returned for start in fate.starts)
            or fate.asked
            or (fate.id_ is not None and replaced)
        )
        self._check(fate, good, "is struck, and has not run")

    def _check_burial(self, fate: Fate, row: Row, burial: Burial) -> None:
        reason = burial.reason
        if reason is Reason.FAILED:
            good = any(start.failed for start in fate.starts)
        elif reason is Reason.TOO_LATE:
            good = fate.kind == "late"
        elif reason is Reason.UNREADABLE:
            good = fate.deed == "is unreadable"
        elif reason is Reason.UNKNOWN:
            good = fate.kind in self.world.missed
        else:
            good = row.begun is not Begun.NO
            good &= fate.kind in ONCE or row.losses >= MOST_LOSSES - 1
            harmless = not any(each.deed.startswith("kills") for each in self.all)
            good &= not (self.world.calm and harmless and fate.kind not in ONCE)
        self._check(fate, good, f"is buried as {reason}")
        cancelled = self.world.host.number in fate.cancelled
        self._check(fate, not cancelled, f"was cancelled, and is buried as {reason}")

    # ---- from the pipes

    def host_is_told(self, life: Life, frame: list[Any]) -> None:
        """Note a frame that the host reads."""
        kind, *fields = frame
        if kind in (Kind.ANNOUNCED, Kind.PROPOSED):
            life.heard.update(fields[1])
        elif kind == Kind.UNBEGUN:
            life.heard.difference_update(fields[1])
        elif kind in (Kind.RETRY, Kind.ENDED):
            ended = kind == Kind.ENDED and fields[2] != wire.CANCELLED
            for start in self._starts_of(life, fields[1]):
                start.heard |= ended
                if kind == Kind.RETRY:  # perhaps of an earlier start: a queue does not wait for us
                    same = [s for s in start.fate.starts if s.life is life and s.failed]
                    self._check(start.fate, same, "is tried again, and has not failed")
                    for each in [each for each in same if not each.retried][:1]:
                        each.retried = True

    def _starts_of(self, life: Life, numbers: list[int]) -> list[Start]:
        known = self.world.host.starts
        return [known[life.born, n] for n in numbers if (life.born, n) in known]

    def is_announced(self, number: int, place: tuple[int, int], life: Life) -> None:
        """Do nothing: their order is judged when they begin."""

    def is_forgiven(self, life: Life) -> None:
        """Do nothing: no task is blamed here."""

    def life_ended(self, life: Life) -> None:
        """Note that the host has taken the end of a life."""
        life.gone = True

    # ---- from the tasks

    def begins(self, ident: int, life: OwnLife | OwnPlace, running: Running) -> Start:
        """Judge the first step of a task; most of the promises are about it."""
        world, fate = self.world, self.all[ident]
        (_, _, worker, scheduler, _), number, due, attempt = running
        number = life.host.number_of(worker, number)
        world.say("start", ident, fate.kind, "in", life.pid, "attempt", attempt)
        start = Start(fate, life, number, attempt, world.loop.time())
        self._check(fate, number in life.written or number in life.heard, "starts unannounced")
        self._check_time(fate, due)
        self._check_again(fate, start)
        kept = None if life.host.dead else life.host.kept(worker, number)
        if kept is not None and kept.row >= 0:
            row = self.rows.get(kept.row)
            if fate.row is None:
                fate.row = kept.row
            self._check(fate, fate.row == kept.row, f"starts as row {kept.row}")
            self._check_record(fate, life.host, row)
            self._check_attempt(fate, life.host, kept.row, attempt)
            self._check_order(fate, life.host, (worker, scheduler), kept.row, due)
        crossed = life.host.number in fate.asked  # its announcement was on its way
        if fate.kind in ONCE and fate.row is not None and not crossed:
            row = self.rows.get(fate.row)
            on_record = row is not None and row.begun is Begun.ONCE
            self._check(fate, on_record, "starts, and that is not on record")
        fate.starts.append(start)
        life.host.starts[life.born, number] = start
        return start

    def leaves(self, start: Start, error: BaseException | None, cut: bool = False) -> None:
        """Judge the last step of a task; `cut`: it turned a cancellation into a failure."""
        self.world.say("leaves", start.fate.ident, repr(error))
        start.over = True
        if error is None:
            start.returned = True
        elif not cut and (not start.life.dead or start.life.apart):
            start.failed = True
        if not isinstance(start.life, Life):  # without frames its host knows at once
            kept = None if start.life.dead else start.life.host.kept(0, start.number)
            may = start.failed and start.fate.kind in RETRIED
            start.retried = may and kept is not None and kept.failed + 1 < ATTEMPTS
            start.heard = not (start.retried or start.life.dead)

    def _check_time(self, fate: Fate, due: int) -> None:
        self._latest = max(self._latest, self.world.clock())
        if self.world.jumps:  # an announced task starts even if the clock is set back
            self._latest = max(self._latest, *(reached for _, reached in self.world.jumps))
            early = min(fate.dues) - self._latest
        else:
            early = min(fate.dues) - self.world.clock()
        self._check(fate, early <= 0, f"is early by {early / SECOND:.3f} s")
        self._check(fate, due in fate.dues, f"believes that it was due at {due}")

    def _check_again(self, fate: Fate, start: Start) -> None:
        host = start.life.host
        if fate.forgone is not None:
            good = fate.forgone == host.number
            self._check(fate, good, "starts, though its end was asked for in an earlier host")
        for before in fate.starts:
            alive = not before.life.dead or before.life.apart
            self._check(fate, before.over or not alive, "runs twice at a time")
            here = before.life.host is host
            self._check(fate, not (here and before.heard), "starts after its end")
            if fate.kind in ONCE:
                self._check(fate, before.retried, "starts twice, and must not")
            if here and before.retried and not self.world.jumps and not fate.moves:
                waited = start.at - before.at - fate.nap
                good = waited >= RETRY.wait_initial - 1e-3  # type: ignore[operator]
                self._check(fate, good, f"is tried again after {waited} s")

    def _check_record(self, fate: Fate, host: Host, row: Row | None) -> None:
        """Judge that all that must be on disk before a start is there."""
        if fate.id_ is not None:
            self._check(fate, row is not None, "has an id, and starts before it is on disk")
        base = host.base.get(-1 if fate.row is None else fate.row)
        own = [start for start in fate.starts if start.life.host is host]
        doubted = base is not None and base.due < host.in_doubt
        doubted |= any(start.is_cut for start in own)
        if doubted and not any(start.retried for start in own):
            on_record = row is not None and row.begun is not Begun.NO
            self._check(fate, on_record, "may have ended its host, and starts off the record")

    def _check_attempt(self, fate: Fate, host: Host, number: int, attempt: int) -> None:
        base = host.base.get(number)
        expected = 1 if base is None else base.attempt + (base.begun is not Begun.NO)
        expected += sum(start.life.host is host for start in fate.starts)
        told = f"believes that this is attempt {attempt}, not {expected}"
        if any(life.dead and life.host is host for life in self.world.own):
            self._check(fate, attempt >= expected, told)
        else:
            self._check(fate, attempt == expected, told)

    def _check_order(
        self, fate: Fate, host: Host, place: tuple[int, int], number: int, due: int
    ) -> None:
        """Judge a first start in a host, which must be in the order of scheduling."""
        own = [start for start in fate.starts if start.life.host is host]
        unknown = fate.kind in self.world.missed  # it may have failed there without a first step
        if own or unknown or fate.early or fate.moves or fate.size >= BLOB_LIMIT:
            return
        base = host.base.get(number)
        if self.world.cls is not QueuedScheduler:
            waits = fate.kind in ONCE or fate.id_ is not None
            waits |= base is not None and (base.due < host.in_doubt or base.begun is not Begun.NO)
            waits |= base is not None and (base.losses > 0 or base.given is not None)
            waits |= any(life.dead and life.host is host for life in self.world.own)
            if waits:
                return
        last = host.latest.get((*place, due), -1)
        host.latest[(*place, due)] = number
        self._check(fate, last < number, f"overtook row {last}: {self.by_row.get(last)}")

    # ---- ends

    def is_over(self, fate: Fate, task: Task[Any]) -> None:
        """Judge a host that has closed in order: its handles agree with the file."""
        self._check(fate, task.done(), "has a handle that is not told its end")
        if fate.early and fate.id_ is not None and fate.row is None:
            return  # it is one with a task that was in the file
        in_file = fate.row in self.rows
        kept = task.state is State.KEPT
        self._check(fate, in_file is kept, f"is {task.state}, and in the file: {in_file}")

    def judge(self) -> None:
        """Judge a world whose tasks have all ended."""
        if self.rows:
            left = [self.by_row[row] for row in list(self.rows)[:5]]
            self.fault(f"{len(self.rows)} tasks are left in the file: {left}")
        for fate in self.all:
            if fate.deed.startswith("kills") and self.world.calm:
                # Its first start is not on record; nor is one that crossed with a move.
                most = MOST_LOSSES + 1 + fate.moves
                self._check(fate, len(fate.starts) <= most, "was let kill for too long")
        self._judge_chains()

    def _judge_chains(self) -> None:
        chains: dict[str, list[Fate]] = {}
        for fate in self.all:
            if fate.kind == "chain" and fate.id_ is not None:
                chains.setdefault(fate.id_, []).append(fate)
        for name, links in chains.items():
            length = self.world.chains[name]
            if not links[0].was_put or any(f.row in self.letters for f in links):
                continue
            steps = {fate.ident: 0 for fate in links[:1]}
            for fate in links[1:]:
                assert fate.follows is not None
                steps[fate.ident] = steps[fate.follows] + 1
            done = {steps[fate.ident] for fate in links if any(s.returned for s in fate.starts)}
            if done != set(range(length)):
                self.fault(f"of the chain {name} {sorted(done)} ran, of {length}: {links!r:.900}")
