"""How much memory this process has: to recycle it, and to look for garbage when it has grown."""

from __future__ import annotations

import mmap


def resident_bytes() -> int:
    """Return the bytes of memory that this process has; 0 where that is not known. Never raises."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * mmap.PAGESIZE
    except Exception:  # noqa: BLE001  there is no such file, or no descriptor for it
        return _ask_psutil()


def _ask_psutil() -> int:
    try:
        import psutil  # which workers on Linux do without

        return int(psutil.Process().memory_info().rss)
    except Exception:  # noqa: BLE001  it knows no better
        return 0
