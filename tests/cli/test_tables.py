"""A table is no wider than asked for, whatever is in it."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mqttjobs.cli.job_views import job_table
from mqttjobs.cli.operation_views import operation_table
from mqttjobs.cli.terminal import Column, fitted

texts = st.text(max_size=60) | st.none()
jobs = st.lists(
    st.fixed_dictionaries(
        {
            "uid": st.integers(1, 2**53),
            "status": st.sampled_from(["submitted", "completed", "partial_failure"]),
            "operation_id": texts,
            "owner_id": texts,
            "user_id": texts,
            "created": st.just("2026-03-01T12:00:00.000Z") | texts,
            "error": texts,
            "message": texts,
        }
    ),
    max_size=4,
)


def shown(table: object, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@given(jobs, st.integers(72, 200))
def test_a_table_of_jobs_is_no_wider_than_asked_for_and_a_job_is_one_line(
    found: list[dict[str, object]], width: int
) -> None:
    lines = shown(job_table(found, width), width)
    assert len(lines) == len(found) + 1
    assert all(cell_len(line) <= width for line in lines)


@given(st.lists(st.fixed_dictionaries({"id": st.text(min_size=1, max_size=64), "job_name": texts}), max_size=4))
def test_operations_that_the_caller_may_not_read_are_one_line_each(found: list[dict[str, object]]) -> None:
    assert len(shown(operation_table(found, 80), 80)) == len(found) + 1


def test_columns_that_may_be_cut_are_cut_in_turns_and_the_others_stay_whole() -> None:
    columns = [Column("whole"), Column("first", 10, 4), Column("second", 10, 4)]
    row = ["a" * 12, "b" * 30, "c" * 30]
    assert shown(fitted(columns, [row], 80), 80)[1].split() == row
    assert shown(fitted(columns, [row], 60), 60)[1].split() == ["a" * 12, "b" * 30, "c" * 11 + "…"]
    assert shown(fitted(columns, [row], 40), 40)[1].split() == ["a" * 12, "b" * 11 + "…", "c" * 9 + "…"]
    assert shown(fitted(columns, [row], 30), 30)[1].split() == ["a" * 12, "b" * 7 + "…", "c" * 3 + "…"]
