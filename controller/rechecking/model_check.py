"""`paretrim recheck`: a model that is in use, scored on new data against the constraint that it was picked under."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controller.artifact_job import read_job
from controller.errors import UsageError
from controller.job import JobSpec
from controller.rechecking.report import ModelCheck, Verdict
from controller.rechecking.resubmission import Resubmission, resubmit
from controller.rechecking.verdict import FEWEST_EXAMPLES, Interval, Loss, interval_of, judge, loss_of
from controller.registry.fetching import fetch
from controller.registry.names import parse_model
from controller.results import Progress
from controller.stages import Stages
from evaluators.scores import QualityMeasure
from workers.data import DataConfig, DataError, names_file
from workers.export.rescore import Rescored, RescoreRequest, rescore
from workers.export.verified import REPORT, VerifiedArtifact, read_verified


@dataclass(frozen=True, slots=True, kw_only=True)
class NewData:
    """New data for a model.

    Attributes:
        source: File or hub id, of the same kind as the job's.
        input: Column of the input; None takes the job's.
        label: Column of the label; None takes the job's.
        examples: Most rows that are scored, drawn at random; None for all.
    """

    source: str
    input: str | None = None
    label: str | None = None
    examples: int | None = None

    def check(self) -> None:
        """Check that a file of rows is there, before a model is read.

        Raises:
            DataError: It is not.
        """
        if names_file(self.source) and not Path(self.source).is_file():
            raise DataError(
                f"--data names a file of new rows, from the current folder on; there is no file {self.source!r}; "
                "check the path"
            )

    def config(self, data: DataConfig) -> DataConfig:
        """How the new rows are read: as the old ones, with what is said here."""
        columns = {name: value for name, value in (("input", self.input), ("label", self.label)) if value is not None}
        path = Path(self.source)
        source = str(path.absolute()) if path.exists() else self.source
        updated = data.columns.model_copy(update=columns)
        return data.model_copy(update={"source": source, "columns": updated, "calibration_source": None})


def run_model_check(
    model: str,
    data: NewData,
    on_progress: Callable[[Progress], None],
    *,
    tracking_uri: str,
    max_drop: float | None = None,
    resubmission: Resubmission | None = None,
) -> ModelCheck:
    """Score a model on new data, and search anew where it has fallen below its constraint.

    Args:
        model: Folder of an artifact, or a registered model: NAME (its champion), NAME@ALIAS or NAME/VERSION.
        data: The new data.
        on_progress: Told of every stage.
        tracking_uri: Tracking URI of MLflow.
        max_drop: Largest loss of quality that is allowed; None takes the job's constraint.
        resubmission: Where a search is kept that is started if the model is below the constraint; None starts none.

    Raises:
        UsageError: No such model, or no constraint is known.
        UnverifiedError: The artifact is not the one that was verified.
        RegistryError: MLflow does not answer.
        DataError: The new data can't be read.
        TaskError: They do not fit the model.
    """
    stages = Stages(on_progress)
    data.check()
    stages("reading the model")
    with _opened(model, tracking_uri) as (artifact, version):
        job = read_job(artifact.folder)
        bound = max_drop if max_drop is not None else job.constraints.max_quality_drop
        if bound is None:
            raise UsageError(
                "a model is checked against a largest loss of quality; its job has no constraints.max_quality_drop; "
                "say it here: --max-drop 0.02 is two points"
            )
        stages("scoring the new data")
        scored = rescore(_request(artifact, job, data))
        check = _check(model, version, artifact, job, data, scored, bound)
        if resubmission is None or check.verdict is not Verdict.BELOW:
            return check
        new_job, search = resubmit(artifact, job, data.config(job.data), resubmission, on_progress)
        return replace(check, search=search, new_study=new_job.name)


@contextmanager
def _opened(model: str, tracking_uri: str) -> Iterator[tuple[VerifiedArtifact, str | None]]:
    """The artifact of a model, and the number of its version where it is a registered one."""
    folder = Path(model)
    if (folder / REPORT).is_file():
        yield read_verified(folder), None
        return
    with tempfile.TemporaryDirectory(prefix="paretrim-recheck-") as made:
        found, version = fetch(parse_model(model), tracking_uri, Path(made))
        yield read_verified(found), version.version


def _request(artifact: VerifiedArtifact, job: JobSpec, data: NewData) -> RescoreRequest:
    return RescoreRequest(
        artifact=artifact.folder,
        target=artifact.report.target,
        model=job.model,
        data=data.config(job.data),
        examples=data.examples,
        seed=job.search.seed,
        batch=artifact.report.batch,
        threads=artifact.report.threads,
        measure=job.quality,
    )


def _check(
    model: str,
    version: str | None,
    artifact: VerifiedArtifact,
    job: JobSpec,
    data: NewData,
    scored: Rescored,
    bound: float,
) -> ModelCheck:
    report = artifact.report
    recorded_dense = report.dense_metric["holdout"]
    comparable = recorded_dense if job.quality is QualityMeasure.METRIC else None
    loss = loss_of(scored.model, scored.dense, comparable, job.recheck)
    found = interval_of(scored.model, job.recheck) if scored.model else None
    dense = None if scored.dense is None else sum(scored.dense) / len(scored.dense)
    verdict = judge(loss, max_quality_drop=bound, examples=scored.examples)
    return ModelCheck(
        model=model,
        version=version,
        study=report.study,
        trial=report.trial,
        data=data.source,
        examples=scored.examples,
        metric=scored.metric,
        quality=None if found is None else found.mean,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        dense_quality=dense,
        recorded_quality=report.splits["holdout"].metric,
        recorded_dense_quality=recorded_dense,
        **_drop_fields(loss),
        confidence=job.recheck.confidence,
        max_quality_drop=bound,
        verdict=verdict,
        sentences=tuple(_sentences(scored, found, dense, loss, verdict, bound, comparable)),
    )


def _drop_fields(loss: Loss | None) -> Mapping[str, Any]:
    if loss is None:
        return {"drop": None, "drop_low": None, "drop_high": None, "paired": False}
    drop = loss.drop
    return {"drop": drop.mean, "drop_low": drop.low, "drop_high": drop.high, "paired": loss.paired}


def _sentences(
    scored: Rescored,
    found: Interval | None,
    dense: float | None,
    loss: Loss | None,
    verdict: Verdict,
    bound: float,
    recorded: float | None,
) -> Iterator[str]:
    if found is not None:
        beside = "" if dense is None else f"; the dense model has {dense:.4f}"
        yield f"{scored.metric} on {scored.examples} new examples: {found.mean:.4f} ({_ends(found)}){beside}"
    if scored.unreachable is not None:
        yield f"the dense model can't be read here: {scored.unreachable}"
    if loss is None:
        yield "fidelity compares with the dense model on the same examples; put it back where its job has it"
        return
    against = "the dense model on the same examples" if loss.paired else "the dense model's recorded quality"
    yield f"{loss.drop.mean:+.4f} lost ({_ends(loss.drop)}) against {against}; {bound:g} may be lost"
    if scored.examples < FEWEST_EXAMPLES:
        yield f"too few examples to tell: a verdict takes {FEWEST_EXAMPLES}"
    elif verdict is Verdict.BELOW:
        yield f"below the constraint by {loss.drop.mean - bound:.4f}"
    elif verdict is Verdict.CANNOT_TELL:
        yield f"{loss.drop.mean - bound:.4f} beyond the constraint, but the interval holds it; give more examples"
    if dense is not None and recorded is not None and recorded - dense > bound:
        yield (
            f"the dense model itself has {recorded - dense:.4f} less than on its own holdout ({recorded:.4f}): "
            "a search gives none of that back, training does"
        )


def _ends(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"
