"""Coefficients of energy that people state: in a file of their own, or in a mapping."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from tiny_searches import make_job
from typer.testing import CliRunner

from controller.cli.app import app
from controller.preparation import describe, price_by_table
from controller.problems import JobError
from controller.tables.energy import load_coefficients
from evaluators.latency import shipped
from evaluators.latency.table import MeasuredPower, load_table
from evaluators.latency.table.energy import HOROWITZ, Arithmetic

if TYPE_CHECKING:
    from conftest import TinyJob

STATED = """
source: data sheet of Board X, page 12
assumptions: [the clock is at 1 GHz]
multiply_add_pj: {float32: 2.0, float16: 1, float8: 1.0, int8: 0.25}
weight_byte_pj: 20.5
activation_byte_pj: 0
"""
MAPPING = """
target: bench
device: board
runtime: engine
threads: 2
time_unit: us
time_unit_basis: stated
source: {name: a blog, licence: MIT}
operators:
  - {kind: quantize, time: t, axes: {tokens: n, features: 16}}
"""


@pytest.fixture
def stated(tmp_path: Path) -> Path:
    path = tmp_path / "energy.yaml"
    path.write_text(STATED)
    return path


@pytest.fixture
def table(tiny_text: "TinyJob", tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    load_table(tiny_text.table).model_copy(update={"energy": None}).save(path)
    return path


def run(*words: object):
    return CliRunner().invoke(app, ["table", *(str(word) for word in words)], env={"COLUMNS": "300"})


def dense_energy_mj(tiny: "TinyJob", table: Path, folder: Path) -> float:
    target = {"table": str(table), "sequence_length": tiny.sequence_length}
    job = make_job(tiny, folder, 4, target=target)
    priced = price_by_table(job, describe(job))
    energy_mj = priced.costs.costs(priced.description.space.dense_policy()).energy_mj
    assert energy_mj is not None
    return energy_mj


def test_a_table_states_what_a_file_says(tiny_text: "TinyJob", table: Path, stated: Path, tmp_path: Path) -> None:
    before_mj = dense_energy_mj(tiny_text, table, tmp_path)
    done = run("energy", table, "--coefficients", stated, "-o", tmp_path / "new.json")
    assert done.exit_code == 0, done.stderr
    assert "energies are estimated by data sheet of Board X, page 12; before: none" in done.stdout
    new = load_table(tmp_path / "new.json")
    assert new.energy == load_coefficients(stated)
    assert (new.entries, new.corrections) == (load_table(table).entries, load_table(table).corrections)
    assert dense_energy_mj(tiny_text, tmp_path / "new.json", tmp_path) < before_mj / 2
    assert "weight_byte_pj: 20.5" in run("show", tmp_path / "new.json").stdout


def test_without_a_new_file_the_table_itself_is_changed(table: Path, stated: Path) -> None:
    done = run("energy", table, "--coefficients", stated)
    assert done.exit_code == 0, done.stderr
    assert "-o keeps it" in done.stdout
    assert load_table(table).energy == load_coefficients(stated)
    content = json.loads(run("energy", table, "--coefficients", stated, "--json").stdout)
    assert content["notes"] == [
        "energies are estimated by data sheet of Board X, page 12; before: estimated, data sheet of Board X, page 12"
    ]


def test_measured_power_is_not_written_over(table: Path, stated: Path, tmp_path: Path) -> None:
    power = MeasuredPower(source="RAPL package-0", watts={Arithmetic.FLOAT32: 12.0})
    load_table(table).model_copy(update={"energy": power}).save(table)
    done = run("energy", table, "--coefficients", stated)
    assert done.exit_code == 2
    assert "has power measured by RAPL package-0; write a new file with -o" in done.stderr
    assert load_table(table).energy == power
    assert run("energy", table, "--coefficients", stated, "-o", tmp_path / "new.json").exit_code == 0
    again = run("energy", table, "--coefficients", stated, "-o", tmp_path / "new.json")
    assert (again.exit_code, "exists; name another" in again.stderr) == (2, True)


@pytest.mark.parametrize("words", [("shipped:mine",), ("TABLE", "-o", str(shipped.FOLDER / "mine.json"))])
def test_tables_of_the_package_stay(words: tuple[str, ...], table: Path, stated: Path) -> None:
    done = run("energy", *(table if word == "TABLE" else word for word in words), "--coefficients", stated)
    assert done.exit_code == 3
    assert "stay as they are" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source: data sheet of Board X, page 12", "", "source: required"),
        ("float32: 2.0", "float32: -2.0", r"multiply_add_pj\.float32: .*greater than 0"),
        ("float32: 2.0", "float32: .nan", "nan"),
        ("float32: 2.0", "float32: .inf", "inf"),
        ("float32: 2.0, ", "", "multiply_add_pj names every arithmetic; it lacks float32"),
        ("float32: 2.0", "float32: '2.0'", r"multiply_add_pj\.float32"),
        ("weight_byte_pj: 20.5", "weight_byte_pj: -1", "weight_byte_pj: .*greater than or equal to 0"),
        ("weight_byte_pj: 20.5", "weight_byte_nj: 20.5", "weight_byte_nj: unknown key; did you mean 'weight_byte_pj'"),
        (STATED.strip(), "- 1", "a statement of energy holds keys and values; got list; start with source"),
    ],
)
def test_coefficients_that_are_not_valid_say_why(old: str, new: str, message: str, table: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    assert old in STATED
    path.write_text(STATED.replace(old, new))
    with pytest.raises(JobError, match=message):
        load_coefficients(path)
    before = table.read_bytes()
    assert run("energy", table, "--coefficients", path).exit_code == 2
    assert table.read_bytes() == before


def test_a_mapping_may_state_them_too(stated: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("n,t\n8,500\n")
    (tmp_path / "m.yaml").write_text(MAPPING + yaml.safe_dump({"energy": yaml.safe_load(STATED)}))
    out = tmp_path / "t.json"
    assert run("import", tmp_path / "x.csv", "--mapping", tmp_path / "m.yaml", "-o", out).exit_code == 0
    assert load_table(out).energy == load_coefficients(stated)
    (tmp_path / "m.yaml").write_text(MAPPING + "energy: {weight_byte_pj: 1.0}\n")
    done = run("import", tmp_path / "x.csv", "--mapping", tmp_path / "m.yaml", "-o", tmp_path / "u.json")
    assert done.exit_code == 2
    assert "energy.source: required" in done.stderr


def test_the_coefficients_of_the_literature_are_a_file_to_begin_with(tmp_path: Path) -> None:
    path = tmp_path / "horowitz.json"
    path.write_text(HOROWITZ.model_dump_json())
    assert load_coefficients(path) == HOROWITZ
