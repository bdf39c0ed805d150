"""`paretrim targets`, and jobs on a target that is not available here."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from controller.cli.app import app
from controller.errors import PreflightError
from controller.job import JobSpec
from controller.preparation import describe, price, price_by_table
from evaluators.latency.table import ForeignTableError
from search_spaces.formats import FORMATS
from workers.targets.base import TARGETS, Target

REASON = "the GPU is on holiday"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> str:
    """A target of the tiny table's formats, whose device is not here."""
    name, known = "cpu-elsewhere", TARGETS.get("cpu-onnxruntime")
    target = Target(
        name=name,
        formats=known.formats,
        channel_multiple=known.channel_multiple,
        obstacle=lambda: REASON,
        description="a machine elsewhere",
    )
    from workers.targets.device import DEVICES

    monkeypatch.setitem(TARGETS._entries, name, target)
    monkeypatch.setitem(DEVICES._entries, name, DEVICES.get("cuda-torch"))
    return name


def _job(tiny: Any, tmp_path: Path, **target: object) -> JobSpec:
    return JobSpec(
        name="demo",
        model=tiny.model,
        data=tiny.data,
        space=tiny.space,
        target={"batch": 1, "sequence_length": tiny.sequence_length, **target},
        storage=f"sqlite:///{tmp_path / 'studies.db'}",
    )


def test_targets_are_listed_with_their_formats_and_what_they_lack(away: str) -> None:
    result = CliRunner().invoke(app, ["targets", "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)["targets"]}
    assert {"cpu-onnxruntime", "cpu-torch", "cpu-torch-compiled", "cuda-torch"} <= set(rows)
    for row in rows.values():
        assert set(row["formats"]) <= set(FORMATS)
        assert row["available"] == (row["reason"] is None)
    assert (rows[away]["available"], rows[away]["reason"]) == (False, REASON)
    assert (rows["cpu-onnxruntime"]["export"], rows["cpu-torch"]["export"]) == ("onnx", "huggingface")


def test_people_read_the_reason(away: str) -> None:
    result = CliRunner().invoke(app, ["targets"])
    assert result.exit_code == 0, result.output
    assert f"{away}: a machine elsewhere; {REASON}" in result.stdout
    assert "cpu-torch" in result.stdout


def test_a_job_without_a_table_stops_before_anything_is_read(away: str, tiny_text: Any, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=f"'{away}' can't be timed on this machine: {REASON}; name another"):
        describe(_job(tiny_text, tmp_path, name=away))


def test_a_table_from_elsewhere_is_good_for_planning(away: str, tiny_text: Any, tmp_path: Path) -> None:
    job = _job(tiny_text, tmp_path, name=away, table=tiny_text.table)
    with pytest.raises(ForeignTableError, match="device: "):
        price_by_table(job, describe(job))
    planned = _job(tiny_text, tmp_path, name=away, table=tiny_text.table, allow_foreign_table=True)
    priced = price(planned, describe(planned), lambda stage, done, total: None)
    assert any(difference.startswith("device: ") for difference in priced.foreign)
