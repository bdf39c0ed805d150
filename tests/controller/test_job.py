"""The job: what it composes, how it is refused, and what stays light while it is checked."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from controller.job import (
    SCHEMA_ID,
    JobError,
    JobSpec,
    Objective,
    check_study_name,
    job_schema,
    parse_job,
)
from controller.job_file import load_job
from controller.preparation import describe
from controller.problems import mask_passwords
from evaluators.scores import QualityMeasure
from workers.workload import WorkloadError

SMALLEST = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}


def problems_of(**changes):
    with pytest.raises(JobError, match="problem") as caught:
        parse_job({**SMALLEST, **changes})
    return caught.value.problems


def write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_smallest_job_has_defaults_for_the_rest():
    job = parse_job(SMALLEST)
    assert job.objectives == (Objective.QUALITY, Objective.LATENCY_MS)
    assert job.search.sampler == "frontier"
    assert job.quality is QualityMeasure.METRIC
    assert job.storage.startswith("sqlite:///.paretrim/")
    assert job.mlflow.enabled
    with pytest.raises(ValidationError, match="frozen"):
        job.name = "other"


def test_all_problems_come_at_once_with_what_was_expected_and_what_came():
    found = problems_of(
        name="../x",
        search={"trials": 0, "sampler": "tpee", "seed": "7"},
        target={"batch": 0},
        objectives=["latency_ms"],
        constraints={"max_quality_drop": 2},
    )
    text = "\n".join(found)
    assert len(found) == 7
    assert "search.trials: must be greater than or equal to 1; got 0 (Trials in all" in text
    assert "search.sampler: must be a sampler; got 'tpee'; did you mean 'tpe'?" in text
    assert "search.seed: must be a valid integer; got '7'; write a plain decimal number" in text
    assert "objectives: must hold quality and at least one of latency_ms, size_bytes, energy_mj, " in text
    assert "constraints.max_quality_drop: must be less than or equal to 1; got 2" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objectives": ["quality", "latncy_ms"]}, "did you mean 'latency_ms'"),
        ({"quality": "fidelty"}, "did you mean 'fidelity'"),
        ({"objectives": ["quality", "quality", "size_bytes"]}, "must name each objective once"),
        ({"objectives": "quality"}, "write a list"),
        ({"target": {"name": "cpu-onnx"}}, "did you mean 'cpu-onnxruntime'"),
        ({"space": {"formats": ["w9"]}}, "unknown format 'w9'; supported: bf16, fp16, fp32"),
        ({"space": {"keep": [1.5]}}, "keep ratios lie between 0 and 1"),
        ({"search": {"parallel": True}}, "must be a valid integer; got True"),
        ({"search": {"seed": 1.0}}, "must be a valid integer; got 1.0"),
        ({"search": {"trials": 10**5000}}, "at most 64 bits"),
        ({"constraints": {"max_latency_ms": float("nan")}}, "must be a finite number; got nan"),
        ({"constraints": {"max_latency_ms": float("inf")}}, "must be a finite number; got inf"),
        ({"model": {"id": "a", "revision": 12}}, "put it in quotes"),
        ({"schema_version": 2}, "schema_version: must be 1; got 2"),
        ({"mlflow": {"enabled": "yes"}}, "write true or false"),
        ({"storage": "paretrim.db"}, "SQLAlchemy URL"),
        ({"model": None}, "The trained model"),
    ],
)
def test_a_problem_names_place_and_remedy(changes, expected):
    assert expected in "\n".join(problems_of(**changes))


def test_what_is_no_mapping_or_no_plain_value_is_refused():
    with pytest.raises(JobError, match="mapping of keys to values; got list"):
        parse_job([1])
    with pytest.raises(JobError, match="plain values only"):
        parse_job({**SMALLEST, "name": object()})


def test_digest_ignores_spelling_and_where_results_are_kept_only():
    job = parse_job(SMALLEST)
    spelled_out = parse_job({**SMALLEST, "search": {"trials": 100}, "storage": "sqlite:///other.db"})
    assert job.digest == spelled_out.digest
    assert job.digest != parse_job({**SMALLEST, "search": {"trials": 101}}).digest
    assert len(job.digest) == 16


def test_more_trials_leave_the_fixed_content_as_it_is_and_another_seed_does_not():
    job = parse_job(SMALLEST)
    longer = parse_job({**SMALLEST, "search": {"trials": 500, "parallel": 4, "timeout_minutes": 3}})
    assert job.fixed_content() == longer.fixed_content()
    assert job.fixed_content() != parse_job({**SMALLEST, "search": {"seed": 1}}).fixed_content()


def test_passwords_are_in_no_text_of_a_job():
    job = parse_job(
        {
            **SMALLEST,
            "storage": "postgresql://me:hunter2@host/db",
            "mlflow": {"tracking_uri": "https://me:hunter2@host"},
        }
    )
    assert job.storage.count("hunter2") == 1
    assert "hunter2" not in repr(job)
    assert "hunter2" not in json.dumps(job.public_dict())
    for url in ("postgresql//me:hunter2@host", "me:hunter2@host"):
        assert "hunter2" not in "\n".join(problems_of(storage=url))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:a@b/c@host/db", "postgresql://me:***@host/db"),
        ("no url: at all", "no url: at all"),
        ("sqlite:////home/a@b/x.db", "sqlite:////home/a@b/x.db"),
        ("postgresql://host/db?password=x&a=1", "postgresql://host/db?password=***&a=1"),
        ("me:pw@host", "me" + ":***@host"),
    ],
)
def test_mask_passwords(text, masked):
    assert mask_passwords(text) == masked


def test_json_form_comes_back_as_the_same_job():
    job = parse_job({**SMALLEST, "target": {"table": "t.json"}, "space": {"override": [{"units": "*", "keep": [1]}]}})
    assert JobSpec.model_validate_json(job.model_dump_json()) == job


def test_job_error_pickles():
    with pytest.raises(JobError, match="required") as caught:
        parse_job({})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)


def models_of(schema):
    return {"JobSpec": schema, **schema["$defs"]}


def test_schema_describes_every_field_and_accepts_no_other_keys():
    schema = job_schema()
    assert (schema["$id"], schema["title"]) == (SCHEMA_ID, "Paretrim job")
    for name, body in models_of(schema).items():
        assert body.get("description"), name
        if body["type"] == "object":
            assert body["additionalProperties"] is False
            for key, field in body["properties"].items():
                assert field.get("description"), f"{name}.{key} has no docstring"


def test_every_config_class_is_frozen_and_closed():
    def nested(model):
        yield model
        for field in model.model_fields.values():
            for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    yield from nested(part)

    for model in nested(JobSpec):
        assert model.model_config["frozen"], model
        assert model.model_config["extra"] == "forbid", model


def test_checking_a_job_imports_nothing_heavy(tmp_path):
    path = write(tmp_path, json.dumps(SMALLEST), "job.json")
    heavy = ("torch", "transformers", "ray", "mlflow", "optuna", "sqlalchemy", "datasets", "onnxruntime", "numpy")
    program = (
        "import sys; from controller.job_file import load_job; load_job(sys.argv[1]); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_job_file_is_read_and_its_paths_belong_to_its_folder(tmp_path):
    (tmp_path / "model").mkdir()
    text = """
name: demo
model: {id: model}
data:
  source: data/train.csv
  calibration_source: org/other
target: {table: tables/here.json}
storage: sqlite:///studies/a.db
constraints: {max_quality_drop: 1e-2}
"""
    job = load_job(write(tmp_path, text))
    assert job.model.id == str(tmp_path / "model")
    assert job.data.source == str(tmp_path / "data/train.csv")
    assert job.data.calibration_source == "org/other"
    assert job.target.table == tmp_path / "tables/here.json"
    assert job.storage == f"sqlite:///{tmp_path}/studies/a.db"
    assert job.constraints.max_quality_drop == 0.01
    assert job.mlflow.tracking_uri == "sqlite:///.paretrim/mlflow.db"


@pytest.mark.parametrize("url", ["sqlite:////tmp/a.db", "sqlite:///:memory:", "postgresql://host/db"])
def test_other_urls_stay_as_they_are(tmp_path, url):
    assert load_job(write(tmp_path, json.dumps({**SMALLEST, "storage": url}), "job.json")).storage == url


def test_yaml_and_json_give_the_same_job(tmp_path):
    as_json = write(tmp_path, json.dumps(SMALLEST), "job.json")
    as_yaml = write(tmp_path, "name: demo\nmodel:\n  id: org/model\ndata:\n  source: org/data\n")
    assert load_job(as_json) == load_job(as_yaml)
    assert load_job(as_json) == load_job(write(tmp_path, json.dumps(SMALLEST), "flow.yaml"))


def test_a_format_without_a_kernel_on_the_target_has_line_and_column(tmp_path):
    text = "name: demo\nmodel: {id: org/model}\ndata: {source: org/data}\nspace:\n  formats: [fp32, bf16]\n"
    with pytest.raises(JobError, match=r"line 5, column 19: space\.formats\.1: must have a kernel on cpu-onnxruntime"):
        load_job(write(tmp_path, text))
    text = text.replace("formats: [fp32, bf16]", "override:\n    - {units: x, formats: [bf16]}")
    with pytest.raises(JobError, match=r"line 6, column 28: space\.override\.0\.formats\.0: must .*choose from fp32"):
        load_job(write(tmp_path, text))


def test_a_length_that_the_model_lacks_positions_for_has_line_and_column(tiny_text, tmp_path):
    text = f"name: demo\nmodel: {{id: {tiny_text.model.id}}}\ndata: {{source: org/data}}\n"
    path = write(tmp_path, text + "target:\n  sequence_length: 4096\n")
    with pytest.raises(
        WorkloadError, match=r"job\.yaml: line 5, column 3: target\.sequence_length is at most \d+ .*write"
    ):
        describe(load_job(path))


def test_a_problem_in_a_file_has_line_and_column(tmp_path):
    path = write(tmp_path, "name: demo\nmodel: {id: org/model}\ndata:\n  source: org/data\n  search: 0\n")
    with pytest.raises(JobError, match=r"job\.yaml has a problem:\n  line 5, column 3: data\.search: must be greater"):
        load_job(path)


@pytest.mark.parametrize("name", ["demo", "a", "A-1_b.c", "x" * 64])
def test_study_names(name):
    assert check_study_name(name) == name


def test_a_job_made_in_python_gets_absolute_paths(tmp_path):
    from controller.job_file import anchored

    (tmp_path / "model").mkdir()
    job = JobSpec.model_validate({"name": "j", "model": {"id": "./model"}, "data": {"source": "data/rows.csv"}})
    found = anchored(job, tmp_path)
    assert found.model.id == str(tmp_path / "model")
    assert found.data.source == str(tmp_path / "data/rows.csv")
    assert found.storage == f"sqlite:///{tmp_path}/.paretrim/paretrim.db"
    assert anchored(found, tmp_path / "elsewhere") == found


def test_what_quality_means_is_part_of_what_a_study_can_not_change():
    by_metric, by_fidelity = parse_job(SMALLEST), parse_job({**SMALLEST, "quality": "fidelity"})
    assert (by_metric.fixed_content()["quality"], by_fidelity.fixed_content()["quality"]) == ("metric", "fidelity")
    assert by_metric.digest != by_fidelity.digest
