"""Workers on other machines: an *outpost* on each of them starts worker processes there.

    host                                           │ node: one process that the engine has started
                                                   │
    Supervisor ─► worker handle ─┐                 │             ┌─► handle ══ pipes ══ worker
    Supervisor ─► worker handle ─┴─ Connection ═TCP╪══► Outpost ─┴─► handle ══ pipes ══ worker
                                      ▲            │      ▲
               Launcher ── JSON ──► launcher process ─────┘ starts it, and reports its loss

An outpost decodes no frame and runs no user code: it moves the bytes of pipes, and reports the ends
of workers. No task begins there before the host confirms it (`WorkerConfig.confirmed`), so an
outpost may be given up at any time, whatever it is doing. This wing knows nothing of an engine
(Ray) but its command: a process that starts and ends outposts.

Doors: `certificates`, `engine`, `outposts`.
"""
