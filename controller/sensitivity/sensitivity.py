"""`paretrim sensitivity`: what each unit loses when it alone is changed, read from the probes of a study."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from controller.errors import UsageError
from controller.job import JobSpec
from controller.job_file import anchored
from controller.local_scores import LocalScores
from controller.preparation import Description, PricedSpace, describe, price, work_folder
from controller.results import EXTRAPOLATED, Progress
from controller.safe_writing import write_whole
from controller.samplers.choices import COSTS, ChoiceGrid, grid_of
from controller.samplers.context import SamplerContext
from controller.samplers.probing import Label, plan_probes, point_of
from controller.sensitivity.fisher_store import fisher_of
from controller.sensitivity.report import Axis, Change, SensitivityReport, UnitSensitivity, sensitivity_csv
from controller.stages import Stages
from controller.storage.engine import open_database
from controller.storage.quality import QualityStore
from controller.storage.records import StudyRecord, TrialRole, TrialState
from controller.storage.repository import Repository
from evaluators.confidence import bootstrap_interval
from evaluators.costs import CostModel
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.table import load_table
from evaluators.rungs import rung_order, rung_share
from evaluators.scores import Quality
from evaluators.size import unit_bytes
from search_spaces.policy import Choice, Policy
from search_spaces.space import KEEP_SUFFIX, SearchSpace
from search_spaces.units import Unit
from workers.protocol import Split, TrialFailure
from workers.targets import TARGETS
from workers.trial import TrialWorker

_RUNG = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    """What a report is about.

    Attributes:
        job: The job as the study keeps it.
        record: The study; None where there is none yet.
        description: Model, space and workload.
        costs: Exact costs of policies.
        notes: What the user should know.
    """

    job: JobSpec
    record: StudyRecord | None
    description: Description
    costs: CostModel
    notes: list[str]

    @property
    def space(self) -> SearchSpace:
        return self.description.space


@dataclass(frozen=True, slots=True)
class _Reference:
    """The policy that every change starts from, and its score."""

    name: str
    policy: Policy
    quality: Quality


class _Changes:
    """The single changes of a space: a grid's point for each, and whose policy that is."""

    def __init__(self, study: _Study) -> None:
        self.grid: ChoiceGrid = grid_of(SamplerContext(seed=0, space=study.space, cost_of=study.costs))
        self._start_costs = self.grid.exact(np.zeros(self.grid.units, dtype=np.int64))[: len(COSTS)]
        self._space = study.space
        self.labels: list[Label] = [
            (unit, axis, level)
            for unit, axes in enumerate(self.grid.axes)
            for axis, values in enumerate(axes.values())
            for level in range(1, len(values))
        ]
        self.start = study.space.from_parameters(self.grid.parameters(np.zeros(self.grid.units, dtype=np.int64)))
        self.planned = sorted(plan_probes(self.grid, self.labels, most=max(1, len(self.labels))))

    def axis(self, label: Label) -> Axis:
        """Along what a change goes."""
        name = list(self.grid.axes[label[0]])[label[1]]
        return Axis.KEEP if name.endswith(KEEP_SUFFIX) else Axis.FORMAT

    def unit(self, label: Label) -> Unit:
        """Which unit changes."""
        return self._space.unit_spaces[label[0]].unit

    def saved(self, label: Label) -> tuple[float, int]:
        """Latency (ms) and bytes that a change saves, exact."""
        latency_ms, size = self._start_costs - self.grid.exact(point_of(self.grid, label))[: len(COSTS)]
        return float(latency_ms), round(size)

    def policy(self, label: Label) -> Policy:
        """The whole policy of a change, made anew: those of thousands of units would fill the memory."""
        unit, axis, level = label
        name, value = self.unit(label).name, list(self.grid.axes[unit].values())[axis][level]
        before = self.start[name]
        if self.axis(label) is Axis.FORMAT:
            return self.start.replace(**{name: Choice(before.keep, value)})
        return self.start.replace(**{name: Choice(value, before.format if value else self._space.base_format)})


def run_sensitivity(
    job: JobSpec,
    on_progress: Callable[[Progress], None],
    *,
    measure: bool = False,
    fisher: bool = False,
    out: Path | None = None,
    csv: Path | None = None,
) -> SensitivityReport:
    """Report what each unit loses when it alone is changed, from the scores that the job's study paid for.

    Args:
        job: The job; its study may not exist yet where `measure` is set.
        on_progress: Told of every stage.
        measure: Whether changes that nobody scored are scored here, on the first rung of the search split.
        fisher: Whether the Fisher information is computed, where it was not yet.
        out: Folder for the report as table, page and picture; None for none.
        csv: File for the table alone; None for none.

    Raises:
        UsageError: There is no study of that name, or its dense model has no score yet.
    """
    stages = Stages(on_progress)
    stages("reading the model")
    repository = Repository(open_database(job.storage))
    study = _open(anchored(job, Path.cwd()), repository, stages, may_begin=measure)
    changes = _Changes(study)
    worker = None
    if measure or fisher:
        stages("reading model and data")
        worker = TrialWorker(study.description.spec)
        _check_unchanged(study, worker)
    scores = repository.quality_store(_evaluation(study, worker))
    failures = _known_failures(study, repository)
    if worker is not None and measure:
        failures |= _measure(changes, LocalScores(worker, scores), stages, study.notes)
    traces = fisher_of(work_folder(study.job.storage), _evaluation(study, worker), worker if fisher else None, stages)
    report = _report(study, changes, scores, failures, traces)
    return _write(report, out, csv)


def report_of_search(
    job: JobSpec, record: StudyRecord, priced: PricedSpace, repository: Repository
) -> SensitivityReport:
    """Report from the scores that a search paid for, with the costs that it has at hand.

    Raises:
        UsageError: The dense model has no score yet.
    """
    study = _Study(job=job, record=record, description=priced.description, costs=priced.costs, notes=[])
    scores = repository.quality_store(_evaluation(study, None))
    return _report(study, _Changes(study), scores, _known_failures(study, repository), {})


def _open(job: JobSpec, repository: Repository, stages: Stages, *, may_begin: bool) -> _Study:
    record = repository.find_study(job.name)
    if record is None:
        if not may_begin:
            raise UsageError(
                f"a sensitivity report reads the scores of a study; there is none of the name {job.name!r}; run "
                "`paretrim search` first, or score the single changes now: --measure"
            )
        priced = price(job, describe(job), stages)
        return _Study(job=job, record=None, description=priced.description, costs=priced.costs, notes=[])
    stored = JobSpec.model_validate(json.loads(record.job_json)).model_copy(update={"storage": job.storage})
    changed = [part for part in ("model", "data", "space", "quality") if getattr(stored, part) != getattr(job, part)]
    notes = (
        [f"the job's {' and '.join(changed)} changed since; this is the study as it was searched"] if changed else []
    )
    if extrapolated := json.loads(record.fixed_json)["job"].get("extrapolated"):
        notes.append(f"{extrapolated} {EXTRAPOLATED}")
    description = describe(stored)
    predictor = LatencyPredictor(
        load_table(description.table),
        description.workload,
        structure=description.structure,
        allow_extrapolation=stored.target.allow_extrapolation,
    )
    costs = CostModel(description.structure, predictor, TARGETS.get(stored.target.name).memory_plan)
    return _Study(job=stored, record=record, description=description, costs=costs, notes=notes)


def _evaluation(study: _Study, worker: TrialWorker | None) -> str:
    if worker is not None:
        return worker.evaluation_digest
    assert study.record is not None
    return str(json.loads(study.record.fixed_json)["evaluation"])


def _check_unchanged(study: _Study, worker: TrialWorker) -> None:
    if study.record is not None and _evaluation(study, None) != worker.evaluation_digest:
        raise UsageError(
            f"probes are compared with the study's own scores; the model or the data of study {study.record.name!r} "
            "changed since; put back what the search used, or give the job another name"
        )


def _known_failures(study: _Study, repository: Repository) -> dict[str, str]:
    """Messages of probes that failed in the search, by policy digest."""
    trials = [] if study.record is None else repository.trials(study.record.id)
    return {
        t.policy.digest: t.message or "failed"
        for t in trials
        if t.role is TrialRole.PROBE and t.state is TrialState.FAIL
    }


def _measure(changes: _Changes, scores: LocalScores, stages: Stages, notes: list[str]) -> dict[str, str]:
    """Score what nobody did; return the messages of what failed, by policy digest."""
    stages("scoring the policy that the changes start from")
    start = scores.score(changes.start)
    if isinstance(start, TrialFailure):
        raise UsageError(f"losses are measured from a policy with a score; it failed ({start.reason}): {start.message}")
    failed = {}
    for done, label in enumerate(changes.planned):
        stages("probing", done, len(changes.planned))
        policy = changes.policy(label)
        outcome = scores.score(policy, _RUNG)
        if isinstance(outcome, TrialFailure):
            failed[policy.digest] = outcome.message
    stages("probing", len(changes.planned), len(changes.planned))
    if failed:
        notes.append(
            f"{len(failed)} of {len(changes.planned)} changes can't be scored, for example: "
            f"{next(iter(failed.values()))}"
        )
    return failed


def _report(
    study: _Study,
    changes: _Changes,
    scores: QualityStore,
    failures: Mapping[str, str],
    traces: Mapping[str, tuple[float, int]],
) -> SensitivityReport:
    reference = _reference(study, changes, scores)
    found = {label: _change(study, changes, label, reference, scores, failures) for label in changes.labels}
    missing = [found[label] for label in changes.planned if not found[label].examples]
    untried = sum(change.failure is None for change in missing)
    confidence = study.job.recheck.confidence
    examples = len(reference.quality.per_example)
    return SensitivityReport(
        study=study.job.name,
        metric=reference.quality.metric,
        reference=reference.name,
        reference_quality=reference.quality.value,
        examples=examples,
        units=_units(study, found, traces),
        scored=sum(change.examples > 0 for change in found.values()),
        missing=len(missing),
        confidence=confidence,
        notes=(*study.notes, *_offer(study, untried, len(changes.planned), examples)),
    )


def _offer(study: _Study, untried: int, planned: int, examples: int) -> list[str]:
    if not untried:
        return []
    count = round(rung_share(_RUNG, examples) * examples)
    return [
        f"{untried} of {planned} single changes have no score, as the sampler {study.job.search.sampler!r} did not ask "
        f"for them; --measure scores them on {count} examples each"
    ]


def _reference(study: _Study, changes: _Changes, scores: QualityStore) -> _Reference:
    """The least lossy policy of the space; the dense one where that has no score."""
    dense = study.space.dense_policy()
    for policy in dict.fromkeys((changes.start, dense)):
        quality = scores.get(policy.digest, Split.SEARCH)
        if quality is not None:
            name = "dense" if policy == dense else "the space's largest policy"
            return _Reference(name=name, policy=policy, quality=quality)
    raise UsageError(
        f"losses are measured from the dense model's score; study {study.job.name!r} has none yet; run `paretrim "
        "search` first, or add --measure"
    )


def _change(
    study: _Study,
    changes: _Changes,
    label: Label,
    reference: _Reference,
    scores: QualityStore,
    failures: Mapping[str, str],
) -> Change:
    policy, unit = changes.policy(label), changes.unit(label)
    saved_latency_ms, saved_size_bytes = changes.saved(label)
    plain = Change(
        axis=changes.axis(label),
        keep=policy[unit.name].keep,
        share=policy[unit.name].keep / unit.groups,
        format=policy[unit.name].format,
        saved_latency_ms=saved_latency_ms,
        saved_size_bytes=saved_size_bytes,
    )
    quality = scores.get(policy.digest, Split.SEARCH, _RUNG)
    if quality is None:
        return replace(plain, failure=failures.get(policy.digest))
    recheck = study.job.recheck
    losses = losses_of(reference.quality, quality)
    low, high = bootstrap_interval(losses, confidence=recheck.confidence, resamples=recheck.resamples)
    return replace(
        plain,
        loss=float(np.mean(losses)),
        loss_low=low,
        loss_high=high,
        kl_to_dense=quality.kl_to_dense,
        examples=len(losses),
    )


def losses_of(reference: Quality, quality: Quality) -> list[float]:
    """Return what each example lost against a reference.

    Args:
        reference: Score on the whole split.
        quality: Score on the whole split or on a rung of it.
    """
    whole = reference.per_example
    rows = range(len(whole)) if quality.rung is None else rung_order(len(whole))
    return [whole[row] - value for row, value in zip(rows, quality.per_example, strict=False)]


def _units(
    study: _Study, found: Mapping[Label, Change], traces: Mapping[str, tuple[float, int]]
) -> tuple[UnitSensitivity, ...]:
    dense_policy = study.space.dense_policy()
    dense = study.costs.costs(dense_policy)
    inside = study.costs.predictor.for_policy(study.description.structure, dense_policy)
    by_unit: dict[int, list[Change]] = {}
    for label, change in found.items():
        by_unit.setdefault(label[0], []).append(change)
    rows = []
    for number, unit_space in enumerate(study.space.unit_spaces):
        unit = unit_space.unit
        whole = Choice(unit.groups, study.space.base_format)
        latency_ms, size = inside.unit_ms(unit, whole), unit_bytes(unit, whole)
        trace, weights = traces.get(unit.name, (None, 1))
        rows.append(
            UnitSensitivity(
                name=unit.name,
                kind=unit.kind.value,
                groups=unit.groups,
                latency_ms=latency_ms,
                latency_share=latency_ms / dense.latency_ms,
                size_bytes=size,
                size_share=size / dense.size_bytes,
                fisher_trace=trace,
                fisher_per_weight=None if trace is None else trace / weights,
                changes=tuple(by_unit.get(number, ())),
            )
        )
    return tuple(rows)


def _write(report: SensitivityReport, out: Path | None, csv: Path | None) -> SensitivityReport:
    """Write what was asked for; return the report with the files."""
    contents: dict[Path, bytes] = {}
    if csv is not None:
        contents[csv] = sensitivity_csv(report).encode()
    if out is not None:
        from controller.plots.sensitivity import sensitivity_html, sensitivity_png

        contents[out / "sensitivity.csv"] = sensitivity_csv(report).encode()
        contents[out / "sensitivity.html"] = sensitivity_html(report).encode()
        contents[out / "sensitivity.png"] = sensitivity_png(report)
        contents[out / "sensitivity.json"] = (json.dumps(report.to_dict(), indent=2) + "\n").encode()
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return replace(report, files=tuple(contents))
