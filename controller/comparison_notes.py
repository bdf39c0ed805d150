"""What limits a comparison of two studies: calls, tables, models and examples that differ."""

from collections.abc import Iterator

from controller.hardware_note import hardware_note
from controller.retargeting.target_change import describe_target
from controller.study_summary import StudySummary


def workloads_apart(first: StudySummary, second: StudySummary) -> str:
    """Say why latencies of two studies do not compare; empty where they do.

    Args:
        first: A study.
        second: Another.
    """
    one, other = first.job.target, second.job.target
    if (one.batch, one.sequence_length) == (other.batch, other.sequence_length):
        return ""
    targets = " and ".join(
        f"{summary.record.name} for {describe_target(summary.job.target)}" for summary in (first, second)
    )
    return f"latencies of calls that differ do not compare, and are left out: {targets}{_way_out(first, second)}"


def _way_out(first: StudySummary, second: StudySummary) -> str:
    for here, there in ((first, second), (second, first)):
        if here.origin is not None and here.origin.id == there.record.id:
            return (
                f"; {here.record.name} is {there.record.name} on another target, and its page retarget.html has both "
                "fronts"
            )
    return "" if _related(first, second) else "; retarget one of them to the calls of the other"


def _related(first: StudySummary, second: StudySummary) -> bool:
    """Whether two studies began with the same trials."""
    roots = [summary.record.id if summary.origin is None else summary.origin.id for summary in (first, second)]
    return roots[0] == roots[1]


def notes_on(first: StudySummary, second: StudySummary, *, apart: bool) -> Iterator[str]:
    """Yield what else limits a comparison of two studies, a line each.

    Args:
        first: A study.
        second: Another.
        apart: Whether their calls differ; see `workloads_apart`.
    """
    if first.fixed["evaluation"] != second.fixed["evaluation"]:
        reasons = tuple(_scored_apart(first, second)) or ("with a model, data or a release that changed meanwhile",)
        yield f"qualities were scored {', and '.join(reasons)}: small differences between the fronts mean little"
    if first.fixed["target"] != second.fixed["target"] and not apart:
        targets = [describe_target(summary.job.target) for summary in (first, second)]
        where = f" ({targets[0]}; {targets[1]})" if targets[0] != targets[1] else ""
        advice = "" if _related(first, second) else "; retarget one study to the other's table to compare them on one"
        yield f"latencies come from different tables{where}: each front is as fast as its own target{advice}"
    for summary in (first, second):
        note = hardware_note(foreign_table=bool(summary.foreign), measured_on=summary.measured_on)
        if note is not None:
            yield f"{summary.record.name}: {note}"


def _scored_apart(first: StudySummary, second: StudySummary) -> Iterator[str]:
    one, other = first.job, second.job
    if one.model != other.model:
        yield f"on different models ({one.model.id}; {other.model.id})"
    names = [name for name in type(one.data).model_fields if getattr(one.data, name) != getattr(other.data, name)]
    if names:
        yield f"on different examples (data: {', '.join(names)})"
    if one.target.batch != other.target.batch:
        yield (
            f"in calls of {one.target.batch} and of {other.target.batch} examples, which are calibrated and quantized "
            "together"
        )
