"""A search for several targets: the first one is searched, each further one gets a front from the same scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from controller.errors import UsageError
from controller.job import JobSpec
from controller.job_file import anchored
from controller.preparation import describe, price
from controller.results import Progress, SearchResult
from controller.retargeting.job import retargeted_job
from controller.retargeting.retarget import run_retarget
from controller.search import run_search
from controller.stages import Stages


def run_search_on_all(job: JobSpec, on_progress: Callable[[Progress], None]) -> SearchResult:
    """Run a job, or continue it, then price and complete its front for every further target that it names.

    What a further target can't be priced by is found before the search. Where the search is interrupted, further
    targets wait for its end.

    Args:
        job: The job.
        on_progress: Told of every stage.

    Returns:
        The front; `further` holds those of the further targets, in the job's order.

    Raises:
        ValueError: Model, data, space, a table or a study does not fit; the types say which.
        RuntimeError: Most trials failed, or Ray did.
    """
    job = anchored(job, Path.cwd())
    _check_further(job, Stages(on_progress))
    result = run_search(job, on_progress)
    if result.interrupted:
        return result
    further = (run_retarget(job.name, job.storage, change, on_progress).result for change in job.also)
    return replace(result, further=tuple(further))


def _check_further(job: JobSpec, stages: Stages) -> None:
    """Check what is known of the further targets before anything is scored.

    Raises:
        UsageError: Two of them have one name, or one is no other target.
        PreflightError: No policy meets the constraints on one of them.
    """
    names = [job.name]
    for change in job.also:
        stages("looking at further targets")
        moved = retargeted_job(job, change)
        if moved.name in names:
            raise UsageError(
                f"every target keeps its front in a study of its own; two of them would be {moved.name!r}; "
                "name one in the job: also: [{study: NAME, ...}]"
            )
        names.append(moved.name)
        description = describe(moved)
        if change.table is not None:
            price(moved, description, stages)
