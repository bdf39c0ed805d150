"""A study of a real small model on other targets: scores are taken over, and little is scored for the new front."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_searches import make_job, quiet, search

from controller.comparison import compare_studies
from controller.errors import PreflightError, UsageError
from controller.explanation.explain import run_explain
from controller.export import run_export
from controller.job import JobSpec
from controller.preparation import describe, price
from controller.results import FOREIGN_TABLE
from controller.retargeting.job import retargeted_job
from controller.retargeting.report import RetargetResult
from controller.retargeting.retarget import OTHER_CALLS, SAME_CALLS, run_retarget
from controller.retargeting.target_change import TargetChange
from controller.search_result import load_front
from controller.storage import Repository, StudyState, TrialRole, TrialState, open_database
from controller.study_config import Origin, StudyConflictError
from controller.study_summary import StudySummary, summarise
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import ForeignTableError, Source, TimeUnit, UnitBasis, load_table
from workers.targets.onnxruntime_cpu import OnnxRuntimeCpu

if TYPE_CHECKING:
    from conftest import TinyJob

MakeTable = Callable[..., Path]


@pytest.fixture(scope="module")
def job(tiny_image: "TinyJob", tmp_path_factory: pytest.TempPathFactory) -> JobSpec:
    """A finished search."""
    job = make_job(tiny_image, tmp_path_factory.mktemp("retarget"), 14)
    search(job)
    return job


@pytest.fixture
def make_table(tiny_image: "TinyJob", tmp_path: Path) -> MakeTable:
    """Returns a maker of tables for two threads, on which int8 is slow."""

    def make(threads: int = 2, int8: float = 8.0, **changes: Any) -> Path:
        table = load_table(tiny_image.table)
        entries = tuple(
            entry.model_copy(update={"median_ms": entry.median_ms * (int8 if entry.format == "w8a8" else 0.6)})
            for entry in table.entries
        )
        mark = OnnxRuntimeCpu(threads).fingerprint().model_copy(update=changes)
        path = tmp_path / f"table-{threads}-{int8}.json"
        table.model_copy(update={"entries": entries, "fingerprint": mark}).save(path)
        return path

    return make


def retarget(job: JobSpec, **change: Any) -> RetargetResult:
    return run_retarget(job.name, job.storage, TargetChange(**change), quiet)


def study(job: JobSpec, name: str) -> StudySummary:
    return summarise(Repository(open_database(job.storage)), name)


def test_every_score_is_priced_anew_without_an_evaluation(job: JobSpec, make_table: MakeTable) -> None:
    table = make_table()
    report = retarget(job, table=table, evaluations=0, study="priced")
    before, after = study(job, "tiny"), study(job, "priced")
    assert report.evaluations == 0
    assert report.taken_over == len(after.trials)
    scored = {t.policy.digest: t.quality for t in before.trials if t.state is TrialState.COMPLETE}
    assert {t.policy.digest: t.quality for t in after.trials if t.state is TrialState.COMPLETE} == scored
    description = describe(after.job)
    predictor = LatencyPredictor(load_table(table), description.workload)
    for trial in after.trials:
        assert trial.costs.latency_ms == pytest.approx(predictor.policy_ms(description.structure, trial.policy))
    assert after.record.state is StudyState.COMPLETE
    assert Origin.of(after.record) == Origin(study="tiny", id=before.record.id, trials=len(after.trials))
    assert report.result.target == "cpu-onnxruntime, 2 threads, 1 example a call"
    assert all(row.taken_over for row in report.result.front)


def test_only_what_the_new_front_lacks_is_scored(job: JobSpec, make_table: MakeTable) -> None:
    report = retarget(job, table=make_table(), evaluations=4, study="scored")
    after = study(job, "scored")
    new = [trial for trial in after.trials if trial.number >= report.taken_over]
    assert report.evaluations == 4
    assert [trial.role for trial in new] == [TrialRole.TRIAL] * 4
    assert len({trial.policy.digest for trial in after.trials if trial.role is not TrialRole.PROBE}) == sum(
        trial.role is not TrialRole.PROBE for trial in after.trials
    )
    assert report.result.hypervolume is not None
    assert report.hypervolume_before is not None
    assert report.result.hypervolume >= report.hypervolume_before
    assert all(row.holdout_quality is not None for row in report.result.front)
    assert [row.taken_over for row in report.result.front] == [
        row.trial is not None and row.trial < report.taken_over for row in report.result.front
    ]
    for row in report.before:
        assert row.latency_ms != row.latency_before_ms
        assert row.on_front == (row.policy_digest in {member.policy_digest for member in report.result.front})


def test_the_same_call_goes_on_where_it_stopped(job: JobSpec, make_table: MakeTable) -> None:
    table = make_table()
    first = retarget(job, table=table, evaluations=1, study="more")
    same = retarget(job, table=table, evaluations=1, study="more")
    assert (same.evaluations, same.result.front) == (1, first.result.front)
    more = retarget(job, table=table, evaluations=3, study="more")
    assert more.evaluations == 3
    assert more.taken_over == first.taken_over
    assert load_front("more", job.storage).front == more.result.front
    assert load_front("more", job.storage).origin == "tiny"


def test_in_calls_of_another_size_scores_are_estimates(job: JobSpec, tiny_image: "TinyJob", tmp_path: Path) -> None:
    from workers.profile import required_operators

    table = load_table(tiny_image.table)
    other = describe(job.model_copy(update={"target": job.target.model_copy(update={"batch": 4})}))
    like = {(e.kind, e.format, e.function): e for e in table.entries}
    entries = [
        like[operator.kind, operator.format, operator.function].model_copy(update={"axes": dict(operator.axes)})
        for operator in required_operators(other.space, other.workload)
    ]
    path = tmp_path / "batch.json"
    table.model_copy(update={"entries": tuple(entries)}).save(path)
    none = retarget(job, table=path, batch=4, evaluations=0, study="b4")
    assert [row.name for row in none.result.front] == ["dense"]
    assert none.estimates > 0
    assert none.still_estimated > 2
    some = retarget(job, table=path, batch=4, evaluations=2, study="b4")
    assert some.evaluations == 2
    after = study(job, "b4")
    again = [trial for trial in after.trials if trial.number >= some.taken_over]
    assert all(any(t.policy == trial.policy for t in after.trials[: some.taken_over]) for trial in again)
    assert (
        json.loads(after.record.fixed_json)["evaluation"]
        != json.loads(study(job, "tiny").record.fixed_json)["evaluation"]
    )
    assert "estimate" in " ".join(some.sentences)

    all_of_them = retarget(job, table=path, batch=4, evaluations=none.still_estimated, study="b4")
    after = study(job, "b4")
    uniform = {t.policy.digest: t.name for t in after.trials if t.role is TrialRole.BASELINE}
    again = {t.policy.digest: t for t in after.trials if t.number >= all_of_them.taken_over}
    assert uniform.keys() & again.keys()
    assert all(trial.name == uniform.get(digest, f"trial {trial.number}") for digest, trial in again.items())
    beside = {row.policy_digest: row for row in all_of_them.result.baselines}
    assert beside.keys() == uniform.keys() & {after.trials[0].policy.digest, *again}
    for digest in uniform.keys() & again.keys():
        assert beside[digest].label.removesuffix(", knee)").rstrip(")").endswith(f" (trial {again[digest].number}")
    (note,) = (note for note in all_of_them.result.notes if "not shown beside the front" in note)
    assert all((name in note) != (digest in beside) for digest, name in uniform.items())
    on_front = {row.trial for row in all_of_them.result.front}
    assert all(row.here in on_front for row in all_of_them.before if row.on_front)
    assert all(row.on_front_text == (f"yes, trial {row.here}" if row.on_front else "no") for row in all_of_them.before)


def test_a_table_of_another_device_is_taken_and_the_result_says_where_it_holds(
    job: JobSpec, make_table: MakeTable
) -> None:
    table = make_table(device="Another CPU", runtime_version="0.1")
    report = retarget(job, table=table, evaluations=0)
    assert report.result.study == "tiny-2t"
    assert report.result.foreign_table
    assert report.result.measured_on == "Another CPU, onnxruntime 0.1, 2 threads"
    note = (
        "latencies hold on Another CPU, onnxruntime 0.1, 2 threads, where the table was measured, not on this machine"
    )
    assert load_front("tiny-2t", job.storage).hardware_note == note
    page = next(path for path in report.files if path.name == "retarget.html").read_text()
    assert note in page
    assert FOREIGN_TABLE not in page
    explained = run_explain("tiny-2t", job.storage, trial=1, change=TargetChange(), out=None)
    assert explained.hardware_note == note
    assert note in next(path for path in explained.files if path.suffix == ".html").read_text()
    assert f"tiny-2t: {note}" in compare_studies("tiny", "tiny-2t", job.storage).notes
    again = retarget(job, table=table, evaluations=1)
    assert (again.evaluations, again.result.measured_on) == (1, report.result.measured_on)


def test_a_search_refuses_the_table_that_a_retarget_takes(job: JobSpec, make_table: MakeTable) -> None:
    table = make_table(threads=1, device="Another CPU")
    moved = job.model_copy(update={"target": job.target.model_copy(update={"table": table})})
    with pytest.raises(ForeignTableError, match="Another CPU"):
        price(moved, describe(moved), lambda *_: None)


def test_a_further_target_of_a_job_may_be_another_device(job: JobSpec, make_table: MakeTable) -> None:
    moved = retargeted_job(job, TargetChange(table=make_table(device="Another CPU")))
    assert moved.target.allow_foreign_table
    assert not retargeted_job(job, TargetChange(table=make_table())).target.allow_foreign_table


@pytest.mark.parametrize("other", ["threads", "runtime", "source"])
def test_a_table_that_only_stands_in_is_for_planning_and_says_so(
    job: JobSpec, make_table: MakeTable, other: str
) -> None:
    wanted = {"evaluations": 0, "threads": 4 if other == "threads" else None, "study": f"plan-{other}"}
    path = make_table(device="Another CPU", **({"runtime": "tensorrt"} if other == "runtime" else {}))
    if other == "source":
        table = load_table(path)
        source = Source(
            name="them",
            licence="MIT",
            file="times.csv",
            file_sha256="0" * 64,
            rows=len(table.entries),
            unit=TimeUnit.MILLISECONDS,
            unit_basis=UnitBasis.STATED,
        )
        provenance = table.provenance.model_copy(update={"sources": (source,)})
        table.model_copy(update={"provenance": provenance}).save(path)
    with pytest.raises(ForeignTableError, match=r"Another CPU.*--allow-foreign-table"):
        retarget(job, table=path, **wanted)
    report = retarget(job, table=path, allow_foreign_table=True, **wanted)
    assert (report.result.foreign_table, report.result.measured_on) == (True, None)
    page = next(path for path in report.files if path.name == "retarget.html").read_text()
    assert FOREIGN_TABLE in page


def test_an_export_says_that_it_was_timed_elsewhere(job: JobSpec, make_table: MakeTable, tmp_path: Path) -> None:
    retarget(job, table=make_table(device="Another CPU"), evaluations=0, study="board")
    done = run_export("board", job.storage, pick="knee", trial=None, out=tmp_path / "best")
    version = OnnxRuntimeCpu(1).fingerprint().runtime_version
    assert done.predicted_for == f"Another CPU, onnxruntime {version}, 2 threads"
    stored = json.loads((tmp_path / "best" / "report.json").read_text())
    assert (stored["predicted_for"], stored["latency_error"]) == (done.predicted_for, None)
    card = (tmp_path / "best" / "README.md").read_text()
    assert "Predicted latencies hold on Another CPU" in card


def test_files_show_both_fronts_and_load_nothing(job: JobSpec, make_table: MakeTable) -> None:
    report = retarget(job, table=make_table(), evaluations=0, study="files")
    files = {path.name: path for path in report.files}
    assert files.keys() >= {"front.html", "trials.csv", "retarget.html", "retarget.png", "retarget.json"}
    page = files["retarget.html"].read_text()
    assert not re.search(r"(\b(src|href)\s*=|url\(|@import|<script)", page)
    assert page.count('<circle class="mark"') == 2 * len(report.before) + len(report.result.front)
    assert files["retarget.png"].read_bytes().startswith(b"\x89PNG")
    assert json.loads(files["retarget.json"].read_text())["before"][0]["name"] == report.before[0].name


def test_what_is_no_other_target_is_refused(job: JobSpec, tiny_image: "TinyJob") -> None:
    with pytest.raises(UsageError, match="got none of them"):
        retarget(job, threads=1)
    with pytest.raises(UsageError, match="the same one"):
        retarget(job, table=tiny_image.table)


def test_a_name_that_is_taken_is_refused(job: JobSpec, make_table: MakeTable) -> None:
    with pytest.raises(UsageError, match="did not begin with the trials"):
        retarget(job, table=make_table(), evaluations=0, study="tiny")
    retarget(job, table=make_table(), evaluations=0, study="taken")
    with pytest.raises(StudyConflictError, match="target"):
        retarget(job, table=make_table(int8=0.1), evaluations=0, study="taken")


def test_a_bound_out_of_reach_is_found_before_anything_is_scored(job: JobSpec, make_table: MakeTable) -> None:
    with pytest.raises(PreflightError, match="every policy takes at least"):
        retarget(job, table=make_table(), evaluations=0, max_latency_ms=1e-6, study="bound")
    with pytest.raises(PreflightError, match="max_energy_mj is 1e-06, and every policy takes"):
        retarget(job, table=make_table(), evaluations=0, max_energy_mj=1e-6, study="bound")
    with pytest.raises(PreflightError, match="max_peak_memory_bytes is 8, and every policy holds"):
        retarget(job, table=make_table(), evaluations=0, max_peak_memory_bytes=8, study="bound")
    assert Repository(open_database(job.storage)).find_study("bound") is None


def test_bounds_there_hold_for_the_new_front(job: JobSpec, make_table: MakeTable) -> None:
    free = retarget(job, table=make_table(), evaluations=0, study="free").result.front
    energies_mj = sorted(row.energy_mj or 0.0 for row in free)
    bound_mj = (energies_mj[0] + energies_mj[-1]) / 2
    bounded = retarget(job, table=make_table(), evaluations=0, max_energy_mj=bound_mj, study="bounded").result.front
    feasible = [row.energy_mj or 0.0 for row in bounded if row.feasible]
    assert feasible
    assert max(feasible) <= bound_mj
    assert max(energies_mj) > bound_mj


def test_defaults_are_stated() -> None:
    field = TargetChange.model_fields["evaluations"]
    assert f"takes {SAME_CALLS}, and {OTHER_CALLS} where the batch differs" in (field.description or "")
