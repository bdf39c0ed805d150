"""Row 27: data that is empty, too small, or not labelled as the model is, before any trial."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluators.tasks import Task, TaskError
from workers.data import Columns, DataConfig, DataError, Splits, load_splits
from workers.model import load_model

Load = Callable[..., Splits]


@pytest.fixture(scope="module")
def text_task(tiny_text: Any) -> Task:
    return load_model(tiny_text.model).task


@pytest.fixture(scope="module")
def image_task(tiny_image: Any) -> Task:
    return load_model(tiny_image.model).task


@pytest.fixture
def load(tmp_path: Path, text_task: Task) -> Load:
    """Writes a file and splits it, two examples each."""

    def found(content: str | bytes, name: str = "rows.tsv", task: Task = text_task, **fields: Any) -> Splits:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        sizes = {"calibration": 2, "search": 2, "holdout": 2, "shuffle": False}
        return load_splits(DataConfig(source=str(path), **{**sizes, **fields}), task, seed=0)

    return found


def _tsv(*rows: tuple[str, object]) -> str:
    return "\n".join(["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]) + "\n"


def _rows(count: int) -> list[tuple[str, object]]:
    return [(f"w{n} w{n + 1}", n % 2) for n in range(count)]


def test_rows_that_fit_are_taken(load: Load) -> None:
    splits = load(_tsv(*_rows(6)))
    assert [len(splits.calibration), len(splits.search), len(splits.holdout)] == [2, 2, 2]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.json", "rows.parquet", "rows.txt"])
def test_an_empty_file(load: Load, name: str) -> None:
    with pytest.raises(DataError, match="is empty; a file of rows is needed"):
        load("", name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "\n\n"),
        ("rows.jsonl", '{"text": "w1"\n{"text"'),
        ("rows.json", "nothing"),
        ("rows.parquet", "nothing"),
        ("rows.csv", b"\xff\xfe\x00\x01\n"),
    ],
)
def test_a_file_that_is_not_what_it_says(load: Load, name: str, content: str | bytes) -> None:
    with pytest.raises(DataError, match=r"can't be read as rows|has no column"):
        load(content, name)


def test_a_header_without_rows(load: Load) -> None:
    with pytest.raises(DataError, match=r"need 6 different rows|can't be read as rows"):
        load("text\tlabel\n")


def test_fewer_rows_than_the_splits_ask_for(load: Load) -> None:
    with pytest.raises(
        DataError, match=r"need 6 different rows \(2 calibration \+ 2 search \+ 2 holdout\); .* has 5; ask for fewer"
    ):
        load(_tsv(*_rows(5)))


def test_a_row_that_occurs_twice_counts_once(load: Load) -> None:
    with pytest.raises(DataError, match="has 5"):
        load(_tsv(*_rows(5), *_rows(5)))


def test_a_separate_calibration_file_shares_no_row(load: Load, tmp_path: Path) -> None:
    other = tmp_path / "calibration.tsv"
    other.write_text(_tsv(*_rows(5)))
    with pytest.raises(DataError, match=r"need 2 different rows \(2 calibration\); .*calibration\.tsv' has 1"):
        load(_tsv(*_rows(4)), calibration_source=str(other))


@pytest.mark.parametrize("columns", [Columns(input="sentence"), Columns(label="class")])
def test_a_missing_column(load: Load, columns: Columns) -> None:
    with pytest.raises(
        DataError, match=r"has no column '(sentence|class)'; it has \['text', 'label'\]; set data\.columns"
    ):
        load(_tsv(*_rows(6)), columns=columns)


@pytest.mark.parametrize("label", ["2", "-1", "positive", "0.5", "", "2.0"])
def test_labels_that_the_model_does_not_have(load: Load, label: str) -> None:
    rows = [*_rows(5), ("w9 w9", label)]
    with pytest.raises(TaskError, match=r"holdout split of .*labels are 0 to 1 or one of .*got .* in row 1"):
        load(_tsv(*rows))


def test_names_of_classes_are_labels_too(load: Load) -> None:
    rows = [(text, f"LABEL_{label}") for text, label in _rows(6)]
    assert [example.label for example in load(_tsv(*rows)).search] == [0, 1]


@pytest.mark.parametrize("text", ["", "   "])
def test_texts_that_are_empty(load: Load, text: str) -> None:
    rows = [json.dumps({"text": t, "label": n}) for t, n in [*_rows(5), (text, 0)]]
    with pytest.raises(TaskError, match=r"inputs are texts that are not empty; got .* in row 1"):
        load("\n".join(rows), "rows.jsonl")


@pytest.mark.parametrize(
    "pixels",
    [[[0, 256], [0, 0]], [[0, -1], [0, 0]], [[0.0, 0.5], [1.0, 1.0]], [[0], [0, 1]], [["a"]], "no-such-file.png", 3.5],
)
def test_images_that_are_none(load: Load, image_task: Task, pixels: object) -> None:
    good = [json.dumps({"text": [[n, n], [n, 0]], "label": n}) for n in range(6)]
    bad = json.dumps({"text": pixels, "label": 0})
    with pytest.raises((TaskError, DataError), match=r"inputs are image paths|can't be read as rows"):
        load("\n".join([*good[:5], bad]), "rows.jsonl", image_task)


def test_pixels_may_be_written_as_floats(load: Load, image_task: Task) -> None:
    rows = [json.dumps({"text": [[float(n), 255.0], [0.0, 0.0]], "label": n}) for n in range(6)]
    splits = load("\n".join(rows), "rows.jsonl", image_task)
    assert splits.search[0].inputs["pixel_values"].shape == (1, 8, 8)


@pytest.mark.parametrize("source", ["nowhere.tsv", "/nowhere/rows.xlsx", "./rows"])
def test_a_file_that_is_not_there(text_task: Task, source: str) -> None:
    with pytest.raises(DataError, match="no file"):
        load_splits(DataConfig(source=source), text_task, seed=0)


def test_digest_follows_inputs_labels_and_order(load: Load) -> None:
    rows = _rows(6)
    relabelled = [*rows[:5], (rows[5][0], 0)]
    digests = [load(_tsv(*r)).digest for r in (rows, rows, relabelled, rows[::-1])]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_stray_quotation_mark_in_a_tsv_swallows_no_rows(tiny_text, tmp_path):
    from workers.data import Columns, DataConfig, load_splits
    from workers.model import load_task

    rows = ['"w1 w2\t0', "w3 w4\t1", 'w5 w6"\t0', "null\t1", "w7\t0", "w8\t1"]
    path = tmp_path / "rows.tsv"
    path.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    config = DataConfig(source=str(path), columns=Columns(input="sentence"), calibration=2, search=2, holdout=2)
    splits = load_splits(config, load_task(tiny_text.model), seed=0)
    labels = [e.label for part in (splits.calibration, splits.search, splits.holdout) for e in part]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]
