"""`aioscheduler top`: what is sampled of the running managers, worked out, drawn and watched.

    stats server ─► sampling ─► rates ─► table ─► live, or printed once
                             figures ─► columns ─┘

`table`, `columns` and `live` need rich, an extra; the rest does not.
"""
