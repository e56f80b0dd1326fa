"""The life of a worker process, from its start to the last word of it.

How it is made, told who it is, watched, ended, reaped and replaced. What its tasks are must not be
known here: whoever occupies a place (`occupant.Occupant`) is told of starts and ends.

Doors: `blackbox`, `budget`, `cores`, `draining`, `incarnation`, `occupant`, `paired`, `process`,
`reports`, `supervisor`, `workerconfig`.
"""
