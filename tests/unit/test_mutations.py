"""The simulation finds faults that are put in; `tests/support/mutations.py` has them."""

from __future__ import annotations

from pathlib import Path

import mutations
import pytest
from mutations import MUTATIONS, Mutation


def by_name(mutation: Mutation) -> str:
    return mutation.name


@pytest.mark.timeout(2 * mutations.PATIENCE)
@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.fast], ids=by_name)
def test_a_mutation_is_found(mutation: Mutation) -> None:
    assert mutations.find(mutation)


@pytest.mark.long
@pytest.mark.timeout(2 * mutations.PATIENCE)
@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if not m.fast], ids=by_name)
def test_a_rare_mutation_is_found(mutation: Mutation) -> None:
    assert mutations.find(mutation)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=by_name)
def test_every_mutation_is_of_the_source_of_today(mutation: Mutation, tmp_path: Path) -> None:
    mutations.make(mutation, tmp_path)


def test_a_mutation_of_what_is_gone_says_so(tmp_path: Path) -> None:
    gone = MUTATIONS[0]._replace(name="gone", old="what no source has")
    with pytest.raises(mutations.OutOfDate, match="'gone' replaces what stands 0 times"):
        mutations.make(gone, tmp_path)


def test_without_a_mutation_nothing_is_found() -> None:
    none = MUTATIONS[0]._replace(new=MUTATIONS[0].old, seeds=5)
    assert mutations.find(none) == ""
