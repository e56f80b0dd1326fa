"""`aioscheduler top`: samples the running managers, computes rates, and draws a table.

    stats server ─► sampling ─► rates ─► table ─► live, or printed once
                             figures ─► columns ─┘

`table`, `columns` and `live` need rich, an extra; the rest does not.
"""
