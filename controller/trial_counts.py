"""How many trials a study has, by what became of them: counted once, and said alike everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from controller.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCounts(Record):
    """Finished trials of a study, each counted once.

    Attributes:
        scored: Proposals that were scored on all examples.
        stopped_early: Proposals whose scoring stopped, as they could not enter the front.
        estimated: Proposals with a score from calls of another size.
        not_scored: Proposals whose costs alone break a constraint.
        repeats: Proposals that an earlier trial had answered.
        failed: Proposals without a score.
        probes: Policies that were scored on few examples, for the sampler.
        baselines: The dense model and the uniform policies.
        evaluations: What proposals and probes come to in the job's `trials`: each by its share of the examples.
    """

    scored: int = 0
    stopped_early: int = 0
    estimated: int = 0
    not_scored: int = 0
    repeats: int = 0
    failed: int = 0
    probes: int = 0
    baselines: int = 0
    evaluations: int = 0

    @property
    def trials(self) -> int:
        """Proposals, whatever became of them."""
        return self.scored + self.stopped_early + self.estimated + self.not_scored + self.repeats + self.failed

    @property
    def named(self) -> dict[str, int]:
        """The kinds of trials in words, those that there are."""
        found = {
            "scored": self.scored,
            "stopped early": self.stopped_early,
            "estimated": self.estimated,
            "not scored for their costs": self.not_scored,
            "repeated": self.repeats,
            "failed": self.failed,
        }
        return {words: count for words, count in found.items() if count}

    @property
    def text(self) -> str:
        """All of it in words: "86 trials (44 scored, 42 stopped early), 48 probes and 12 baselines"."""
        kinds = ", ".join(f"{count} {words}" for words, count in self.named.items())
        parts = [f"{self.trials} trials" + (f" ({kinds})" if kinds else "")]
        parts += [f"{self.probes} probes"] if self.probes else []
        return f"{', '.join(parts)} and {self.baselines} baselines"
