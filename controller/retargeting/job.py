"""The job of a study for another target."""

from __future__ import annotations

from controller.errors import UsageError
from controller.job import JobSpec
from controller.retargeting.target_change import TargetChange, differences
from controller.tables.machine import usable_formats
from evaluators.latency.table import LatencyTable, load_table
from workers.targets import TargetConfig
from workers.targets.device import DEVICES

_LONGEST_NAME = 64


def retargeted_job(job: JobSpec, change: TargetChange) -> JobSpec:
    """Return a study's job for another target.

    It is searched by the frontier sampler, whatever has searched the first: costs are exact there too, and the sampler
    learns from all scores. Formats that the other target has no kernels for are left out. A table that was measured on
    another device is taken, as the study is meant for that device then.

    Args:
        job: The job of the study.
        change: The other target.

    Raises:
        UsageError: Nothing differs, or the other target has no kernels for any declared format.
        TableError: The table can't be read.
    """
    table = None if change.table is None else load_table(change.table)
    target = change.applied_to(job.target, table)
    if table is not None and is_of_another_device(table, target):
        target = target.model_copy(update={"allow_foreign_table": True})
    what = differences(job.target, target)
    if not what and table is None:
        raise UsageError(
            "another target differs in its table, threads, batch, sequence length or name; got none of them; "
            "for example --threads 2, or --table FILE"
        )
    suffix = "-".join(what) if what or table is None else f"table-{table.checksum[:8]}"
    name = change.study or f"{job.name[: _LONGEST_NAME - 1 - len(suffix)]}-{suffix}"
    content = job.model_dump(mode="json")
    content |= {"name": name, "target": target.model_dump(mode="json"), "also": [], "space": _space(job, target)}
    content["search"] |= {"sampler": "frontier", "racing": False, "timeout_minutes": None}
    content["constraints"] |= change.bounds
    return JobSpec.model_validate(content).of(job.origin)


def is_of_another_device(table: LatencyTable, target: TargetConfig) -> bool:
    """Whether a table tells of a target what Paretrim measured of it on another device or by another version.

    A table of another runtime or number of threads, or of rows that somebody else measured, is none: it can only stand
    in for what was not measured.
    """
    mark, here = table.fingerprint, DEVICES.get(target.name)(target.threads).fingerprint()
    measured = table.target == target.name and not table.provenance.sources
    same_kind = (mark.runtime, mark.threads) == (here.runtime, here.threads)
    return measured and same_kind and mark != here


def _space(job: JobSpec, target: TargetConfig) -> dict[str, object]:
    """The declared choices, as far as the target has kernels for them."""
    offered = usable_formats(target)
    space: dict[str, object] = job.space.model_dump(mode="json")
    space["formats"] = _known(job.space.formats, offered, target)
    space["override"] = [
        {**override.model_dump(mode="json"), "formats": _known(override.formats, offered, target)}
        for override in job.space.override
    ]
    return space


def _known(declared: tuple[str, ...] | None, offered: tuple[str, ...], target: TargetConfig) -> list[str] | None:
    if declared is None:
        return None
    found = [name for name in declared if name in offered]
    if not found:
        raise UsageError(
            f"a study moves to a target that has kernels for its formats; {target.name} has none for "
            f"{', '.join(declared)}, but for {', '.join(offered)}"
        )
    return found
