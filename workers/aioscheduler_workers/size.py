"""The memory of this process: to recycle it, and to collect garbage when it has grown."""

from __future__ import annotations

import mmap


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if unknown. Never raise."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except Exception:  # noqa: BLE001  there is no such file, or no descriptor for it
        return _ask_psutil()


def _ask_psutil() -> int:
    try:
        import psutil  # not needed in workers on Linux

        return int(psutil.Process().memory_info().rss)
    except Exception:  # noqa: BLE001  not installed, or it fails
        return 0
