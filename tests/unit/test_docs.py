"""The documents' references to tests are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import aioscheduler

ROOT = Path(__file__).parents[2]


def names_in(path: Path) -> list[str]:
    return re.findall(r"def (test_\w+)", path.read_text())


def test_every_fault_has_its_test() -> None:
    rows = (ROOT / "docs/faults.md").read_text().split("|---|---|---|\n")[1].splitlines()
    assert len(rows) > 30
    folders = {"I": "integration", "U": "unit"}
    for row in rows:
        where = row.split("|")[3].strip()
        files: list[Path] = []
        for item in where.split(", "):
            found = re.fullmatch(r"(?:([IU])/(test_\w+)(?:: )?)?(\w*)", item)
            assert found, item
            if found[1]:
                files = list((ROOT / "tests" / folders[found[1]]).rglob(f"{found[2]}.py"))
            assert any(found[3] in name for file in files for name in names_in(file)), item


@pytest.mark.parametrize("page", ["README.md"])
def test_every_guarantee_has_its_test(page: str) -> None:
    links = re.findall(r'^\[\d+\]: (\S+) "(\w+)"$', (ROOT / page).read_text(), re.MULTILINE)
    assert len(links) == 18
    for file, name in links:
        assert name in names_in(ROOT / file), name


def test_what_was_migrated_is_shorter() -> None:
    page = (ROOT / "docs/migrating.md").read_text()
    pairs = re.findall(
        r'title="before.py[^"]*"\n(.*?)^```.*?title="after.py"\n(.*?)^```',
        page,
        re.DOTALL | re.MULTILINE,
    )
    lengths = [[len(code.splitlines()) for code in pair] for pair in pairs]
    assert len(lengths) == 3
    assert all(after < before for before, after in lengths), lengths


def test_every_public_name_is_in_the_reference() -> None:
    shown = re.findall(r"^::: (\S+)$", (ROOT / "docs/reference.md").read_text(), re.MULTILINE)
    for name in aioscheduler.__all__:
        module = getattr(aioscheduler, name).__module__
        assert f"aioscheduler.{name}" in shown or module in shown, name
