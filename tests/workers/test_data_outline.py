"""A look at data files: certain failures are found, and what a proper reading would take is let pass."""

from pathlib import Path

import pytest

from workers.data import Columns, DataConfig, DataError
from workers.data_outline import check_data_outline


def look(path: Path, content: str | None, *, task: str = "text-classification", **fields: object) -> None:
    if content is not None:
        path.write_text(content, encoding="utf-8")
    sizes = {"calibration": 1, "search": 1, "holdout": 1}
    check_data_outline(DataConfig.model_validate({"source": str(path), **sizes, **fields}), task=task)


ROWS = "text\tlabel\na\t0\nb\t1\nc\t0\n"


def test_files_that_may_be_right_pass(tmp_path: Path) -> None:
    look(tmp_path / "a.tsv", ROWS)
    look(tmp_path / "b.tsv", "\ufeff" + ROWS)
    look(tmp_path / "a.csv", 'label,"text"\n0,"two\nlines"\n1,b\n0,c\n')
    look(tmp_path / "a.jsonl", "{}\n{}\n{}")
    look(tmp_path / "a.txt", "a text", task="causal-lm")
    look(tmp_path / "c.tsv", "text\na\nb\nc\n", task="causal-lm")
    look(tmp_path / "d.tsv", "sentence\tlabel\na\t0\nb\t1\nc\t0\n", columns=Columns(input="sentence"))
    check_data_outline(DataConfig(source="org/data"), task="text-classification")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.tsv", None, "no file"),
        ("empty.txt", "", "is empty"),
        ("a.tsv", "sentence\tlabel\na\t0\n", r"has no column 'text'; it has \['sentence', 'label'\]; set data.columns"),
        ("b.csv", "text\na\nb\nc\n", "has no column 'label'"),
        ("c.tsv", "text\tlabel\na\t0\n\n\n", r"3 different rows .*; .* has 1 at most; ask for fewer rows"),
        ("d.jsonl", "{}\n{}\n", "has 2 at most"),
    ],
)
def test_what_certainly_fails_is_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        look(tmp_path / name, content)


def test_pairs_are_for_tasks_that_compare_two_texts(tmp_path: Path) -> None:
    rows = "text\tother\tlabel\na\tb\t0\nb\tc\t1\nc\ta\t0\n"
    task = "sentence-similarity"
    look(tmp_path / "a.tsv", rows, task=task, columns=Columns(pair="other"))
    with pytest.raises(DataError, match=r"compares two texts.*data.columns.pair; got None; name the column"):
        look(tmp_path / "a.jsonl", "{}\n{}\n{}", task=task)
    with pytest.raises(DataError, match=r"no use for data.columns.pair; got 'other'; leave it out"):
        look(tmp_path / "a.tsv", rows, columns=Columns(pair="other"))
    with pytest.raises(DataError, match="no column 'second'"):
        look(tmp_path / "a.tsv", rows, task=task, columns=Columns(pair="second"))


def test_the_source_of_calibration_examples_is_looked_at_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other\.tsv"):
        look(tmp_path / "a.tsv", ROWS, calibration_source=str(tmp_path / "other.tsv"))
