"""Sensitivity reports of a real small model, and sweeps of it: from a study's scores, and measured here."""

import csv
import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tiny_searches import make_job, quiet, search

from controller.errors import UsageError
from controller.job import JobSpec, parse_job
from controller.plots.front import front_html
from controller.plots.sensitivity import sensitivity_html, sensitivity_png
from controller.preparation import describe, price
from controller.report_details import details_of
from controller.search_result import load_front, result_of
from controller.sensitivity.report import Change, SensitivityReport, sensitivity_csv
from controller.sensitivity.sensitivity import losses_of, run_sensitivity
from controller.sensitivity.sweep import run_sweep
from controller.storage import Repository, TrialRole, open_database
from controller.study_summary import summarise
from controller.summary_view import view_of
from evaluators.latency.lookup import MissingEntryError
from evaluators.latency.table import load_table
from evaluators.rungs import rung_order
from evaluators.scores import Quality
from workers.protocol import Split, TrialRequest
from workers.trial import TrialWorker

if TYPE_CHECKING:
    from conftest import TinyJob

PROBED = 12
"""Four units, each with two smaller keeps and one more format."""


def search_and_score(job: JobSpec) -> TrialWorker:
    """Search in this process, and score the front and the baselines on the holdout."""
    worker = search(job)
    repository = Repository(open_database(job.storage))
    summary = summarise(repository, job.name)
    scores = repository.quality_store(worker.evaluation_digest)
    for number in {0, *(member.number for member in summary.front)}:
        policy = summary.trial(number).policy
        report = worker.evaluate(TrialRequest(trial=0, attempt="", policy=policy, split=Split.HOLDOUT))
        scores.put(policy.digest, Split.HOLDOUT, report.scores.quality)
    return worker


@pytest.fixture(scope="module")
def searched(tiny_text: "TinyJob", tmp_path_factory: pytest.TempPathFactory) -> tuple[JobSpec, TrialWorker]:
    job = make_job(tiny_text, tmp_path_factory.mktemp("sensitivity"), 6)
    return job, search_and_score(job)


def changes_of(report: SensitivityReport) -> list[tuple[str, Change]]:
    return [(unit.name, change) for unit in report.units for change in unit.changes]


def test_a_report_is_the_samplers_own_probe_data(searched: tuple[JobSpec, TrialWorker]) -> None:
    job, worker = searched
    report = run_sensitivity(job, quiet)
    assert (report.scored, report.missing, report.notes) == (PROBED, 0, ())
    assert report.reference == "dense"
    assert report.columns == ("keep 0.5", "keep 0", "w8a8")
    trials = Repository(open_database(job.storage)).trials(summarise_id(job))
    probes = {t.policy.digest: t for t in trials if t.role is TrialRole.PROBE}
    assert len(probes) == PROBED
    dense = worker.space.dense_policy()
    per_example = worker.evaluator(Split.SEARCH).dense_metric
    assert report.reference_quality == per_example
    for name, change in changes_of(report):
        policy = dense.replace(**{name: replace(dense[name], keep=change.keep, format=change.format)})
        probe = probes[policy.digest]
        assert change.kl_to_dense == probe.kl_to_dense
        # The dense model gave the labels: it is right everywhere.
        assert change.loss == pytest.approx(1.0 - (probe.quality or 0.0))
        assert change.loss_low is not None
        assert change.loss_high is not None
        assert change.loss_low <= (change.loss or 0.0) <= change.loss_high
        costs, whole = worker.costs.costs(policy), worker.costs.costs(dense)
        assert change.saved_latency_ms == pytest.approx(whole.latency_ms - costs.latency_ms)
        assert change.saved_size_bytes == whole.size_bytes - costs.size_bytes


def summarise_id(job: JobSpec) -> str:
    return summarise(Repository(open_database(job.storage)), job.name).record.id


def test_shares_and_fixed_parts_make_the_whole(searched: tuple[JobSpec, TrialWorker]) -> None:
    job, worker = searched
    report = run_sensitivity(job, quiet)
    whole = worker.costs.costs(worker.space.dense_policy())
    fixed = worker.costs.predictor.fixed_ms(worker.structure)
    assert sum(u.latency_share for u in report.units) + fixed / whole.latency_ms == pytest.approx(1)
    assert sum(u.size_bytes for u in report.units) + worker.structure.fixed_bytes == whole.size_bytes


def test_the_page_of_a_search_has_the_same_losses_and_times_that_add_up(
    searched: tuple[JobSpec, TrialWorker],
) -> None:
    job, _ = searched
    repository = Repository(open_database(job.storage))
    summary = summarise(repository, job.name)
    details = details_of(summary, price(job, describe(job), lambda *_: None), repository)
    assert details.sensitivity == run_sensitivity(job, quiet)
    for trial in summary.trials:
        assert sum(details.unit_times[trial.policy.digest]) == pytest.approx(trial.costs.latency_ms)
    page = front_html(view_of(summary), details)
    assert "Loss of accuracy" in page
    assert '"times":null' not in page


def test_losses_compare_the_same_examples() -> None:
    values = np.random.default_rng(0).random(64)
    order = list(rung_order(64))
    whole = Quality(metric="m", value=values.mean(), per_example=tuple(values), kl_to_dense=0, seconds=0)
    part = replace(whole, per_example=tuple(values[order[:8]] - 0.25), rung=0, share=1 / 8)
    assert losses_of(whole, part) == pytest.approx([0.25] * 8)
    assert losses_of(whole, whole) == [0.0] * 64


def test_the_fisher_information_is_computed_once(
    searched: tuple[JobSpec, TrialWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = searched
    assert not run_sensitivity(job, quiet).has_fisher
    first = run_sensitivity(job, quiet, fisher=True)
    assert all(unit.fisher_trace is not None and unit.fisher_trace > 0 for unit in first.units)
    monkeypatch.delattr("controller.sensitivity.fisher_store.fisher_traces")
    assert run_sensitivity(job, quiet, fisher=True).units == run_sensitivity(job, quiet).units == first.units


def test_files_hold_every_change(searched: tuple[JobSpec, TrialWorker], tmp_path: Path) -> None:
    job, _ = searched
    report = run_sensitivity(job, quiet, out=tmp_path / "report", csv=tmp_path / "table.csv")
    assert {path.name for path in report.files} == {
        "table.csv",
        *(f"sensitivity.{end}" for end in ("csv", "html", "png", "json")),
    }
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    assert [(r["unit"], r["change"]) for r in rows if r["change"]] == [
        (name, change.label) for name, change in changes_of(report)
    ]
    assert [float(r["loss"]) for r in rows if r["loss"]] == [change.loss for _, change in changes_of(report)]
    assert (tmp_path / "report" / "sensitivity.csv").read_text() == (tmp_path / "table.csv").read_text()
    body = json.loads((tmp_path / "report" / "sensitivity.json").read_text())
    assert body["units"][1]["changes"][0]["loss"] == changes_of(report)[0][1].loss


def test_pages_and_pictures_show_what_is_missing_and_take_odd_text(searched: tuple[JobSpec, TrialWorker]) -> None:
    job, _ = searched
    report = run_sensitivity(job, quiet)
    first, *others = report.units[1:]
    odd = replace(first, name="=<b>$x$</b>", changes=(replace(first.changes[0], loss=None, examples=0, failure="<i>"),))
    report = replace(report, units=(odd, *others))
    page = sensitivity_html(report)
    assert "<b>$x$" not in page
    assert '<td class="none" title="&lt;i&gt;">-</td>' in page
    assert "<script" not in page
    assert "://" not in page
    assert sensitivity_png(report).startswith(b"\x89PNG")
    assert sensitivity_csv(report).splitlines()[1].startswith("'=<b>")
    assert sensitivity_png(replace(report, units=())).startswith(b"\x89PNG")


def test_a_study_of_another_sampler_says_what_is_missing_and_measures_it(tiny_image: "TinyJob", tmp_path: Path) -> None:
    job = make_job(
        tiny_image, tmp_path, 2, target={"table": str(tiny_image.table)}, search={"sampler": "random", "trials": 2}
    )
    with pytest.raises(
        UsageError, match=r"there is none of the name 'tiny'; run `paretrim search` first, or .*--measure"
    ):
        run_sensitivity(job, quiet)
    search_and_score(job)
    before = run_sensitivity(job, quiet)
    assert before.missing == PROBED
    assert before.notes == (
        "12 of 12 single changes have no score, as the sampler 'random' did not ask for them; --measure scores them on "
        "8 examples each",
    )
    stages: list[str] = []
    after = run_sensitivity(job, lambda progress: stages.append(progress.stage), measure=True)
    assert (after.scored, after.missing, after.notes) == (PROBED, 0, ())
    assert stages[-1] == "probing (12 of 12)"
    assert run_sensitivity(job, quiet).units == after.units
    other = job.model_copy(update={"space": job.space.model_copy(update={"keep": (1.0, 0.25)})})
    assert run_sensitivity(other, quiet).notes == (
        "the job's space changed since; this is the study as it was searched",
    )
    elsewhere = parse_job({**json.loads(job.model_dump_json()), "name": "second"})
    assert run_sensitivity(elsewhere, quiet, measure=True).units == after.units


def test_a_change_that_fails_is_named(tiny_text: "TinyJob", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = TrialWorker.evaluate

    def break_down(worker: TrialWorker, request: TrialRequest) -> Any:
        if request.policy["layer.1.feed_forward"].keep == 0:
            raise MemoryError("too large")
        return evaluate(worker, request)

    monkeypatch.setattr(TrialWorker, "evaluate", break_down)
    report = run_sensitivity(make_job(tiny_text, tmp_path, 6), quiet, measure=True)
    (failed,) = (change for _, change in changes_of(report) if change.failure is not None)
    assert (failed.failure, failed.loss) == ("MemoryError: too large", None)
    assert report.notes == ("1 of 12 changes can't be scored, for example: MemoryError: too large",)
    assert report.missing == 1


def test_a_changed_model_is_not_probed(searched: tuple[JobSpec, TrialWorker], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialWorker, "evaluation_digest", "other")
    with pytest.raises(UsageError, match="the model or the data of study 'tiny' changed since"):
        run_sensitivity(searched[0], quiet, measure=True)


def test_a_sweep_scores_only_what_nobody_did(searched: tuple[JobSpec, TrialWorker]) -> None:
    job, worker = searched
    result = run_sweep(job, quiet, keep=(0.25, 0.5), max_drop=1.0, format="w8a8")
    assert [row.name for row in result.rows] == ["keep 0.5, w8a8", "keep 0.25, w8a8"]
    assert result.scored == 1  # the other is a baseline of the study
    summary = summarise(Repository(open_database(job.storage)), job.name)
    baseline = next(m for m in summary.members if m.name == "keep 0.5, w8a8")
    assert result.rows[0].policy_digest == baseline.policy_digest
    assert result.rows[0].quality == baseline.quality
    assert result.rows[0].latency_ms == pytest.approx(baseline.latency_ms)
    assert result.rows[0].size_bytes == baseline.size_bytes
    assert [row.kept for row in result.rows] == pytest.approx([0.5, 0.25])
    assert result.dense_quality == worker.evaluator(Split.SEARCH).dense_metric
    assert [v.keep for v in result.verdicts] == [0.25]
    again = run_sweep(job, quiet, keep=(0.25, 0.5), max_drop=1.0, format="w8a8")
    assert again.scored == 0
    assert again.rows == result.rows


def test_a_sweep_leaves_excluded_units_alone(searched: tuple[JobSpec, TrialWorker]) -> None:
    job, _ = searched
    space = job.space.model_copy(update={"exclude": ("layer.0.*",)})
    result = run_sweep(job.model_copy(update={"space": space}), quiet, keep=(0.5,), max_drop=0.0)
    assert [row.format for row in result.rows] == ["fp32", "w8a8"]
    assert [row.kept for row in result.rows] == [0.75, 0.75]
    assert all((row.drop_low or 0.0) <= (row.drop or 0.0) <= (row.drop_high or 0.0) for row in result.rows)


@pytest.mark.slow  # a small model is profiled for real
def test_a_width_that_the_table_lacks_is_measured_beside_it(tiny_text: "TinyJob", tmp_path: Path) -> None:
    job = make_job(tiny_text, tmp_path, 6)
    with pytest.raises(MissingEntryError, match="measure with: paretrim profile"):
        run_sweep(job, quiet, keep=(0.1,), format="fp32")
    own = make_job(tiny_text, tmp_path, 6, target={"sequence_length": tiny_text.sequence_length})
    known = describe(own).table
    known.parent.mkdir(parents=True)
    shutil.copyfile(tiny_text.table, known)
    before = known.read_bytes()
    assert run_sweep(own, quiet, keep=(0.25,), format="fp32").rows[0].latency_ms > 0
    assert [path.name for path in known.parent.iterdir()] == [known.name]
    result = run_sweep(own, quiet, keep=(0.1,), format="fp32")
    assert known.read_bytes() == before
    (measured,) = (path for path in known.parent.glob("*.json") if path != known)
    assert len(load_table(measured).entries) > len(load_table(known).entries)
    assert result.rows[0].kept == pytest.approx((0.25 + 0.125) / 2)


def test_a_front_is_honest_about_the_holdout(searched: tuple[JobSpec, TrialWorker]) -> None:
    job, _ = searched
    summary = summarise(Repository(open_database(job.storage)), job.name)
    result = result_of(summary)
    dense = next(row for row in result.baselines if row.name == "dense")
    assert dense.search_gap == pytest.approx(0.0)
    for row in result.front:
        assert row.holdout_quality is not None
        assert row.search_gap == pytest.approx(row.quality - row.holdout_quality)
    check = result.holdout_check
    assert check is not None
    assert check.mean_gap == pytest.approx(
        np.mean([row.search_gap for row in result.front if row.search_gap is not None])
    )
    for row, other in itertools.permutations(result.front, 2):
        assert row.holdout_low is not None
        assert row.holdout_high is not None
        assert other.holdout_low is not None
        assert other.holdout_high is not None
        overlap = row.holdout_low <= other.holdout_high and other.holdout_low <= row.holdout_high
        together = any({row.trial, other.trial} <= set(group.trials) for group in check.level)
        assert (other.trial in row.level_with) == together == overlap
    assert result.reference == {"quality": summary.chance_quality, "latency_ms": dense.latency_ms}
    assert sum(row.knee for row in result.front) == 1
    view = view_of(summary)
    assert view.holdout_check == check
    assert "from the reference point accuracy" in view.hypervolume_sentence
    assert [p.trial for p in view.points if p.knee] == [row.trial for row in result.front if row.knee]


def test_a_front_says_what_a_rule_picks(searched: tuple[JobSpec, TrialWorker]) -> None:
    job, _ = searched
    picked = load_front(job.name, job.storage, pick="weighted alpha=1").picked
    assert picked is not None
    best = load_front(job.name, job.storage, pick="best").picked
    assert best is not None
    assert picked.trial == best.trial
    assert "runner-up" in picked.explanation
    dense = load_front(job.name, job.storage, pick="trial 0").picked
    assert dense is not None
    assert dense.explanation.startswith("dense: as asked, though it is not on the front")
