"""Workers on other machines: on each an *outpost*, which starts worker processes there.

    host                                           │ node: one process that the engine has started
                                                   │
    Supervisor ─► worker handle ─┐                 │             ┌─► handle ══ pipes ══ worker
    Supervisor ─► worker handle ─┴─ Connection ═TCP╪══► Outpost ─┴─► handle ══ pipes ══ worker
                                      ▲            │      ▲
               Launcher ── JSON ──► launcher process ─────┘ starts it, and says if it is lost

An outpost decodes no frame and runs no user code: it moves the bytes of pipes, and tells what ends
a worker. Nothing begins there without the host's word (`WorkerConfig.confirmed`), so an outpost may
be given up at any time, whatever has become of it. What an engine (Ray) is must not be known here:
it is a command, and that is a process which starts and ends outposts.

Doors: `certificates`, `engine`, `outposts`.
"""
