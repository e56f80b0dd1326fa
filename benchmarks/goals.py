"""The goals and the results: rows of goal, peer, ours, ratio."""

from __future__ import annotations

from typing import Any

Figures = dict[str, dict[str, Any]]
"""The results of one Python, by the name of the benchmark."""

Row = tuple[str, str, str, str, str, bool]
"""Subject, goal, peer, ours, ratio, and whether the goal is met."""


def goal_table(results: dict[str, Figures]) -> str:
    """Return the goals as a Markdown table, for every Python."""
    lines = [
        "| what | Python | goal | peer | ours | ratio | met |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = {version: goals(version, figures) for version, figures in results.items()}
    for index in range(max(len(found) for found in rows.values())):
        for version, found in rows.items():
            if index >= len(found):  # the largest sizes are not measured with every Python
                continue
            what, goal, peer, ours, ratio, met = found[index]
            verdict = "yes" if met else "**no**"
            lines.append(f"| {what} | {version} | {goal} | {peer} | {ours} | {ratio} | {verdict} |")
    return "\n".join(lines)


def goals(version: str, figures: Figures) -> list[Row]:
    """Return a row for each goal."""
    return [
        *_throughput(version, figures),
        *_accepting(figures),
        *_memory(figures),
        *_lateness(figures),
        *_growth(figures),
        *_claim(figures),
        *_idle(figures),
        *_cpu(figures),
        *_recovery(figures),
        *_durable(figures),
        *_overdue(figures),
        *_repeats(figures),
        *_horizon(figures),
    ]


def find(figures: Figures, benchmark: str, **fields: object) -> dict[str, Any] | None:
    """Return the last row of a benchmark with these fields: that of the largest size."""
    rows = figures[benchmark]["rows"]
    found = [row for row in rows if all(row[name] == value for name, value in fields.items())]
    return found[-1] if found else None


def _row(figures: Figures, benchmark: str, **fields: object) -> dict[str, Any]:
    found = find(figures, benchmark, **fields)
    assert found is not None, (benchmark, fields)
    return found


def _throughput(version: str, figures: Figures) -> list[Row]:
    least = 7 if version == "3.11" else 10
    contestants = (
        ("Manager.map", "`map` of a no-op", least),
        # The goal is for 3.13; before, the goal is that of a coroutine.
        (
            "Manager.map, plain function",
            "`map` of a plain function",
            14 if version == "3.13" else least,
        ),
    )
    pool = _row(figures, "throughput", who="aiomultiprocess.Pool.map")["tasks/s"]
    rows: list[Row] = []
    for who, what, goal in contestants:
        ours = _row(figures, "throughput", who=who)
        rows.append(
            (
                f"end to end with results, {what}, 2 workers",
                f"≥ {goal} × aiomultiprocess",
                f"{pool:,.0f}/s",
                f"{ours['tasks/s']:,.0f}/s",
                f"{ours['x pool']:.1f} ×",
                ours["x pool"] >= goal,
            )
        )
    burst = _row(figures, "burst", who="Manager")["tasks/s"]
    old = find(figures, "burst", who="aioscheduler 1.4.2, one process")
    if old is not None:
        ratio = burst / old["tasks/s"]
        rows.append(
            (
                f"{_row(figures, 'burst', who='Manager')['due at once']:,} due at one instant",
                "≥ 8 × 1.4.2",
                f"{old['tasks/s']:,.0f}/s",
                f"{burst:,.0f}/s",
                f"{ratio:.1f} ×",
                ratio >= 8,
            )
        )
    return rows


def _accepting(figures: Figures) -> list[Row]:
    single = _row(figures, "accept", what="schedule(coro, when)")
    share = single["per s"] / single["asyncio in one loop, per s"]
    against_timers = (
        "`schedule(coro, when)` against `call_later` in one loop",
        "≥ 0.4 ×",
        f"{single['asyncio in one loop, per s']:,.0f}/s (asyncio's timers)",
        f"{single['per s']:,.0f}/s",
        f"{share:.2f} ×",
        share >= 0.4,
    )
    return [
        against_timers,
        *(
            (
                f"`{row['what']}`"
                if row["what"] != "cancel"
                else "cancel at 1 M pending, confirmed",
                f"≥ {row['goal']:,}/s",
                f"{row['asyncio in one loop, per s']:,.0f}/s (asyncio's timers)",
                f"{row['per s']:,.0f}/s",
                f"{row['per s'] / row['asyncio in one loop, per s']:.2f} ×",
                row["per s"] >= row["goal"],
            )
            for row in figures["accept"]["rows"]
        ),
    ]


def _memory(figures: Figures) -> list[Row]:
    rows: list[Row] = []
    old = find(figures, "memory", who="aioscheduler 1.4.2")
    found = [row for row in figures["memory"]["rows"] if row["pending"] >= 1_000_000]
    for row in found:
        who = row["who"]
        if who not in ("Manager.schedule", "Manager.map"):
            continue
        rows.append(
            (
                f"a pending task of `{who}`, {row['pending']:,} pending, host and workers",
                "≤ 300 B",
                "–" if old is None else f"{old['bytes']:.0f} B (1.4.2)",
                f"{row['bytes']:.0f} B",
                "–" if old is None else f"{row['bytes'] / old['bytes']:.2f} ×",
                row["bytes"] <= 300,
            )
        )
    return rows


def _lateness(figures: Figures) -> list[Row]:
    rows: list[Row] = []
    for rate in (1000, 10_000):
        ours = _row(figures, "lateness", who="Manager", beside="alone", **{"tasks/s": rate})
        peer = _row(figures, "lateness", who="asyncio", beside="alone", **{"tasks/s": rate})
        for name, limit in (("p50", 0.25), ("p99", 2.0)):
            late, theirs = ours[f"{name} ms"], peer[f"{name} ms"]
            rows.append(
                (
                    f"lateness at {rate:,} tasks/s, {name}",
                    f"≤ {limit:g} ms",
                    f"{theirs:.2f} ms (asyncio)",
                    f"{late:.2f} ms",
                    f"{late / theirs:.2f} ×",
                    late <= limit,
                )
            )
    return rows


def _growth(figures: Figures) -> list[Row]:
    rows: list[Row] = []
    queue = figures["queue"]["rows"][-1]
    rows.append(
        (
            f"push and pop at {queue['pending']:,} pending, against 10 k",
            "≤ 1.5 ×",
            f"{queue['heapq ns']:,.0f} ns (heapq)",
            f"{queue['push + pop ns']:,.0f} ns",
            f"{queue['x 10 k']:.2f} ×",
            queue["x 10 k"] <= 1.5,
        )
    )
    for what in ("schedule/s", "finish/s", "cancel/s"):
        row = _row(figures, "claim", what=what)
        growth = 1 / row["x of few"]
        rows.append(
            (
                f"cost to {what.removesuffix('/s')} a task at {row['pending']:,} pending, "
                "against 10 k",
                "≤ 1.5 ×",
                "–",
                f"{1e6 / row['rate']:.1f} µs",
                f"{growth:.2f} ×",
                growth <= 1.5,
            )
        )
    return rows


def _claim(figures: Figures) -> list[Row]:
    row = _row(figures, "claim", what="finish/s")
    return [
        (
            f"finishing meanwhile, `Manager(20)`, {row['pending']:,} pending",
            "≥ 50,000/s, ≥ 90 % of that at 10 k",
            "“up to 20”/s (1.4.2)",
            f"{row['rate']:,.0f}/s",
            f"{row['x of few']:.0%} of that at 10 k",
            row["rate"] >= 50_000 and row["x of few"] >= 0.9,
        )
    ]


def _idle(figures: Figures) -> list[Row]:
    rows = figures["idle"]["rows"]
    workers = [row["wake-ups/s"] for row in rows if row["process"] != "host"]
    host = _row(figures, "idle", process="host")["wake-ups/s"]
    pending = f"idle, {rows[0]['pending']:,} pending"
    return [
        (
            f"{pending}: wake-ups of a worker",
            "≤ 2/s",
            "–",
            f"{max(workers):.1f}/s",
            "–",
            max(workers) <= 2,
        ),
        (
            f"{pending}: wake-ups of the host",
            "≤ 1/s + 1/s a worker",
            "–",
            f"{host:.1f}/s",
            "–",
            host <= 1 + len(workers),
        ),
    ]


def _recovery(figures: Figures) -> list[Row]:
    ours, bare = figures["recovery"]["rows"]
    return [
        (
            f"a worker is killed, {ours['pending']:,} pending: first run on its replacement, p99",
            "< 1 s",
            f"{bare['p99 ms']:.0f} ms (a bare interpreter's start)",
            f"{ours['p99 ms']:.0f} ms",
            f"{ours['p99 ms'] / bare['p99 ms']:.1f} ×",
            ours["p99 ms"] < 1000,
        )
    ]


def _cpu(figures: Figures) -> list[Row]:
    ours = _row(figures, "cpu", who="Manager")
    bare = _row(figures, "cpu", who="bare processes")
    return [
        (
            "CPU-bound tasks of 1 ms, 2 workers against 1",
            "≥ 1.85 ×",
            f"{bare['x one']:.2f} × (bare processes)",
            f"{ours['tasks/s']:,.0f}/s",
            f"{ours['x one']:.2f} ×",
            ours["x one"] >= 1.85,
        )
    ]


def _durable(figures: Figures) -> list[Row]:
    rates = {(row["what"], row["who"]): row["tasks/s"] for row in figures["durable"]["rows"]}
    waiting = "256 wait for stored()"
    put, ends = "put down", "end to end"
    pairs = (  # what, ours, peer, the peer's name, the least ratio
        (waiting, (put, waiting), (put, "APScheduler 3, SQLite"), "APScheduler 3", 60),
        (
            "`map` and `sync()`",
            (put, "map, and sync()"),
            (put, "APScheduler 3, SQLite"),
            "the same",
            100,
        ),
        (waiting, (put, waiting), (put, "huey, SQLite"), "huey", 50),
        ("`map` and `sync()`", (put, "map, and sync()"), (put, "huey, SQLite"), "huey", 50),
        ("one at a time", (put, "one at a time"), (put, "huey, SQLite"), "huey", 1),
        ("no-ops, end to end", (ends, "durable"), (ends, "plain, without"), "not durable", 0.9),
        (
            "no-ops that are not durable, on a manager with a store",
            (ends, "plain, with a store"),
            (ends, "plain, without"),
            "without a store",
            0.97,
        ),
    )
    rows: list[Row] = []
    for what, ours, peer, name, least in pairs:
        ratio = rates[ours] / rates[peer]
        rows.append(
            (
                f"durable: {what}",
                f"≥ {least} ×",
                f"{rates[peer]:,.0f}/s ({name})",
                f"{rates[ours]:,.0f}/s",
                f"{ratio:.2f} ×" if least <= 1 else f"{ratio:.0f} ×",
                ratio >= least,
            )
        )
    late = {row["who"]: row for row in figures["durable"]["rows"] if row["what"] == "late"}
    for key, most in (("p50 ms", 1.2), ("p99 ms", 2)):
        own, plain = late["durable"][key], late["plain, without"][key]
        rows.append(
            (
                f"durable: lateness at {late['durable']['tasks/s']:,.0f}/s, {key[:3]}",
                f"≤ {most} ×",
                f"{plain:.2f} ms (not durable)",
                f"{own:.2f} ms",
                f"{own / plain:.2f} ×",
                own <= most * plain,
            )
        )
    return rows


def _overdue(figures: Figures) -> list[Row]:
    if "overdue" not in figures:
        return []
    who = "overdue", "plain, singly", "plain, by map"
    ours, plain, by_map = (_row(figures, "overdue", who=each) for each in who)
    ratios = [ours["tasks/s"] / each["tasks/s"] for each in (plain, by_map)]
    what = f"durable: {ours['tasks']:,} overdue at the start"
    return [
        (
            f"{what}, worked off",
            "≥ 0.7 ×",
            f"{plain['tasks/s']:,.0f}/s (plain, by schedule)",
            f"{ours['tasks/s']:,.0f}/s",
            f"{ratios[0]:.2f} × (of plain ones by map: {ratios[1]:.2f} ×)",
            ratios[0] >= 0.7,
        ),
        (
            f"{what}, memory above an empty manager at its most",
            "≤ 300 MB",
            f"{plain['peak MB']:,.0f} MB (not durable)",
            f"{ours['peak MB']:,.0f} MB",
            "–",
            ours["peak MB"] <= 300,
        ),
    ]


def _horizon(figures: Figures) -> list[Row]:
    """Return the goals for tasks that are only in the file, for each size from ten million on."""
    if "horizon" not in figures:
        return []
    empty = _row(figures, "horizon", stored=0)
    plain = _row(figures, "horizon", stored=None)
    rows: list[Row] = []
    for row in figures["horizon"]["rows"]:
        if (row["stored"] or 0) < 10_000_000:
            continue
        memory = f"{row['B a task']:.1f} B, {row['work MB']:,.0f} MB in all"
        limits = (  # what, goal, beside, ours, ratio, whether it is met
            (
                "memory of all processes, of each above an empty manager",
                "≤ 10 B and 400 MB",
                f"{empty['rest MB']:,.0f} MB (empty)",
                memory,
                "–",
                row["B a task"] <= 10 and row["work MB"] <= 400,
            ),
            ("file, of each", "≤ 60 B", "–", f"{row['file B']:.0f} B", "–", row["file B"] <= 60),
            (
                "ready after",
                "≤ 1 s more",
                f"{empty['ready ms']:,.0f} ms (empty)",
                f"{row['ready ms']:,.0f} ms",
                "–",
                row["ready ms"] <= empty["ready ms"] + 1000,
            ),
            (
                "log for each that is put down, 2,000 a commit",
                "≤ 3,000 B",
                f"{empty['WAL B']:,.0f} B (empty)",
                f"{row['WAL B']:,.0f} B",
                "–",
                row["WAL B"] <= 3000,
            ),
            *(
                (
                    f"lateness at 5,000/s meanwhile, {key[:3]}",
                    f"≤ {most:g} ×",
                    f"{plain[key]:.2f} ms (not durable)",
                    f"{row[key]:.2f} ms",
                    f"{row[key] / plain[key]:.2f} ×",
                    row[key] <= most * plain[key],
                )
                for key, most in (("p50 ms", 1.2), ("p99 ms", 2))
            ),
        )
        stored = f"durable: {row['stored']:,} far off"
        rows += [
            (f"{stored}, {what}", goal, beside, ours, ratio, met)
            for what, goal, beside, ours, ratio, met in limits
        ]
    return rows


def _repeats(figures: Figures) -> list[Row]:
    if "repeats" not in figures:
        return []
    plain, own, kept, empty = (
        _row(figures, "repeats", who=who)
        for who in (
            "Manager.schedule",
            "Manager.repeat",
            "Manager.repeat, durable",
            "an empty file",
        )
    )
    what = f"{own['number']:,} repeats"
    limits = (  # what, column, how many times as much as the other, the other, and what that is
        ("memory of each, all processes", "bytes", "B", 2.0, plain, "a pending task"),
        ("CPU of a run, all processes", "run µs", "µs", 1.5, plain, "a task"),
        ("lateness of 1,000 runs/s, p50", "p50 ms", "ms", 3.0, plain, "tasks"),
    )
    rows: list[Row] = [
        (
            f"{what}: {name}",
            f"≤ {most:g} ×",
            f"{other[column]:,.3g} {unit} ({beside})",
            f"{own[column]:,.3g} {unit}",
            f"{own[column] / other[column]:.2f} ×",
            own[column] <= most * other[column],
        )
        for name, column, unit, most, other, beside in limits
    ]
    rows.append(
        (
            f"{what}: durable, longest stall of the loop while they are restored",
            "≤ 100 ms",
            f"{empty['stall ms']:,.0f} ms (empty)",
            f"{kept['stall ms']:,.0f} ms",
            "–",
            kept["stall ms"] <= 100,
        )
    )
    return rows
