"""The life of a worker process, from its start to its last words.

How it is made, configured, watched, ended, reaped and replaced. Its tasks must not be known here:
starts and ends are reported to the slot's occupant (`occupant.Occupant`).

Doors: `blackbox`, `budget`, `cores`, `draining`, `occupant`, `paired`, `process`, `reports`,
`supervisor`, `workerconfig`, `workerhandle`.
"""
