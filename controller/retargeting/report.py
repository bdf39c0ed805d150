"""What became of a study's scores on another target, as a record for people and for --json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.results import Record, SearchResult
from controller.trial_counts import TrialCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedRow(Record):
    """A member of the origin's front, and what it costs on the other target.

    Attributes:
        trial: Number of the trial in the origin.
        name: Name there.
        policy_digest: Identity of the policy.
        quality: Metric on the search split.
        latency_before_ms: Predicted latency on the origin's target.
        latency_ms: Predicted latency on the other one; None where that has no kernels for the policy.
        size_bytes: Size of the artifact.
        here: Number of the trial in the study for the other target; None where it has no score there.
        on_front: Whether it is on the front there.
    """

    trial: int
    name: str
    policy_digest: str
    quality: float
    latency_before_ms: float
    latency_ms: float | None
    size_bytes: int
    here: int | None = None
    on_front: bool = False

    @property
    def on_front_text(self) -> str:
        """Whether it is on the front there, and as which trial."""
        return f"yes, trial {self.here}" if self.on_front else "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetargetResult(Record):
    """The front of a study on another target.

    Attributes:
        origin: Name of the study that was scored.
        origin_target: Its target in words.
        result: The study for the other target, and its front.
        before: The origin's front, priced on both targets, by falling latency on its own.
        taken_over: Trials that were taken over, probes and baselines included.
        counts: The same by what became of them.
        estimates: Those of them whose quality is an estimate.
        left_out: Scored trials whose policies the other target has no kernels for.
        evaluations: Policies that were scored for the other target, in this run and in earlier ones.
        still_estimated: Policies that would be on the front by their estimates, and were not scored again.
        hypervolume_before: Hypervolume of the origin's front on the other target; None where that is not known.
        files: What was written.
    """

    origin: str
    origin_target: str
    result: SearchResult
    before: tuple[PricedRow, ...]
    taken_over: int
    counts: TrialCounts
    estimates: int
    left_out: int
    evaluations: int
    still_estimated: int
    hypervolume_before: float | None
    files: tuple[Path, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words, one for each line."""
        found = [f"taken over from {self.origin}: {self.counts.text}; {self.evaluations} scored for this target"]
        stay = sum(row.on_front for row in self.before)
        found.append(
            f"of the {len(self.before)} members of its front {stay} are on this one; "
            f"{sum(not row.taken_over for row in self.result.front)} of {len(self.result.front)} were scored for it"
        )
        if self.hypervolume_before is not None and self.result.hypervolume is not None:
            found.append(
                f"hypervolume there: {self.result.hypervolume:.4f}; its front had {self.hypervolume_before:.4f}"
            )
        if self.estimates:
            found.append(
                f"the quality of {self.estimates} of the trials is an estimate: they were stopped early, or scored in "
                "calls of another size; none of them is on the front"
            )
        if self.still_estimated:
            found.append(
                f"{self.still_estimated} policies would be on the front by their estimates; "
                f"--evaluations {self.evaluations + self.still_estimated} scores them too"
            )
        if self.left_out:
            found.append(f"{self.left_out} scored trials left out: this target has no kernels for their policies")
        return tuple(found)
