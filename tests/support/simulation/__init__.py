"""Host and workers in one thread, on virtual time, joined by pipes that delay, cut and lose.

The host's side is the real `Manager` and the worker's side the real `Worker`; in between, instead
of processes and pipes, are the lives and pipes of `lives`, which add what goes wrong to those of
`aioscheduler._processes.paired`. A seed decides everything: how large a pipe is, how long bytes are
under way, where a write is cut, and what happens: schedule, map, cancel, withdraw, reschedule, let
time pass, set the clock, kill, freeze, tell to go, give up, close. Payloads have 0 to 64 KiB, many
at a time, so that pages of the ledger are half done when a worker dies. Functions are of every
kind that has a way of its own. And there is spite: arguments, results and exceptions whose pickling
or reading raises, frames that the reader refuses, a pipe, a clock, a black box or a start that
raises at any point, handlers that raise, times that are none.

    world ── deeds ──► Manager ═══ lives ═══ Worker ──► acts
      │                             │ frames              │ starts and ends
      └─ what was asked ──────────► model ◄───────────────┘
                                      └─ judge: faults, in words

Each task tells the model of its beginning and end, and so do handles and the pipes. What can be
judged at once is judged at once, the rest when all has ended. Time is virtual: an hour passes when
nothing is left to do before it, and if nothing will ever happen and something is awaited, that is a
fault.
"""
