"""What the services hand to whoever shows it: plain frozen records that turn into JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.hardware_note import FOREIGN_TABLE as FOREIGN_TABLE
from controller.hardware_note import hardware_note
from controller.record import SCHEMA_VERSION as SCHEMA_VERSION
from controller.record import Record as Record
from controller.registry.report import RegisteredVersion
from controller.trial_counts import TrialCounts

EXTRAPOLATED = (
    "operators lie outside what the latency table was measured for, and were extrapolated: good for planning only"
)
_DIFFERENCES_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint(Record):
    """A member of the front while the search goes on.

    Attributes:
        name: Name for people ("trial 17").
        quality: Metric on the search split; larger is better.
        latency_ms: Predicted latency of one batch.
        size_bytes: Bytes of all parameters.
    """

    name: str
    quality: float
    latency_ms: float
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Record):
    """Where a search stands.

    Attributes:
        stage: What is going on ("profiling", "calibrating", "searching", "scoring the front on the holdout").
        trials_done: Trials with an outcome, failures and baselines included; a part of the examples counts its share.
        trials_total: Trials that the job asks for, and baselines; 0 while that means nothing.
        baselines: How many of these are baselines.
        failed: Trials that failed.
        front_size: Members of the front.
        hypervolume: Hypervolume of the front; None before it is known.
        best: The best policy under the constraints, for people; None before there is one.
        elapsed_s: Seconds since the start.
        eta_s: Seconds to go; None where unknown.
        front: Members of the front, by falling latency.
        failures: Failed trials by reason.
        examples_done: Examples that were scored for all trials so far.
    """

    stage: str
    trials_done: int = 0
    trials_total: int = 0
    baselines: int = 0
    failed: int = 0
    front_size: int = 0
    hypervolume: float | None = None
    best: str | None = None
    elapsed_s: float = 0.0
    eta_s: float | None = None
    front: tuple[FrontPoint, ...] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    examples_done: int = 0

    @property
    def trials_text(self) -> str:
        """Trials done and to do in words: "30/72 trials (12 of them baselines)"."""
        baselines = f" ({self.baselines} of them baselines)" if self.baselines else ""
        return f"{self.trials_done}/{self.trials_total} trials{baselines}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelGroup(Record):
    """Front members that the holdout can't tell apart: the interval of each overlaps those of all others.

    Attributes:
        trials: Numbers of the trials.
        names: Names for people.
    """

    trials: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference(Record):
    """Two members whose intervals overlap and that still differ, compared on the same examples.

    Attributes:
        better: Name of the better one.
        worse: Name of the other.
        difference: Difference of their metrics on the holdout.
        low: Lower end of its confidence interval, above 0.
        high: Upper end of it.
    """

    better: str
    worse: str
    difference: float
    low: float
    high: float


def _in_a_list(name: str) -> str:
    """A name as an entry of a list: in brackets where it has a comma itself."""
    return f"({name})" if "," in name else name


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutCheck(Record):
    """What examples that the search never saw say of its front.

    Attributes:
        members: Front members that were scored on the holdout.
        confidence: Confidence level of all intervals.
        mean_gap: Mean over them of the metric on the search split less that on the holdout.
        dense_gap: The same of the dense model, which nobody chose; None where it was not scored.
        level: Groups of members whose intervals overlap.
        apart: Members that differ all the same, compared example by example.
    """

    members: int
    confidence: float
    mean_gap: float
    dense_gap: float | None
    level: tuple[LevelGroup, ...] = ()
    apart: tuple[PairedDifference, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words, one for each line."""
        beside = "" if self.dense_gap is None else f"; the dense model's: {self.dense_gap:+.4f}"
        found = [
            f"search score less holdout score: {self.mean_gap:+.4f} on average over {self.members} front "
            f"{'member' if self.members == 1 else 'members'}{beside}"
        ]
        certain = f"{100 * self.confidence:g} %"
        if self.level:
            groups = "; ".join(", ".join(map(_in_a_list, group.names)) for group in self.level)
            found.append(f"level on the holdout, as their {certain} intervals overlap: {groups}")
        elif self.members > 1:
            found.append(f"no two members are level: no {certain} intervals on the holdout overlap")
        if self.apart:
            shown = [
                f"{d.better} above {d.worse} by {d.difference:.4f} ({d.low:.4f} to {d.high:.4f})"
                for d in self.apart[:_DIFFERENCES_SHOWN]
            ]
            left = len(self.apart) - len(shown)
            more = f"; and {left} more" if left else ""
            found.append(f"of these still apart, compared example by example: {'; '.join(shown)}{more}")
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCheck(Record):
    """The task's metric of a policy on the holdout, of a study that searched for another quality.

    Attributes:
        value: The metric; larger is better.
        low: Lower end of its confidence interval.
        high: Upper end of it.
    """

    value: float
    low: float
    high: float


def policy_label(name: str, trial: int | None, *, knee: bool) -> str:
    """A policy as tables show it: "trial 17 (knee)", "keep 1, w8a8 (trial 2)".

    Args:
        name: Name for people.
        trial: Number by which the commands know it; None where there is none.
        knee: Whether the front bends most there.
    """
    marks = [] if trial is None or name == f"trial {trial}" else [f"trial {trial}"]
    marks += ["knee"] if knee else []
    return f"{name} ({', '.join(marks)})" if marks else name


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRow(Record):
    """A policy and its scores: a member of the front, or a baseline.

    Attributes:
        trial: Number by which the commands know it; baselines have one too.
        name: Name for people ("trial 17", "dense", "keep 0.5, w8a8").
        policy_digest: Identity of the policy.
        quality: Metric on the search split; larger is better.
        holdout_quality: Metric on the holdout; None where it was not scored there.
        holdout_low: Lower end of its confidence interval.
        holdout_high: Upper end of its confidence interval.
        holdout_metric: The task's metric on the holdout, where quality is something else.
        search_gap: Metric on the search split less that on the holdout; above 0 where the search flatters.
        level_with: Numbers of the front members whose intervals on the holdout overlap this one's.
        latency_ms: Predicted latency.
        size_bytes: Size of the artifact.
        latency_ratio: Latency over that of the dense model.
        energy_mj: Energy of one batch, measured or estimated as the latency table has it; None where it is not known.
        peak_memory_bytes: Peak memory of activations, computed; None where it is not known.
        feasible: Whether it meets the job's constraints.
        knee: Whether the front bends most here.
        taken_over: Whether its quality was scored in the study that this one began with.
    """

    trial: int | None
    name: str
    policy_digest: str
    quality: float
    holdout_quality: float | None = None
    holdout_low: float | None = None
    holdout_high: float | None = None
    holdout_metric: MetricCheck | None = None
    search_gap: float | None = None
    level_with: tuple[int, ...] = ()
    latency_ms: float
    size_bytes: int
    latency_ratio: float
    energy_mj: float | None = None
    peak_memory_bytes: int | None = None
    feasible: bool = True
    knee: bool = False
    taken_over: bool = False

    @property
    def label(self) -> str:
        """The name, with the trial's number where it is another one, and a word where the front bends most."""
        return policy_label(self.name, self.trial, knee=self.knee)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureGroup(Record):
    """Failed trials of one reason.

    Attributes:
        reason: The reason, as a worker names it.
        count: How many trials.
        example: Message of one of them.
    """

    reason: str
    count: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PickSummary(Record):
    """A member that a rule picks.

    Attributes:
        rule: The rule, as it was asked.
        trial: Number of the picked trial.
        runner_up: Number of the one that comes next by the rule; None where there is no other.
        explanation: Why it was picked, what comes next, and what it gives up against that.
        warning: Where its search score is better than its holdout score by more than luck explains: so, and what helps.
    """

    rule: str
    trial: int
    runner_up: int | None
    explanation: str
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult(Record):
    """What a study found.

    Attributes:
        study: Name of the study.
        metric: Name of the quality metric.
        task_metric: Name of the task's metric, where quality is something else and it was measured on the holdout.
        front: Policies that none dominates, by falling latency.
        baselines: The dense model, then the uniform policies.
        least_violating: Where nothing is feasible: the policies that come closest.
        trials_done: Proposals of the sampler with an outcome, probes and baselines apart.
        counts: All finished trials by what became of them; None where that was not counted.
        hypervolume: Hypervolume of the front; None where there is none.
        reference: The point that the hypervolume is measured from, by objective: quality of guessing, and the dense
            model's costs.
        holdout_check: What the holdout says of the front; None where no member was scored there.
        picked: What the rule picks that was asked for; None where none was.
        failures: Failed trials by reason.
        mlflow_address: Where to look at the runs; None where MLflow is off.
        foreign_table: Whether latencies come from a table of other hardware.
        measured_on: That hardware in words, where the study is meant for it; else None.
        extrapolated: How many operators of the space lie outside what the table was measured for.
        latency_margin_pct: Per cent within which 90 % of measured times are expected of the predicted ones; None where
            nobody measured that, and in studies of earlier versions.
        latency_sentence: The same in words; empty in studies of earlier versions.
        interrupted: Whether the search was stopped before its end.
        target: Device, threads and calls that latencies are for, in words.
        origin: Name of the study that this one began with; None where it began with none.
        further: What became of the same scores on further targets.
        energy_heading: "energy", or "energy (estimated)", where the job names energy; else None.
        names_memory: Whether the job names peak memory.
        notes: What else the user should know, a line each: a noisy machine, an MLflow server that does not answer.
    """

    study: str
    metric: str
    task_metric: str | None = None
    front: tuple[FrontRow, ...]
    baselines: tuple[FrontRow, ...] = ()
    least_violating: tuple[FrontRow, ...] = ()
    trials_done: int = 0
    counts: TrialCounts | None = None
    hypervolume: float | None = None
    reference: Mapping[str, float] = field(default_factory=dict)
    holdout_check: HoldoutCheck | None = None
    picked: PickSummary | None = None
    failures: tuple[FailureGroup, ...] = ()
    mlflow_address: str | None = None
    foreign_table: bool = False
    measured_on: str | None = None
    extrapolated: int = 0
    latency_margin_pct: float | None = None
    latency_sentence: str = ""
    interrupted: bool = False
    target: str = ""
    origin: str | None = None
    further: tuple["SearchResult", ...] = ()
    energy_heading: str | None = None
    names_memory: bool = False
    notes: tuple[str, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether a policy on the front meets the constraints."""
        return any(row.feasible for row in self.front)

    @property
    def hardware_note(self) -> str | None:
        """What latencies of a table from elsewhere are to be read with; None where the table is from here."""
        return hardware_note(foreign_table=self.foreign_table, measured_on=self.measured_on)

    def _repr_html_(self) -> str:
        """The front as notebooks show it; every text is escaped."""
        from controller.plots.front_table import front_to_html

        return front_to_html(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitSummary(Record):
    """What an early exit does on the holdout, one example a call.

    Attributes:
        block: Module after which examples leave.
        share: Share of examples that leaves there.
        whole_quality: Metric of the searched model without the exit.
        expected_latency_ms: Mean latency by the table over the search split.
        mean_latency_ms: Mean latency measured over holdout examples as long as they are.
        whole_mean_latency_ms: The same of the model without the exit.
        dense_mean_latency_ms: The same of the dense model.
    """

    block: str
    share: float
    whole_quality: float
    expected_latency_ms: float
    mean_latency_ms: float
    whole_mean_latency_ms: float
    dense_mean_latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary(Record):
    """A verified artifact beside what the search said of it.

    Attributes:
        study: Name of the study.
        trial: Trial that was exported; None for a baseline.
        policy_digest: Identity of the policy.
        explanation: Why this policy was taken, in a sentence.
        warning: That the search flatters it, where that is certain and it was not trained since; else empty.
        artifact: Folder of the artifact.
        metric: Name of the quality metric.
        searched_quality: Metric on the holdout as the search computes it; of the trained model where it was trained.
        unrecovered_quality: Metric on the holdout before recovery; None where the model was not trained.
        registered: The version of a registered model that it became; None where it was not registered.
        exported_quality: Metric on the holdout as the reloaded artifact computes it.
        dense_quality: Metric of the dense model on the holdout.
        max_logits_difference: Largest absolute difference of the outputs.
        predicted_latency_ms: Latency that the search went by.
        predicted_low_ms: Lower bound of 90 % of measured times; None where nobody measured how far the prediction errs.
        predicted_high_ms: Upper bound, likewise.
        measured_latency_ms: Latency of the artifact.
        dense_latency_ms: Latency of the dense model, measured in turn with the artifact; None where it was not.
        predicted_size_bytes: Size that the search went by.
        measured_size_bytes: Size of the model file.
        dense_size_bytes: Size of the dense model's parameters.
        early_exit: What an early exit saves; None where there is none.
        predicted_for: Device, runtime and threads that the predicted latency holds on, where that is not this machine,
            which measured the others; None where it is.
    """

    study: str
    trial: int | None
    policy_digest: str
    explanation: str
    artifact: Path
    metric: str
    searched_quality: float
    exported_quality: float
    dense_quality: float
    max_logits_difference: float
    predicted_latency_ms: float
    measured_latency_ms: float
    dense_latency_ms: float | None
    predicted_size_bytes: int
    measured_size_bytes: int
    dense_size_bytes: int
    predicted_low_ms: float | None = None
    predicted_high_ms: float | None = None
    unrecovered_quality: float | None = None
    early_exit: ExitSummary | None = None
    registered: RegisteredVersion | None = None
    predicted_for: str | None = None
    warning: str = ""
