"""Models in use on new data: the verdict, its exit code, and the search that follows."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controller.artifact_job import read_job
from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.errors import UsageError
from controller.rechecking.resubmission import Resubmission, resubmitted_job
from workers.export.verified import UnverifiedError

POOR = "keep 0.25, w8a8"

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # mlflow's models


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows_of(tiny):
    return [line.split("\t") for line in Path(tiny.data.source).read_text().splitlines()[1:]]


def write(path, rows, columns=("sentence", "label")):
    path.write_text("\n".join("\t".join(row) for row in [columns, *rows]) + "\n")
    return path


@pytest.fixture
def new_data(tiny_text, tmp_path):
    """The rows that the dense model itself has labelled, in another order."""
    return write(tmp_path / "new.tsv", rows_of(tiny_text)[::-1])


def test_a_model_that_answers_like_the_dense_one_is_fine(tiny_artifact, new_data):
    done = run("recheck", tiny_artifact("tiny_text"), "--data", new_data, "--json")
    assert done.exit_code == ExitCode.OK, done.stderr
    found = json.loads(done.stdout)
    assert (found["verdict"], found["examples"], found["paired"], found["version"]) == ("fine", 200, True, None)
    assert found["dense_quality"] == 1.0
    assert found["drop"] == pytest.approx(1 - found["quality"], abs=1e-6)
    assert found["drop"] <= 0.02


def test_a_model_that_loses_too_much_has_its_own_code_and_says_by_how_much(tiny_artifact, new_data):
    folder = tiny_artifact("tiny_text", POOR)
    done = run("recheck", folder, "--data", new_data)
    assert done.exit_code == ExitCode.BELOW_CONSTRAINT, done.stdout
    assert "verdict: below the constraint" in done.stdout
    found = json.loads(run("recheck", folder, "--data", new_data, "--json").stdout)
    assert f"below the constraint by {found['drop'] - 0.1:.4f}" in done.stdout
    assert found["drop_low"] > 0.1
    assert run("recheck", folder, "--data", new_data, "--max-drop", 1).exit_code == ExitCode.OK


def test_few_rows_can_not_tell(tiny_artifact, new_data):
    done = run("recheck", tiny_artifact("tiny_text", POOR), "--data", new_data, "--examples", 20, "--resubmit")
    assert done.exit_code == ExitCode.CANNOT_TELL
    assert "too few examples to tell: a verdict takes 30" in done.stdout
    assert "searched anew" not in done.stdout


def test_data_on_which_the_dense_model_fails_too_are_no_fault_of_the_compression(tiny_artifact, tiny_text, tmp_path):
    generator = random.Random(0)
    rows = [(text, str(generator.randrange(2))) for text, _ in rows_of(tiny_text)]
    data = write(tmp_path / "odd.tsv", rows, columns=("words", "class"))
    done = run("recheck", tiny_artifact("tiny_text"), "--data", data, "--input", "words", "--label", "class")
    assert done.exit_code == ExitCode.OK, done.stdout + done.stderr
    assert "the dense model itself has" in done.stdout
    assert "training does" in done.stdout


def test_without_the_dense_model_its_recorded_quality_takes_its_place(tiny_artifact, tiny_text, new_data):
    folder = tiny_artifact("tiny_text", POOR)
    model = Path(tiny_text.model.id)
    moved = model.rename(model.with_name("moved"))
    try:
        done = run("recheck", folder, "--data", new_data)
    finally:
        moved.rename(model)
    assert done.exit_code == ExitCode.BELOW_CONSTRAINT, done.stderr
    assert "the dense model can't be read here" in done.stdout
    assert "against the dense model's recorded quality" in done.stdout


def test_a_registered_model_is_checked_by_its_name(tiny_artifact, new_data, tmp_path):
    from controller.registry.registration import run_register

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run_register(tiny_artifact("tiny_text"), uri, name="used")
    done = run("recheck", "used@champion", "--data", new_data, "--tracking-uri", uri, "--json")
    assert done.exit_code == ExitCode.OK, done.stderr
    assert json.loads(done.stdout)["version"] == "1"
    gone = run("recheck", "used/7", "--data", new_data, "--tracking-uri", uri)
    assert gone.exit_code == ExitCode.USAGE
    assert "model 'used' has no version 7; it has: 1" in gone.stderr


def test_bad_input_has_the_codes_of_its_kind(tiny_artifact, new_data, tmp_path):
    folder = tiny_artifact("tiny_text")
    missing = run("recheck", folder, "--data", tmp_path / "none.tsv")
    assert missing.exit_code == ExitCode.PREFLIGHT
    assert missing.stderr.startswith("--data names a file of new rows, from the current folder on; there is no file")
    column = run("recheck", folder, "--data", new_data, "--label", "kind")
    assert column.exit_code == ExitCode.PREFLIGHT
    assert "has no column 'kind'" in column.stderr
    assert run("recheck", "a/b/c", "--data", new_data).exit_code == ExitCode.USAGE
    assert run("recheck", folder, "--data", new_data, "--name", "x").exit_code == ExitCode.USAGE
    assert run("recheck", folder, "--data", new_data, "--max-drop", 2).exit_code == ExitCode.USAGE


def test_the_job_of_a_new_search_is_the_old_one_on_the_new_data(tiny_artifact, new_data):
    job = read_job(tiny_artifact("tiny_text"))
    data = job.data.model_copy(update={"source": str(new_data)})
    kept = Resubmission(storage="sqlite:///x.db", tracking_uri="sqlite:///m.db")
    new = resubmitted_job(job, data, kept, rows=200)
    assert (new.model, new.space, new.target) == (job.model, job.space, job.target)
    assert (new.data.calibration, new.data.search, new.data.holdout) == (48, 64, 64)
    assert new.data.source == str(new_data)
    assert new.name.startswith("tiny-")
    assert resubmitted_job(new, data, kept, rows=200).name == new.name
    fewer = resubmitted_job(job, data, kept, rows=132)
    assert (fewer.data.calibration, fewer.data.search, fewer.data.holdout) == (36, 48, 48)
    with pytest.raises(UsageError, match=r"at least 30 rows a split; .* has 40 different rows"):
        resubmitted_job(job, data, kept, rows=40)
    with pytest.raises(ValueError, match="the study's name"):
        Resubmission(storage="sqlite:///x.db", tracking_uri="m", name="a/b")


@pytest.mark.slow
def test_a_model_below_its_constraint_is_searched_anew_from_where_it_stands(tiny_artifact, new_data, tmp_path):
    from controller.storage import Repository, open_database

    storage = f"sqlite:///{tmp_path / 'paretrim.db'}"
    folder = tiny_artifact("tiny_text", POOR)
    options = ["--resubmit", "--storage", storage, "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}", "--json"]
    done = run("recheck", folder, "--data", new_data, *options)
    assert done.exit_code == ExitCode.BELOW_CONSTRAINT, done.stderr
    found = json.loads(done.stdout)
    assert found["search"]["study"] == found["new_study"]
    assert found["search"]["front"]
    repository = Repository(open_database(storage))
    record = repository.find_study(found["new_study"])
    policies = {trial.policy.digest for trial in repository.trials(record.id)}
    assert json.loads((folder / "report.json").read_text())["policy_digest"] in policies


def test_an_artifact_that_was_changed_is_not_scored(tiny_artifact, new_data, tmp_path):
    import shutil

    from controller.rechecking.model_check import NewData, run_model_check

    changed = tmp_path / "changed"
    shutil.copytree(tiny_artifact("tiny_text"), changed)
    (changed / "config.json").write_text("{}")
    with pytest.raises(UnverifiedError, match=r"config\.json: changed"):
        run_model_check(str(changed), NewData(source=str(new_data)), lambda _: None, tracking_uri="sqlite:///x.db")
