"""A job from its file to a verified artifact, by the command line, with real workers on Ray."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

PROGRAM = [str(Path(sys.executable).with_name("paretrim"))]


def write_job(job, folder, **changes):
    content = {
        "name": "tiny",
        "model": {"id": job.model.id, "task": job.model.task},
        "data": job.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.5, 0.0], "formats": ["fp32", "w8a8"]},
        "target": {"table": str(job.table), "threads": 1},
        "search": {"sampler": "nsga2", "trials": 6, "parallel": 2},
        "storage": f"sqlite:///{folder}/paretrim.db",
        "mlflow": {"enabled": False},
    }
    if job.sequence_length is not None:
        content["target"]["sequence_length"] = job.sequence_length
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def run(*arguments, cwd, code=0):
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def searched(tiny_text, tmp_path_factory):
    """A finished search of the text model: its folder and what the command printed."""
    folder = tmp_path_factory.mktemp("searched")
    mlflow = {"tracking_uri": f"sqlite:///{folder}/mlflow.db"}
    job = write_job(tiny_text, folder, mlflow=mlflow)
    return folder, json.loads(run("search", job, "--json", cwd=folder).stdout)


def test_search_gives_a_front_beside_baselines_scored_on_the_holdout(searched):
    _, result = searched
    assert result["trials_done"] >= 6
    assert [row["name"] for row in result["baselines"]][:2] == ["dense", "keep 1, w8a8"]
    assert result["baselines"][0]["quality"] == 1.0
    for row in (*result["front"], *result["baselines"]):
        assert row["holdout_low"] <= row["holdout_quality"] <= row["holdout_high"]
        assert row["search_gap"] == pytest.approx(row["quality"] - row["holdout_quality"])
    check = result["holdout_check"]
    assert check["members"] == len(result["front"])
    assert check["mean_gap"] == pytest.approx(sum(row["search_gap"] for row in result["front"]) / len(result["front"]))
    points = [(row["quality"], -row["latency_ms"]) for row in result["front"]]
    assert not any(a != b and a[0] >= b[0] and a[1] >= b[1] for a in points for b in points)


@pytest.fixture(scope="module")
def searched_by_fidelity(tiny_text, tmp_path_factory):
    """A finished search of the text model by its outputs: its folder and what the command printed."""
    folder = tmp_path_factory.mktemp("faithful")
    job = write_job(tiny_text, folder, quality="fidelity", constraints={"max_quality_drop": 0.9})
    return folder, json.loads(run("search", job, "--json", cwd=folder).stdout)


@pytest.mark.slow
def test_a_search_by_fidelity_reports_the_metric_on_the_holdout(searched_by_fidelity):
    folder, result = searched_by_fidelity
    assert (result["metric"], result["task_metric"]) == ("fidelity", "accuracy")
    dense = result["baselines"][0]
    assert (dense["quality"], dense["holdout_quality"], dense["holdout_metric"]["value"]) == (1.0, 1.0, 1.0)
    assert 0.5 < result["reference"]["quality"] < 1
    for row in (*result["front"], *result["baselines"]):
        check = row["holdout_metric"]
        assert check["low"] <= check["value"] <= check["high"]
        assert (64 * check["value"]) % 1 == 0
        assert row["holdout_low"] <= row["holdout_quality"] <= row["holdout_high"]
    assert any(0 < row["quality"] < 1 for row in result["front"])
    shown = run("front", "tiny", "--storage", f"sqlite:///{folder}/paretrim.db", cwd=folder).stdout
    assert "accuracy on" in shown
    assert "fidelity" in shown
    body = json.loads((folder / "reports" / "tiny" / "front.json").read_text())
    assert [p["holdout_metric"]["value"] for p in body["baselines"]] == [
        row["holdout_metric"]["value"] for row in result["baselines"]
    ]
    assert "accuracy on holdout" in (folder / "reports" / "tiny" / "report.md").read_text()


@pytest.mark.slow
def test_a_search_by_fidelity_goes_on_as_it_began(searched_by_fidelity, tiny_text):
    folder, before = searched_by_fidelity
    after = json.loads(run("search", "job.yaml", "--json", cwd=folder).stdout)
    assert (after["front"], after["trials_done"]) == (before["front"], before["trials_done"])
    (folder / "other").mkdir()
    same = {"storage": f"sqlite:///{folder}/paretrim.db", "constraints": {"max_quality_drop": 0.9}}
    other = write_job(tiny_text, folder / "other", **same)
    done = run("search", other, cwd=folder, code=2)
    assert 'job.quality: "fidelity" before, now "metric"' in done.stderr


@pytest.mark.slow
def test_a_pick_by_fidelity_is_verified_by_the_metric(searched_by_fidelity):
    folder, result = searched_by_fidelity
    options = ["--storage", f"sqlite:///{folder}/paretrim.db", "--json"]
    done = run("export", "tiny", "--pick", "fastest within 90% quality", "--out", "best", *options, cwd=folder)
    report = json.loads(done.stdout)
    row = next(row for row in result["front"] if row["policy_digest"] == report["policy_digest"])
    assert (report["metric"], report["dense_quality"]) == ("accuracy", 1.0)
    assert report["searched_quality"] == pytest.approx(row["holdout_metric"]["value"])
    assert report["exported_quality"] == pytest.approx(report["searched_quality"], abs=0.04)


@pytest.mark.slow
def test_search_again_answers_from_the_database(searched):
    folder, before = searched
    after = json.loads(run("search", "job.yaml", "--json", cwd=folder).stdout)
    assert after["front"] == before["front"]
    assert after["trials_done"] == before["trials_done"]


def test_front_shows_the_same_front_again(searched):
    folder, result = searched
    storage = f"sqlite:///{folder}/paretrim.db"
    shown = json.loads(run("front", "tiny", "--json", "--storage", storage, cwd=folder).stdout)
    assert shown["front"] == result["front"]


def test_reports_and_mlflow_hold_the_front(searched):
    import mlflow

    folder, result = searched
    report = folder / "reports" / "tiny"
    assert {path.name for path in report.iterdir()} >= {"front.html", "front.png", "front.json", "trials.csv"}
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments() if e.name.startswith("paretrim/")]
    runs = client.search_runs(experiments)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    on_front = [r for r in runs if r.data.tags.get("paretrim.pareto") == "true"]
    assert len(parents) == 1
    assert parents[0].data.metrics["hypervolume"] == pytest.approx(result["hypervolume"])
    assert len(on_front) == len(result["front"])


def test_a_pick_is_exported_and_verified(searched):
    folder, result = searched
    options = ["--storage", f"sqlite:///{folder}/paretrim.db", "--json"]
    done = run("export", "tiny", "--pick", "fastest within 100% quality", "--out", "best", *options, cwd=folder)
    report = json.loads(done.stdout)
    fastest = min(result["front"], key=lambda row: row["latency_ms"])
    assert report["policy_digest"] == fastest["policy_digest"]
    assert report["exported_quality"] == pytest.approx(report["searched_quality"], abs=0.04)
    assert {p.name for p in (folder / "best").iterdir()} >= {"model.onnx", "report.json", "README.md", "policy.json"}
    again = run("export", "tiny", "--trial", fastest["trial"], "--out", "best", *options, cwd=folder, code=2)
    assert "holds something" in again.stderr


@pytest.mark.slow
def test_a_pick_is_exported_with_an_early_exit(searched):
    folder, result = searched
    trial = max(result["front"], key=lambda row: row["latency_ms"])["trial"]
    options = ["--storage", f"sqlite:///{folder}/paretrim.db", "--json", "--early-exit", "--exit-tolerance", 20]
    report = json.loads(run("export", "tiny", "--trial", trial, "--out", "leaving", *options, cwd=folder).stdout)
    leaving = report["early_exit"]
    assert 0 < leaving["share"] <= 1
    assert report["exported_quality"] >= leaving["whole_quality"] - 0.35
    assert leaving["expected_latency_ms"] < report["predicted_latency_ms"]
    card = (folder / "leaving" / "README.md").read_text()
    assert "--early-exit --exit-tolerance 20" in card
    assert "share that leaves early" in card


@pytest.mark.slow
def test_sensitivity_and_sweep_go_on_from_the_search(searched):
    folder, _ = searched
    done = run("sensitivity", "job.yaml", "--measure", "--out", "units", "--json", cwd=folder)
    report = json.loads(done.stdout)
    assert (report["missing"], report["notes"]) == (0, [])
    assert {path.name for path in (folder / "units").iterdir()} == {
        f"sensitivity.{end}" for end in ("csv", "html", "json", "png")
    }
    sweep = json.loads(run("sweep", "job.yaml", "--keep", "0.5,1", "--max-drop", "1", "--json", cwd=folder).stdout)
    assert [row["name"] for row in sweep["rows"]] == [
        "keep 1, fp32",
        "keep 0.5, fp32",
        "keep 1, w8a8",
        "keep 0.5, w8a8",
    ]
    assert sweep["scored"] == 0
    assert [verdict["keep"] for verdict in sweep["verdicts"]] == [0.5, 0.5]


def test_a_changed_space_is_refused_with_the_difference(searched, tiny_text):
    folder, _ = searched
    other = folder / "other"
    other.mkdir()
    job = write_job(
        tiny_text,
        other,
        space={"keep": [1.0, 0.25]},
        storage=f"sqlite:///{folder}/paretrim.db",
        mlflow={"enabled": False},
    )
    done = run("search", job, cwd=folder, code=2)
    assert "space" in done.stderr
    assert "keep" in done.stderr


@pytest.mark.slow
def test_an_interrupted_search_goes_on_and_loses_nothing(tiny_image, tmp_path):
    space = {"keep": [1.0, 0.75, 0.5, 0.25, 0.0], "formats": ["fp32", "w8a8"]}
    many = {"sampler": "random", "trials": 3000, "parallel": 2}
    job = write_job(tiny_image, tmp_path, space=space, search=many)
    with subprocess.Popen([*PROGRAM, "search", job], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "searching" in line and " 0/" not in line:
                break
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(120) == 130, rest
    assert "paretrim search" in rest
    storage = f"sqlite:///{tmp_path}/paretrim.db"
    kept = json.loads(run("front", "tiny", "--json", "--storage", storage, cwd=tmp_path).stdout)["trials_done"]
    assert 0 < kept < 3000
    write_job(tiny_image, tmp_path, space=space, search={"sampler": "random", "trials": kept + 3, "parallel": 1})
    result = json.loads(run("search", job, "--json", cwd=tmp_path).stdout)
    assert result["trials_done"] >= kept + 3


def test_validate_tells_what_would_happen(tiny_image, tmp_path):
    plan = json.loads(run("validate", write_job(tiny_image, tmp_path), "--json", cwd=tmp_path).stdout)
    assert len(plan["units"]) == 4
    assert plan["space_size"] == 5**4
    assert plan["min_latency_ms"] < plan["dense_latency_ms"]
    assert not (tmp_path / "paretrim.db").exists()


def test_an_export_from_changed_data_is_refused(searched):
    folder, _ = searched
    storage = f"sqlite:///{folder}/paretrim.db"
    table = Path(yaml.safe_load((folder / "job.yaml").read_text())["data"]["source"])
    before = table.read_text()
    lines = before.splitlines()
    table.write_text("\n".join([lines[0], *(line[:-1] + str(1 - int(line[-1])) for line in lines[1:])]) + "\n")
    try:
        done = run("export", "tiny", "--trial", 0, "--out", "other-data", "--storage", storage, cwd=folder, code=2)
    finally:
        table.write_text(before)
    assert "the model or its data" in done.stderr
    assert not (folder / "other-data").exists()


@pytest.mark.slow
def test_a_search_over_energy_and_memory_reports_both(tiny_text, tmp_path):
    objectives = ["quality", "energy_mj", "peak_memory_bytes"]
    search = {"sampler": "frontier", "trials": 6}
    job = write_job(tiny_text, tmp_path, objectives=objectives, search=search, constraints={"max_energy_mj": 1e6})
    result = json.loads(run("search", job, "--json", cwd=tmp_path).stdout)
    dense = result["baselines"][0]
    assert result["reference"]["peak_memory_bytes"] == dense["peak_memory_bytes"] > 0
    assert result["energy_heading"] == "energy (estimated)"
    assert any("energies are estimated, by M. Horowitz" in note for note in result["notes"])
    points = [(-row["quality"], row["energy_mj"], row["peak_memory_bytes"]) for row in result["front"]]
    assert len(points) >= 2
    assert not any(a != b and all(x <= y for x, y in zip(a, b, strict=True)) for a in points for b in points)
