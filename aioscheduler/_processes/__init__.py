"""The life of a worker process, from its start to the last word of it.

How it is made, told who it is, watched, ended, reaped and replaced. What its tasks are must not be
known here: whoever occupies a slot (`occupant.Occupant`) is told of starts and ends.

Doors: `blackbox`, `budget`, `cores`, `draining`, `occupant`, `paired`, `process`, `reports`,
`supervisor`, `workerconfig`, `workerhandle`.
"""
