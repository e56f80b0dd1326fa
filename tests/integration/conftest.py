from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every coroutine test here is watched for tasks left behind and failures unheard."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("asyncio"):
            item.fixturenames += ["reports", "no_tasks_left"]
