"""A search on new data that begins with what an earlier one has found.

No score is taken over: on other data a score says something else, and the units are calibrated anew. What carries over
are policies: the one in use, then the old front's, which the new search scores before its sampler proposes anything, so
that the sampler learns from a whole front from the start.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller.errors import UsageError
from controller.job import NAME_PATTERN, JobSpec, check_study_name
from controller.results import Progress, SearchResult
from controller.search import run_search
from controller.storage.engine import open_database
from controller.storage.repository import Repository
from controller.study_summary import summarise
from search_spaces.policy import Policy
from workers.data import DataConfig, count_rows
from workers.export.verified import VerifiedArtifact
from workers.model import ModelConfig, load_task

_DIGITS = 8
_LONGEST_NAME = 64
_FEWEST_ROWS = 30
"""Rows of the smallest split that a search begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resubmission:
    """Where a search on new data is kept.

    Attributes:
        storage: URL of the database, in which the old study may be too.
        tracking_uri: Tracking URI of MLflow.
        name: Name of the new study; None makes one of the old name and the data, so that the same data continue it.
    """

    storage: str
    tracking_uri: str
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_study_name(self.name)


def resubmit(
    artifact: VerifiedArtifact,
    job: JobSpec,
    data: DataConfig,
    resubmission: Resubmission,
    on_progress: Callable[[Progress], None],
) -> tuple[JobSpec, SearchResult]:
    """Search on new data, the same model and space, beginning with the policy in use and the old front.

    Args:
        artifact: The model in use.
        job: Its job.
        data: The new data; how many rows each split takes is the old job's, or less where there are fewer.
        resubmission: Where the search is kept.
        on_progress: Told of every stage.

    Returns:
        The new job, and what the search found.

    Raises:
        UsageError: There are too few rows to search on.
        ValueError: Model, data, space or table does not fit; the types say which.
        RuntimeError: Most trials failed, or Ray did.
    """
    new = resubmitted_job(job, data, resubmission, rows=_rows(artifact, job, data))
    return new, run_search(new, on_progress, first=_first(artifact, job, resubmission.storage))


def resubmitted_job(job: JobSpec, data: DataConfig, resubmission: Resubmission, *, rows: int) -> JobSpec:
    """Return the job of a search on new data.

    Args:
        job: The old job.
        data: The new data.
        resubmission: Where the search is kept.
        rows: Different rows of the new data.

    Raises:
        UsageError: There are too few rows for three splits.
    """
    wanted = {"calibration": data.calibration, "search": data.search, "holdout": data.holdout}
    share = min(1.0, rows / sum(wanted.values()))
    sizes = {name: int(share * count) for name, count in wanted.items()}
    for name, size in sizes.items():
        if size < min(_FEWEST_ROWS, wanted[name]):
            raise UsageError(
                f"a search takes at least {min(_FEWEST_ROWS, wanted[name])} rows a split; {data.source!r} has {rows} "
                f"different rows, of which {name} would get {size}; give more data"
            )
    table = job.target.table
    target = job.target if table is None or Path(table).is_file() else job.target.model_copy(update={"table": None})
    return job.model_copy(
        update={
            "name": resubmission.name or _name(job.name, data.source),
            "data": data.model_copy(update=sizes),
            "target": target,
            "storage": resubmission.storage,
            "mlflow": job.mlflow.model_copy(update={"tracking_uri": resubmission.tracking_uri}),
            "also": (),
        }
    )


def _name(study: str, source: str) -> str:
    path = Path(source)
    content = path.read_bytes() if path.is_file() else source.encode()
    digest = hashlib.sha256(content).hexdigest()[:_DIGITS]
    base = re.sub(rf"-[0-9a-f]{{{_DIGITS}}}$", "", study)
    name = f"{base[: _LONGEST_NAME - 1 - _DIGITS]}-{digest}"
    assert re.fullmatch(NAME_PATTERN, name), name
    return name


def _rows(artifact: VerifiedArtifact, job: JobSpec, data: DataConfig) -> int:
    return count_rows(data, load_task(ModelConfig(id=str(artifact.folder), task=job.model.task)))


def _first(artifact: VerifiedArtifact, job: JobSpec, storage: str) -> tuple[Policy, ...]:
    """The policy in use, and the old front's where the database has the study."""
    used = Policy.from_json((artifact.folder / "policy.json").read_text(encoding="utf-8"))
    repository = Repository(open_database(storage))
    if repository.find_study(job.name) is None:
        return (used,)
    old = summarise(repository, job.name)
    return (used, *(old.trial(member.number).policy for member in old.front))
