"""Bytes between two processes, and what of them is still out.

Frames, the pipe that carries them, and, pure, what was sent and not answered. What a payload means
must not be known here: to the ledger it is bytes.

Doors: `definitionlog`, `entry`, `ledger`, `logrecords`, `outbox`, `pipe`, `wire`.
"""
