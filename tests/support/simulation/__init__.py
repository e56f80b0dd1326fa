"""Host and workers in one thread, on virtual time, joined by pipes that delay, cut and lose.

The host's side is the real `Manager` and the worker's side the real `Worker`; in between, instead
of processes and pipes, are the lives and pipes of `lives`, which add what goes wrong to those of
`aioscheduler._processes.paired`. A seed decides everything: how large a pipe is, how long bytes are
under way, where a write is cut, and which deed is next: schedule, map, cancel, withdraw,
reschedule, let time pass, set the clock, kill, freeze, tell to go, give up, close. Payloads have 0
to 64 KiB, many at a time, so that pages of the ledger are half done when a worker dies. Functions
are of every kind that ships differently. And there is spite: arguments, results and exceptions
whose pickling or reading raises, frames that the reader refuses, a pipe, a clock, a black box or a
start that raises at any point, handlers that raise, invalid times.

    world ── deeds ──► Manager ═══ lives ═══ Worker ──► acts
      │                             │ frames              │ starts and ends
      └─ requests ────────────────► model ◄───────────────┘
                                      └─ judge: faults, in words

Each task reports its beginning and end to the model, and so do handles and pipes. What can be
judged at once is, the rest when all tasks have ended. Time is virtual: it advances when nothing is
left to do before the next event, and if something is awaited and no event will ever come, that is a
fault.
"""
