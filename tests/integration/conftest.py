from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rigs import Rig

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Check every coroutine test for tasks left behind and failures unheard."""
    for item in items:
        watched = HERE in item.path.parents and item.get_closest_marker("asyncio")
        if watched and isinstance(item, pytest.Function):
            item.fixturenames += ["reports", "no_tasks_left"]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Make a folder where hosts of durable tasks succeed one another."""
    rig = Rig(tmp_path)
    yield rig
    rig.close()
