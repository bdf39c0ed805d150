import json
import math
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from controller.report_files import write_report_files
from controller.study_view import PointState
from controller.tracking.address import runs_address, shared_view, without_credentials
from controller.tracking.content import study_note
from controller.tracking.messages import Kind, finite, groups, safe_keys
from controller.tracking.outbox import OutboxItem
from controller.tracking.tracker import Tracker, TrackingState, Waits, experiment_name

QUICK = Waits(poll_s=0.05, first_s=0.05, longest_s=0.2)

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")  # mlflow's models


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One migrated SQLite store: making it takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'sub' / 'mlflow.db'}"


def client_of(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs_of(uri, experiment):
    client = client_of(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=1000)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    return client, parents, [r for r in runs if r not in parents]


def record_study(tracker, view, folder):
    tracker.begin(
        name="digits",
        metric=view.metric,
        params={"model": "vit", "sampler": "tpe"},
        job_yaml="storage: db://me:pw@h/x\n",
    )
    for step, value in enumerate(view.hypervolume_by_trial, 1):
        tracker.progress(step, {"hypervolume": value, "best_quality": None, "worst": math.inf, "odd <name>": 1.0})
    tracker.finish(view, write_report_files(view, folder))


@pytest.fixture
def tracker_of(store, outbox):
    """Returns a maker of running trackers on the store, stopped at the end."""
    made = []

    def make(experiment, uri=store, box=outbox, study="digits-1"):
        lines = []
        tracker = Tracker(uri, box, study=study, experiment=experiment, say=lines.append, waits=QUICK)
        tracker.lines = lines
        made.append(tracker)
        tracker.start()
        return tracker

    yield make
    for tracker in made:
        tracker.stop(10)


def test_study_is_recorded_as_parent_and_children(tracker_of, store, make_view, tmp_path):
    view = make_view()
    tracker = tracker_of("record")
    assert tracker.address is None
    record_study(tracker, view, tmp_path)
    assert tracker.flush(30), tracker.lines
    client, (parent,), children = runs_of(store, "record")
    assert parent.info.run_name == "digits"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"model": "vit", "sampler": "tpe"}
    history = client.get_metric_history(parent.info.run_id, "hypervolume")
    assert [(m.step, m.value) for m in history] == [(1, 0.1), (2, 0.4), (3, 0.5), (4, 0.5)]
    assert set(parent.data.metrics) == {"hypervolume", "odd _name_"}
    names = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert names == {"front.html", "front.png", "front.json", "trials.csv", "report.md", "job.yaml"}
    note = parent.data.tags["mlflow.note.content"].splitlines()
    assert "Trial 1 has accuracy" in note[0]
    assert note[2].strip() == "paretrim export digits-1 --trial 1 --out DIR"

    assert sorted(r.info.run_name for r in children) == ["dense", "trial 1", "trial 2", "uniform w8a8"]
    child = next(r for r in children if r.info.run_name == "trial 1")
    assert child.info.status == "FINISHED"
    assert child.data.params["layer.0.attention"] == "keep 9/12, w8a8"
    assert child.data.metrics == {
        "quality": 0.915,
        "quality_low": 0.90,
        "quality_high": 0.93,
        "holdout_quality": 0.913,
        "latency_ms": 8.0,
        "size_bytes": 25e6,
        "kl_to_dense": 0.01,
    }
    tags = child.data.tags
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert (tags["paretrim.pareto"], tags["paretrim.feasible"], tags["paretrim.trial"]) == ("true", "true", "1")
    colours = {r.info.run_name: r.data.tags["mlflow.runColor"] for r in children}
    assert colours["trial 1"] == colours["trial 2"] != colours["dense"] != colours["uniform w8a8"]
    policy = Path(client.download_artifacts(child.info.run_id, "policy.json", str(tmp_path))).read_text()
    assert policy == next(p for p in view.points if p.trial == 1).as_policy.to_json()
    job = Path(client.download_artifacts(parent.info.run_id, "job.yaml", str(tmp_path))).read_text()
    assert job == "storage: db://***@h/x\n"


def test_every_trial_has_a_run_where_that_is_wanted(tracker_of, store, make_view):
    view = make_view()
    tracker = tracker_of("all")
    tracker.begin(name="digits", metric=view.metric, params={}, job_yaml=None)
    again = replace(view.points[3], trial=5, name="trial 5", on_front=False)
    running = replace(view.points[-1], trial=6, name="trial 6", state=PointState.RUNNING, failure=None)
    tracker.finish(replace(view, points=(*view.points, again, running)), (), every_trial=True)
    assert tracker.flush(30), tracker.lines
    _, _, children = runs_of(store, "all")
    assert sorted(r.info.run_name for r in children) == [p.name for p in sorted(view.points, key=lambda p: p.name)]
    failed = next(r for r in children if r.info.run_name == "trial 4")
    assert failed.info.status == "FAILED"
    assert failed.data.metrics == {}
    assert (failed.data.tags["paretrim.state"], failed.data.tags["paretrim.failure"]) == ("failed", "out of memory")
    outside = next(r for r in children if r.info.run_name == "trial 3")
    assert outside.data.tags["paretrim.feasible"] == "false"


def test_scores_policy_and_tags_of_a_run_go_in_one_batch(tracker_of, store, make_view, monkeypatch):
    from mlflow import MlflowClient

    tracker = tracker_of("requests")
    tracker.begin(name="digits", metric="accuracy", params={}, job_yaml=None)
    assert tracker.flush(30)
    batches = []
    plain = MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *a, **k: (batches.append(k), plain(*a, **k))[1])
    view = make_view()
    tracker.finish(replace(view, points=tuple(p for p in view.points if p.name == "trial 1")), ())
    assert tracker.flush(30), tracker.lines
    child, note = batches
    assert (len(child["params"]), len(child["metrics"])) == (4, 7)
    assert [tag.key for tag in note["tags"]] == ["mlflow.note.content"]


def test_progress_that_says_nothing_new_is_not_recorded(outbox):
    tracker = Tracker("sqlite:///x.db", outbox, study="s", experiment="e", say=print)
    for step, value in ((1, 0.5), (1, 0.5), (2, 0.5), (2, math.nan)):
        tracker.progress(step, {"hypervolume": value})
    assert [item.payload["step"] for item in outbox.pending(9)] == [1, 2]


def test_artifacts_lie_beside_the_database(tracker_of, store, make_view):
    tracker = tracker_of("place")
    tracker.begin(name="n", metric="accuracy", params={}, job_yaml=None)
    assert tracker.flush(30)
    location = client_of(store).get_experiment_by_name("place").artifact_location
    assert location == (Path(store.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()


def test_replay_after_a_crash_adds_nothing(tracker_of, store, outbox, make_view, tmp_path):
    tracker = tracker_of("crash")
    record_study(tracker, make_view(), tmp_path)
    assert tracker.flush(30)
    tracker.stop(10)
    before = runs_of(store, "crash")
    outbox.forget_what_was_sent()
    assert tracker_of("crash").flush(30)
    after = runs_of(store, "crash")
    for old, new in zip(before[1:], after[1:], strict=True):
        assert [(r.info.run_id, r.data.params, r.data.metrics) for r in old] == [
            (r.info.run_id, r.data.params, r.data.metrics) for r in new
        ]
    assert len(after[0].get_metric_history(after[1][0].info.run_id, "hypervolume")) == 4


def test_continued_study_keeps_its_run_and_moves_the_front(tracker_of, store, make_view, tmp_path):
    view = make_view()
    tracker = tracker_of("resume")
    record_study(tracker, view, tmp_path)
    assert tracker.flush(30)
    tracker.stop(10)
    tracker = tracker_of("resume")
    tracker.begin(name="digits", metric="accuracy", params={"sampler": "other", "trials": "9"}, job_yaml=None)
    fewer = tuple(p for p in view.points if p.trial != 2)
    tracker.finish(type(view)(**{f: getattr(view, f) for f in view.__slots__} | {"points": fewer}), (), completed=False)
    assert tracker.flush(30)
    _, (parent,), children = runs_of(store, "resume")
    assert parent.data.params == {"model": "vit", "sampler": "tpe", "trials": "9"}
    assert parent.info.status == "KILLED"
    tags = {r.info.run_name: r.data.tags for r in children}
    assert tags["trial 2"]["paretrim.pareto"] == "false"
    assert tags["trial 2"]["mlflow.runColor"] != tags["trial 1"]["mlflow.runColor"]
    assert tags["trial 1"]["paretrim.pareto"] == "true"


def test_a_study_bears_the_name_of_who_submitted_it(tracker_of, store, monkeypatch):
    monkeypatch.setenv("PARETRIM_OWNER", "ada")
    tracker = tracker_of("owned")
    tracker.begin(name="n", metric="accuracy", params={}, job_yaml=None)
    assert tracker.flush(30)
    _, (parent,), _ = runs_of(store, "owned")
    assert (parent.data.tags["paretrim.owner"], parent.data.tags["mlflow.user"]) == ("ada", "ada")


def test_wide_policy_and_long_values_are_split(tracker_of, store, make_view):
    view = make_view()
    point = next(p for p in view.points if p.trial == 1)
    unit = point.policy["layer.0.attention"]
    wide = {f"block[{i}]": unit for i in range(230)}
    point = type(point)(**{f: getattr(point, f) for f in point.__slots__} | {"policy": wide})
    tracker = tracker_of("wide")
    tracker.begin(name="n", metric="accuracy", params={"long": "x" * 6001}, job_yaml=None)
    tracker.finish(type(view)(**{f: getattr(view, f) for f in view.__slots__} | {"points": (point,)}), ())
    assert tracker.flush(30)
    _, (parent,), (child,) = runs_of(store, "wide")
    assert len(child.data.params) == 230
    assert "see job.yaml" in parent.data.params["long"]


def test_message_that_can_never_be_sent_does_not_hold_up_others(tracker_of, store, outbox, tmp_path):
    tracker = tracker_of("poison")
    tracker.begin(name="n", metric="accuracy", params={}, job_yaml=None)
    outbox.put("mlflow.artifact", {"study": "digits-1", "experiment": "poison", "path": str(tmp_path / "gone.png")})
    outbox.put("unheard of", {"study": "digits-1", "experiment": "poison"})
    tracker.progress(1, {"hypervolume": 0.5})
    assert tracker.flush(30)
    assert [line.startswith("MLflow does not take") for line in tracker.lines] == [True, True]
    assert runs_of(store, "poison")[1][0].data.metrics == {"hypervolume": 0.5}


def test_deleted_experiment_is_named(tracker_of, store, outbox):
    client_of(store).delete_experiment(client_of(store).create_experiment("deleted"))
    tracker = tracker_of("deleted")
    tracker.begin(name="n", metric="accuracy", params={}, job_yaml=None)
    assert not tracker.flush(30)
    assert tracker.state is TrackingState.DENIED
    assert len(tracker.lines) == 1
    assert "'deleted' was deleted" in tracker.lines[0]
    assert outbox.pending(1)


def test_tracking_uri_that_is_none_is_named(tracker_of, outbox):
    tracker = tracker_of("x", uri="ftp://somewhere")
    tracker.progress(1, {"hypervolume": 0.5})
    assert not tracker.flush(30)
    assert "give mlflow.tracking_uri as" in tracker.lines[0]


def test_study_name_that_cannot_be_searched_is_refused(outbox):
    with pytest.raises(ValueError, match="a study's name has"):
        Tracker("sqlite:///x.db", outbox, study="it's", experiment="e", say=print)


def test_neighbouring_progress_goes_in_one_request():
    kinds = [Kind.STUDY, Kind.PROGRESS, Kind.PROGRESS, Kind.POINT, Kind.PROGRESS]
    items = [OutboxItem(id=i, kind=k, payload={"study": "s", "experiment": "e"}) for i, k in enumerate(kinds)]
    other = OutboxItem(id=9, kind=Kind.PROGRESS, payload={"study": "t", "experiment": "e"})
    assert [[i.id for i in group] for group in groups([*items, other])] == [[0], [1, 2], [3], [4], [9]]


def test_keys_are_made_safe_and_stay_apart():
    assert safe_keys({"a<b": 1, "a>b": 2, "../x": 3, "": 4, "a" * 300: 5}) == {
        "a_b": 1,
        "a_b_2": 2,
        "_x": 3,
        "_": 4,
        "a" * 240: 5,
    }


def test_only_finite_metrics_are_kept():
    assert finite({"a": 1, "b": math.nan, "c": -math.inf, "d": None}) == {"a": 1.0}


def test_address_of_a_server_hides_credentials_and_keeps_its_path():
    found = runs_address("https://me:secret@ml.example:8443/base/", "7")
    assert found.url == "https://ml.example:8443/base/#/experiments/7/runs?workflowType=machine_learning"
    assert found.command is None


def test_address_of_a_database_comes_with_the_command():
    found = runs_address("sqlite:////data/mlflow.db", "3", study="s", port=5001)
    assert found.command == "mlflow ui --backend-store-uri sqlite:////data/mlflow.db --port 5001"
    assert found.url.startswith("http://127.0.0.1:5001/#/experiments/3/runs?workflowType=machine_learning&viewState")
    assert "secret" not in str(runs_address("postgresql://me:secret@db/x", "3"))


def test_credentials_are_masked_wherever_a_url_stands():
    text = "a: postgresql://u:p@h/x\nb: 'http://tok@h'\nc: mail@h"
    assert without_credentials(text) == "a: postgresql://***@h/x\nb: 'http://***@h'\nc: mail@h"


def test_saved_view_is_small_json_with_the_scatter():
    view = json.loads(shared_view("s 1", "accuracy"))
    scatter = view["compareRunCharts"][0]
    assert (scatter["type"], scatter["xaxis"]["key"], scatter["yaxis"]["key"]) == ("SCATTER", "latency_ms", "quality")
    assert view["searchFilter"] == "tags.`paretrim.study` = 's 1'"


def test_experiment_name_uses_the_last_part_of_a_folder():
    assert experiment_name("../models/minilm/", "text_classification", "cpu") == (
        "paretrim/minilm/text_classification/cpu"
    )


def test_note_escapes_names(make_view):
    assert "<img" not in study_note(make_view("<img src=x>"))


def test_address_and_runs_through_a_real_server(mlflow_server, outbox, make_view, tmp_path, capfd):
    uri = mlflow_server()
    tracker = Tracker(uri, outbox, study="digits-1", experiment="served", say=print, waits=QUICK)
    tracker.start()
    record_study(tracker, make_view(), tmp_path / "files")
    sent = tracker.flush(30)
    tracker.stop(10)
    assert sent
    assert capfd.readouterr() == ("", "")
    client, (parent,), children = runs_of(uri, "served")
    assert len(children) == 4
    assert "front.html" in {f.path for f in client.list_artifacts(parent.info.run_id)}
    number = client.get_experiment_by_name("served").experiment_id
    assert tracker.address.url.startswith(f"{uri}/#/experiments/{number}/runs?workflowType=machine_learning")
    with urllib.request.urlopen(tracker.address.url.partition("#")[0]) as page:
        assert b"<title>MLflow</title>" in page.read()
