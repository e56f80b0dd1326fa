"""What a manager needs to know of an engine."""

from __future__ import annotations

import dataclasses

import pytest

from aioscheduler._outpost.engine import Engine


def test_it_cannot_change_under_a_manager() -> None:
    engine = Engine(2, 4, ["run"], {"address": "auto"})
    assert (engine.lost_after, engine.code_version, engine.ssl) == (15.0, None, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        engine.nodes = 3  # type: ignore[misc]
