"""What runs in a worker process. Started by name by `aioscheduler`; not for importing."""
