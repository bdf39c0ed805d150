"""Racing: what a trial is up against, so that its worker can stop once it can't enter the front any more.

The costs of a trial are known before it runs. It can't enter the front, now or at the end, if a policy that costs no
more has at least its quality; of these the best sets the bar. Nor can it where it falls below the quality that the
constraints ask for. Members of the front only ever give way to better ones, so a bar that was set stays right.
"""

from controller.front import FrontMember, cost_value, cost_violations
from controller.job import Objective
from controller.progress import front_member
from controller.storage.quality import QualityStore
from controller.storage.records import TrialRecord, TrialRole
from controller.study_config import StudyConfig
from evaluators.bar import Bar
from evaluators.scores import Costs
from workers.protocol import Split


class Racing:
    """Knows the front, and sets the bars.

    Args:
        config: The study.
        scores: Where scores of examples are kept.
    """

    def __init__(self, config: StudyConfig, scores: QualityStore) -> None:
        self._config = config
        self._scores = scores
        self._members: list[FrontMember] = []
        self._dense: FrontMember | None = None
        self._per_example: dict[str, tuple[float, ...]] = {}

    def add(self, trial: TrialRecord) -> None:
        """Take in a finished trial."""
        member = front_member(trial) if self._config.racing else None
        if member is None:
            return
        if self._dense is None and trial.role is TrialRole.BASELINE and trial.number == 0:
            self._dense = member
        broken = cost_violations(member, self._config.constraints)
        if any(value > 0 for value in broken.values()) or any(self._covers(m, member) for m in self._members):
            return
        self._members = [m for m in self._members if not self._covers(member, m)] + [member]
        known = {m.policy_digest for m in self._members}
        self._per_example = {digest: values for digest, values in self._per_example.items() if digest in known}

    def bar(self, trial: TrialRecord) -> Bar | None:
        """Return what the trial must reach; None where it is up against nothing."""
        if not self._config.racing or trial.role is not TrialRole.TRIAL or self._dense is None:
            return None
        rivals = [m for m in self._members if self._costs_no_more(m, trial.costs)]
        best = max(rivals, key=lambda m: (m.quality, self._costs_less(m, trial.costs)), default=None)
        drop = self._config.constraints.max_quality_drop
        floor = None if drop is None else self._dense.quality - drop
        if best is not None and (floor is None or best.quality >= floor):
            return self._bar(best, best.quality, strict=self._costs_less(best, trial.costs))
        return None if floor is None else self._bar(self._dense, floor, strict=False)

    def _bar(self, reference: FrontMember, threshold: float, *, strict: bool) -> Bar | None:
        digest = reference.policy_digest
        if digest not in self._per_example:
            quality = self._scores.get(digest, Split.SEARCH)
            if quality is None:
                return None
            self._per_example[digest] = quality.per_example
        return Bar(threshold=threshold, strict=strict, reference=self._per_example[digest])

    def _covers(self, member: FrontMember, other: FrontMember) -> bool:
        """Whether all that the other could set a bar for, the member sets one for that is at least as high."""
        return member.quality >= other.quality and self._costs_no_more(member, other)

    def _costs_no_more(self, member: FrontMember, costs: Costs | FrontMember) -> bool:
        return all(mine <= other for mine, other in self._pairs(member, costs))

    def _costs_less(self, member: FrontMember, costs: Costs) -> bool:
        """Whether the member, which costs no more, dominates a policy of these costs and its own quality."""
        return any(mine < other for mine, other in self._pairs(member, costs))

    def _pairs(self, member: FrontMember, costs: Costs | FrontMember) -> list[tuple[float, float]]:
        spanning = [objective for objective in self._config.objectives if objective is not Objective.QUALITY]
        return [(cost_value(member, objective), cost_value(costs, objective)) for objective in spanning]
