"""Recipes of the README do what they say when they are followed line by line."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from typer.testing import CliRunner

from controller.cli.app import app
from workers.profile import ProfileBudget

if TYPE_CHECKING:
    from conftest import TinyJob

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCK = re.compile(r"^```\n(paretrim targets.*?)^```$", re.MULTILINE | re.DOTALL)


def recipe() -> list[list[str]]:
    """The words of every command of the README's block on latency tables, in order."""
    (block,) = BLOCK.findall(README)
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few runs of few models: what is looked at is that commands follow from each other, not how well they measure."""
    budget = ProfileBudget(rounds=2, max_rounds=2, runs=2)
    monkeypatch.setattr("controller.tables.measuring.ProfileBudget", lambda seconds: replace(budget, seconds=seconds))
    monkeypatch.setattr("controller.tables.measuring.MODELS_BY_BYTES", ((2**30, 3),))


@pytest.mark.slow
def test_the_commands_on_tables_follow_from_each_other(
    quick: None, tiny_image: "TinyJob", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = {
        "name": "tiny",
        "model": {"id": tiny_image.model.id, "task": tiny_image.model.task},
        "data": tiny_image.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.5], "formats": ["fp32"]},
        "target": {"batch": 1},
    }
    Path("job.yaml").write_text(yaml.safe_dump(job))
    runner = CliRunner()
    done = {}
    for words in recipe():
        result = runner.invoke(app, words, env={"COLUMNS": "200"})
        assert result.exit_code == 0, (words, result.output)
        done[" ".join(words[:2])] = result.stdout
    assert Path("table.json").exists()
    assert "whole models" in done["profile --space"]
    assert "cpu-onnxruntime" in done["table show"]
    assert "error on models left out of the fit" in done["calibrate-table --table"]
    # What the README says of a job that names the table.
    Path("job.yaml").write_text(yaml.safe_dump({**job, "target": {**job["target"], "table": "table.json"}}))
    planned = runner.invoke(app, ["validate", "job.yaml"], env={"COLUMNS": "200"})
    assert planned.exit_code == 0, planned.output
    assert "table.json" in planned.stdout
