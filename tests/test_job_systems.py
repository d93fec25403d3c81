"""docs/job-systems.md names the tests that prove each row; the tests say which rows they prove."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.job_systems import proofs, rows, with_proofs

PAGE = Path(__file__).parents[1] / "docs" / "job-systems.md"
ROW = "| `limit` 1 to 100, default 10 | the same, else 400 | |\n"


def test_every_row_is_proven_by_a_test_that_there_is() -> None:
    page = PAGE.read_text()
    named = [row for _, row, _ in rows(page)]
    assert len(named) > 120
    assert set(named) == set(proofs())
    assert with_proofs(page) == page


def a_page(*lines: str) -> str:
    return "\n".join(["<!-- proves: listing -->", "| there | here | proven by |", "|---|---|---|", *lines])


def test_a_row_without_a_test_and_a_test_without_a_row_are_errors() -> None:
    with pytest.raises(ValueError, match="no test proves 'a wish' of the section listing"):
        with_proofs(a_page("| a `wish` | nowhere | |"))
    with pytest.raises(ValueError, match="there is no such row"):
        with_proofs(a_page(ROW.strip()))
    with pytest.raises(ValueError, match="two rows are called"):
        with_proofs(a_page(ROW.strip(), ROW.strip()))
