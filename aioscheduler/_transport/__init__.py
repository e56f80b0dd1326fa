"""Bytes between two processes, and a record of what was sent and not answered.

Frames, the pipe that carries them, and, pure, the ledger and the outbox of a worker. The meaning of
a payload must not be known here: to the ledger it is bytes.

Doors: `definitionlog`, `entry`, `ledger`, `logrecords`, `outbox`, `pipe`, `wire`.
"""
