"""The code of a worker process, which `aioscheduler` starts by name; not for importing."""
