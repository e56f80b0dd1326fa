"""The versions that must be the same on both sides, and a refusal that says what to do."""

from __future__ import annotations

import sys

import pytest

from aioscheduler import __version__
from aioscheduler._outpost.versions import ASKED, difference, versions


def test_equal_versions_have_no_difference() -> None:
    here = versions("v7")
    assert here["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert here["aioscheduler"] == __version__
    assert all(here[key] for key in ASKED)
    assert difference("n1", here, versions("v7")) == ""


@pytest.mark.parametrize("key", ASKED)
def test_a_difference_names_both_versions_and_the_remedy(key: str) -> None:
    here, there = versions(None), versions(None) | {key: "0.1"}
    said = difference("n1", here, there)
    assert said.startswith(f"node n1 has {ASKED[key]} 0.1, and this host has {here[key]}")
    assert "install the same on the nodes" in said


def test_code_of_another_deploy_is_named() -> None:
    said = difference("n1", versions("v8"), versions("v7"))
    assert "has code_version 'v7', and this host has 'v8'; deploy to the nodes" in said
    assert "None" in difference("n1", versions("v8"), versions(None))


def test_missing_versions_differ() -> None:
    assert "has Python None" in difference("n1", versions(None), {})
