"""What a tolerance sweep is asked and what it answers. Light, so that a bad question is refused before any model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from controller.errors import UsageError
from controller.job import JobSpec
from controller.results import Record
from controller.study_view import HEADLINE_DROP
from controller.tables.machine import usable_formats

_MOST_RATIOS = 100
_SLACK = 1e-9


class SweepError(UsageError):
    """The sweep can't be run as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """A sweep, checked.

    Attributes:
        keep: Keep ratios, falling, without repeats.
        max_drop: Tolerated loss of quality against the dense model, as a fraction of 1.
        formats: Names of the formats, in the target's order.
    """

    keep: tuple[float, ...]
    max_drop: float
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow(Record):
    """One uniform policy.

    Attributes:
        name: Name for people ("keep 0.5, w8a8").
        keep: Ratio that was asked for.
        kept: Mean share of the groups that stay, as widths come in steps.
        format: Number format of all units that have it.
        policy_digest: Identity of the policy.
        quality: Metric on the search split; None where it can't be scored.
        drop: Metric of the dense model less that; None likewise.
        drop_low: Lower end of its confidence interval, paired by example.
        drop_high: Upper end of it.
        latency_ms: Predicted latency.
        latency_ratio: That over the dense model's.
        size_bytes: Bytes of all parameters: what the weights take in memory.
        size_ratio: That over the dense model's.
        within: Whether the loss is tolerated.
        failure: Why there is no score.
    """

    name: str
    keep: float
    kept: float
    format: str
    policy_digest: str
    quality: float | None = None
    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None
    latency_ms: float
    latency_ratio: float
    size_bytes: int
    size_ratio: float
    within: bool = False
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepVerdict(Record):
    """How far one format can be pruned.

    Attributes:
        format: The format.
        keep: Smallest keep whose loss is tolerated; None where none is.
        sentence: That in words.
    """

    format: str
    keep: float | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult(Record):
    """The table of keep against quality, latency and memory.

    Attributes:
        study: Name of the job.
        metric: Name of the quality metric.
        examples: Examples behind every score.
        max_drop: Tolerated loss.
        confidence: Confidence level of the intervals.
        dense_quality: Metric of the dense model.
        dense_latency_ms: Its predicted latency.
        dense_size_bytes: Its bytes.
        rows: Policies, by format and falling keep.
        verdicts: For each format how far it can be pruned.
        scored: Policies that were scored now; the others had been paid for.
        foreign_table: Whether latencies come from a table of other hardware.
        extrapolated: How many operators lie outside what the table was measured for.
    """

    study: str
    metric: str
    examples: int
    max_drop: float
    confidence: float
    dense_quality: float
    dense_latency_ms: float
    dense_size_bytes: int
    rows: tuple[SweepRow, ...]
    verdicts: tuple[SweepVerdict, ...] = ()
    scored: int = 0
    foreign_table: bool = False
    extrapolated: int = 0


def check_sweep(
    job: JobSpec, *, keep: Sequence[float], max_drop: float | None = None, format: str | None = None
) -> SweepRequest:
    """Check what a sweep is asked.

    Args:
        job: The job.
        keep: Keep ratios, above 0 to 1.
        max_drop: Tolerated loss, 0 to 1; None takes the job's constraint, or 0.01 where it has none.
        format: One format for all; None takes the job's formats.

    Raises:
        SweepError: A ratio or the tolerance is out of range, or the format has no kernel on the target.
    """
    if not keep or len(keep) > _MOST_RATIOS:
        raise SweepError(f"a sweep takes 1 to {_MOST_RATIOS} keep ratios; got {len(keep)}; for example 0.3,0.5,0.7")
    for ratio in keep:
        if not (math.isfinite(ratio) and 0 < ratio <= 1):
            raise SweepError(f"a keep ratio is the share of heads and channels that stay, above 0 to 1; got {ratio:g}")
    if max_drop is None:
        bound = job.constraints.max_quality_drop
        max_drop = HEADLINE_DROP if bound is None else bound
    if not (math.isfinite(max_drop) and 0 <= max_drop <= 1):
        raise SweepError(f"the tolerated loss is a fraction of 1 (0.02 is two points), 0 to 1; got {max_drop:g}")
    on_target = usable_formats(job.target)
    if format is not None and format not in on_target:
        raise SweepError(
            f"{job.target.name} has no kernel for format {format[:40]!r}; choose from {', '.join(on_target)}"
        )
    wanted = (format,) if format is not None else job.space.formats or on_target
    return SweepRequest(
        keep=tuple(sorted(set(keep), reverse=True)),
        max_drop=max_drop,
        formats=tuple(name for name in on_target if name in wanted),
    )


def parse_keep(text: str) -> tuple[float, ...]:
    """Read keep ratios from a list with commas.

    Raises:
        SweepError: An entry is no number.
    """
    found = []
    for entry in text.split(","):
        try:
            found.append(float(entry))
        except ValueError:
            raise SweepError(
                f"keep ratios are numbers with commas between; got {entry.strip()[:40]!r}; for example 0.3,0.5,0.7"
            ) from None
    return tuple(found)


def verdicts(rows: Sequence[SweepRow], metric: str, max_drop: float) -> tuple[SweepVerdict, ...]:
    """Say for each format how far it can be pruned: the smallest keep whose loss is tolerated.

    Args:
        rows: Scored policies.
        metric: Name of the quality metric.
        max_drop: Tolerated loss.
    """
    return tuple(
        _verdict(name, [row for row in rows if row.format == name], metric, max_drop)
        for name in dict.fromkeys(row.format for row in rows)
    )


def is_tolerated(drop: float, max_drop: float) -> bool:
    """Whether a loss is within the tolerated one, rounding of means aside."""
    return drop <= max_drop + _SLACK


def _verdict(format: str, rows: Sequence[SweepRow], metric: str, max_drop: float) -> SweepVerdict:
    within = min((row for row in rows if row.within), key=lambda row: row.keep, default=None)
    if within is None:
        scored = [(row.drop, row) for row in rows if row.drop is not None]
        if not scored:
            return SweepVerdict(format=format, keep=None, sentence=f"{format}: no keep has a score")
        drop, nearest = min(scored, key=lambda pair: (pair[0], -pair[1].keep))
        sentence = (
            f"{format}: no keep loses at most {max_drop:g} of {metric}; the nearest, {nearest.keep:g}, loses {drop:.4f}"
        )
        return SweepVerdict(format=format, keep=None, sentence=sentence)
    sentence = (
        f"{format}: pruned the furthest at keep {within.keep:g}: it loses {within.drop:.4f} of {metric} "
        f"(tolerated {max_drop:g}) at {within.latency_ratio:.2f} of the latency and {within.size_ratio:.2f} of the size"
    )
    larger = [row for row in rows if row.keep > within.keep and not row.within]
    if larger:
        names = ", ".join(f"{row.keep:g}" for row in larger)
        sentence += f"; larger keeps lose more ({names}), so this may be chance"
    return SweepVerdict(format=format, keep=within.keep, sentence=sentence)
