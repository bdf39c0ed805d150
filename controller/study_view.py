"""A finished or running study as people look at it: what plots, report files and MLflow are made from."""

import math
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controller.results import HoldoutCheck, MetricCheck, policy_label
from evaluators.latency.table.energy import EnergyBasis
from search_spaces.policy import Choice, Policy

HEADLINE_DROP = 0.01
"""Loss of quality that the headline allows, in the metric's own unit."""


class PointRole(StrEnum):
    """Where a point comes from."""

    TRIAL = "trial"
    BASELINE = "baseline"
    """The dense model or a uniform policy, scored for comparison."""


class PointState(StrEnum):
    """How the evaluation of a point ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    RUNNING = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitView:
    """The choice of one unit, with what is needed to draw it.

    Attributes:
        keep: Groups that stay; 0 leaves the unit out.
        groups: Groups of the dense unit.
        format: Name of the number format.
        weight_bits: Bits of a weight in that format.
    """

    keep: int
    groups: int
    format: str
    weight_bits: int

    @property
    def text(self) -> str:
        """The choice in words: "keep 6/12, w8a8"."""
        return f"keep {self.keep}/{self.groups}, {self.format}" if self.keep else "left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class PointView:
    """One trial or baseline.

    Attributes:
        trial: Number in the study; None for a baseline that is none of its trials.
        name: What people call it ("trial 17", "dense", "uniform w8a8").
        role: Trial or baseline.
        state: How its evaluation ended.
        policy: Unit to choice, in the order in which data flows through the model.
        quality: Metric on the search split, larger is better; None without a score.
        share: Share of the examples behind `quality`; below 1 it is an estimate, and scoring stopped early.
        quality_low: Lower end of the confidence interval of `quality`.
        quality_high: Upper end of it.
        latency_ms: Predicted time of one batch.
        size_bytes: Bytes of all parameters.
        energy_mj: Energy of one batch; None where it is not known.
        peak_memory_bytes: Peak memory of activations; None where it is not known.
        kl_to_dense: Divergence of the outputs from the dense model's, in nats.
        feasible: Whether all constraints are met.
        on_front: Whether no other trial dominates it.
        holdout_quality: Metric on the holdout split, where it was scored there.
        holdout_low: Lower end of the confidence interval of `holdout_quality`.
        holdout_high: Upper end of it.
        holdout_metric: The task's metric on the holdout, where quality is something else.
        knee: Whether the front bends most here.
        failure: Why there is no score, in words.
    """

    trial: int | None
    name: str
    role: PointRole
    state: PointState = PointState.COMPLETE
    policy: Mapping[str, UnitView] = field(default_factory=dict)
    quality: float | None = None
    share: float = 1.0
    quality_low: float | None = None
    quality_high: float | None = None
    latency_ms: float | None = None
    size_bytes: int | None = None
    energy_mj: float | None = None
    peak_memory_bytes: int | None = None
    kl_to_dense: float | None = None
    feasible: bool = True
    on_front: bool = False
    holdout_quality: float | None = None
    holdout_low: float | None = None
    holdout_high: float | None = None
    holdout_metric: MetricCheck | None = None
    knee: bool = False
    failure: str | None = None

    @property
    def as_policy(self) -> Policy:
        """The policy itself, for its canonical JSON and its digest."""
        return Policy({unit: Choice(view.keep, view.format) for unit, view in self.policy.items()})

    @property
    def drawable(self) -> bool:
        """Whether the point has a finite quality and latency."""
        return all(v is not None and math.isfinite(v) for v in (self.quality, self.latency_ms))

    @property
    def quality_text(self) -> str:
        """Quality with its confidence interval: "0.912 (0.901 to 0.922)"."""
        return _with_interval(self.quality, self.quality_low, self.quality_high)

    @property
    def holdout_text(self) -> str:
        """Quality on the holdout with its confidence interval, likewise."""
        return _with_interval(self.holdout_quality, self.holdout_low, self.holdout_high)

    @property
    def holdout_metric_text(self) -> str:
        """The task's metric on the holdout with its confidence interval, likewise."""
        check = self.holdout_metric
        return "-" if check is None else _with_interval(check.value, check.low, check.high)

    @property
    def search_gap(self) -> float | None:
        """Metric on the search split less that on the holdout; above 0 where the search flatters."""
        if self.quality is None or self.holdout_quality is None:
            return None
        return self.quality - self.holdout_quality

    @property
    def gap_text(self) -> str:
        """The gap with its sign; a dash for none."""
        return "-" if self.search_gap is None else f"{self.search_gap:+.4f}"

    @property
    def label(self) -> str:
        """The name, with the trial's number where it is another one, and a word where the front bends most."""
        return policy_label(self.name, self.trial, knee=self.knee)

    @property
    def policy_summary(self) -> str:
        """The policy in one line: mean share kept, units left out, units in each format."""
        if not self.policy:
            return "no policy recorded"
        units = list(self.policy.values())
        kept = sum(u.keep / u.groups for u in units) / len(units)
        left_out = sum(u.keep == 0 for u in units)
        formats = Counter(u.format for u in units if u.keep)
        parts = [f"{kept:.0%} kept on average"]
        if left_out:
            parts.append(f"{left_out} of {len(units)} units left out")
        return "; ".join([*parts, *(f"{count} in {name}" for name, count in formats.most_common())])


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits that a feasible policy keeps; None where there is none.

    Attributes:
        min_quality: Least metric.
        max_latency_ms: Largest predicted time of one batch.
        max_size_bytes: Largest size.
        max_energy_mj: Largest energy of one batch.
        max_peak_memory_bytes: Largest peak memory of activations.
    """

    min_quality: float | None = None
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None
    max_energy_mj: float | None = None
    max_peak_memory_bytes: int | None = None

    def texts(self, metric: str) -> tuple[str, ...]:
        """The limits in words, those that exist."""
        found = []
        if self.min_quality is not None:
            found.append(f"{metric} at least {number(self.min_quality)}")
        if self.max_latency_ms is not None:
            found.append(f"latency at most {number(self.max_latency_ms)} ms")
        if self.max_size_bytes is not None:
            found.append(f"size at most {size_text(self.max_size_bytes)}")
        if self.max_energy_mj is not None:
            found.append(f"energy at most {number(self.max_energy_mj)} mJ")
        if self.max_peak_memory_bytes is not None:
            found.append(f"peak memory at most {size_text(self.max_peak_memory_bytes)}")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """A study with all its points.

    Attributes:
        study: Identity of the study, as the commands take it.
        title: Heading of the report.
        metric: Name of the quality metric.
        energy_basis: Whether energies are measured or estimated; None where they are not known.
        task_metric: Name of the task's metric, where quality is something else and it was measured on the holdout.
        objectives: Names of what was searched for ("quality", "latency_ms", "size_bytes", "energy_mj",
            "peak_memory_bytes").
        dense_quality: Metric of the dense model on the search split.
        dense_latency_ms: Predicted latency of the dense model.
        dense_size_bytes: Size of the dense model.
        bounds: Constraints of the job.
        points: Baselines and trials, trials in order of their numbers.
        hypervolume_by_trial: Hypervolume after each finished trial.
        reference: The point that the hypervolume is measured from, by objective.
        holdout_check: What the holdout says of the front; None where no member was scored there.
        latency_margin_pct: Per cent within which 90 % of measured times are expected of predicted ones; None where
            nobody measured that, and in studies of earlier versions.
        latency_sentence: The same in words; empty in studies of earlier versions.
    """

    study: str
    title: str
    metric: str
    objectives: tuple[str, ...]
    dense_quality: float
    dense_latency_ms: float
    dense_size_bytes: int
    points: tuple[PointView, ...]
    bounds: Bounds = Bounds()
    hypervolume_by_trial: tuple[float, ...] = ()
    reference: Mapping[str, float] = field(default_factory=dict)
    holdout_check: HoldoutCheck | None = None
    task_metric: str | None = None
    energy_basis: EnergyBasis | None = None
    latency_margin_pct: float | None = None
    latency_sentence: str = ""

    @property
    def names_energy(self) -> bool:
        """Whether energy was searched for or bounded."""
        return "energy_mj" in self.objectives or self.bounds.max_energy_mj is not None

    @property
    def names_memory(self) -> bool:
        """Whether peak memory was searched for or bounded."""
        return "peak_memory_bytes" in self.objectives or self.bounds.max_peak_memory_bytes is not None

    @property
    def further_headings(self) -> tuple[str, ...]:
        """Headings of the costs beside latency and size that the job names; an estimated energy says so."""
        estimated = ", estimated" if self.energy_basis is EnergyBasis.ESTIMATED else ""
        energy = (f"energy (mJ{estimated})",) if self.names_energy else ()
        return (*energy, "peak memory") if self.names_memory else energy

    def further_texts(self, point: PointView) -> tuple[str, ...]:
        """What a point costs under `further_headings`."""
        energy = (number(point.energy_mj),) if self.names_energy else ()
        return (*energy, size_text(point.peak_memory_bytes)) if self.names_memory else energy

    @property
    def front(self) -> tuple[PointView, ...]:
        """Members of the front that can be drawn, fastest first."""
        members = (p for p in self.points if p.on_front and p.drawable)
        return tuple(sorted(members, key=lambda p: (p.latency_ms or 0.0, -(p.quality or 0.0))))

    @property
    def baselines(self) -> tuple[PointView, ...]:
        """Baselines that can be drawn, in the order given."""
        return tuple(p for p in self.points if p.role is PointRole.BASELINE and p.drawable)

    @property
    def headline(self) -> PointView | None:
        """The fastest feasible front member that loses at most `HEADLINE_DROP`, else the best one; None without any."""
        members = [p for p in self.front if p.feasible]
        close = [p for p in members if (p.quality or 0.0) >= self.dense_quality - HEADLINE_DROP]
        if close:
            return close[0]
        return max(members, key=lambda p: p.quality or 0.0, default=None)

    @property
    def result_sentence(self) -> str:
        """What came out, in one sentence."""
        best = self.headline
        if best is None or best.quality is None or best.latency_ms is None or best.size_bytes is None:
            return f"No trial of {len(self.points)} met the constraints yet."
        name = best.name[:1].upper() + best.name[1:]
        return (
            f"{name} has {self.metric} {number(best.quality)} (dense {number(self.dense_quality)}) "
            f"at {best.latency_ms / self.dense_latency_ms:.2f} times the latency ({number(best.latency_ms)} ms) and "
            f"{best.size_bytes / self.dense_size_bytes:.2f} times the size ({size_text(best.size_bytes)}) "
            "of the dense model."
        )

    @property
    def hypervolume_sentence(self) -> str:
        """What the front covers, and from which point that is measured; empty before anything is known of it."""
        if not self.hypervolume_by_trial:
            return ""
        return f"Hypervolume {self.hypervolume_by_trial[-1]:.4f}{reference_text(self.reference, self.metric)}."

    @property
    def export_command(self) -> str:
        """The command that exports the headline's policy, or whatever the user picks."""
        best = self.headline
        pick = f"--trial {best.trial}" if best is not None and best.trial is not None else "--trial N"
        return f"paretrim export {shlex.quote(self.study)} {pick} --out DIR"


def reference_text(reference: Mapping[str, float], metric: str) -> str:
    """The reference point of a hypervolume in words, as the end of a sentence; empty where there is none.

    Args:
        reference: Value by objective ("quality", "latency_ms", "size_bytes").
        metric: Name of the quality metric.
    """
    words = {
        "quality": lambda v: f"{metric} {number(v)} (chance)",
        "latency_ms": lambda v: f"latency {number(v)} ms (dense)",
        "size_bytes": lambda v: f"size {size_text(int(v))} (dense)",
        "energy_mj": lambda v: f"energy {number(v)} mJ (dense)",
        "peak_memory_bytes": lambda v: f"peak memory {size_text(int(v))} (dense)",
    }
    if not reference:
        return ""
    return " from the reference point " + ", ".join(words[name](value) for name, value in reference.items())


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"


def number(value: float | None) -> str:
    """A figure in four significant digits, without an exponent up to a million; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:#.4g}".rstrip(".")


def size_text(size_bytes: int | None) -> str:
    """A size in the unit that fits: "13.2 MB" (millions of bytes); a dash for none."""
    if size_bytes is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes} B"
