"""What a sampler may know of a study before its first proposal, and the notes it exchanges with the study."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from controller.job import Constraints, Objective
from evaluators.scores import Costs
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace

RUNG = "paretrim:rung"
"""System attribute: the sampler wants the policy scored on the examples of this rung only, 0 being the fewest."""
SHARE = "paretrim:share"
"""User attribute of a finished trial: share of the examples behind its quality; 1 where it is missing."""
DIVERGENCE = "paretrim:kl_to_dense"
"""User attribute of a finished trial: divergence of the outputs from the dense model's, in nats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerContext:
    """What a sampler is made from.

    Attributes:
        seed: Seed of the proposals.
        space: What it chooses from.
        cost_of: Exact costs of a policy, known without a trial.
        objectives: What the study's values mean, in their order.
        constraints: Bounds that a policy must meet.
        chance_quality: Quality of guessing.
        may_probe: Whether policies may be asked for on few examples first; not where every trial is counted.
    """

    seed: int
    space: SearchSpace
    cost_of: Callable[[Policy], Costs]
    objectives: tuple[Objective, ...] = (Objective.QUALITY, Objective.LATENCY_MS)
    constraints: Constraints = field(default_factory=Constraints)
    chance_quality: float = 0.0
    may_probe: bool = True


def want_rung(study: optuna.Study, trial: FrozenTrial, rung: int) -> None:
    """Note that a trial is a cheap one: scored on the examples of a rung, and never on the front."""
    study._storage.set_trial_system_attr(trial._trial_id, RUNG, rung)


def wanted_rung(attributes: dict[str, Any]) -> int | None:
    """Return the rung that a sampler wants for a trial with these system attributes; None for all examples."""
    return attributes.get(RUNG)


def share_of(trial: FrozenTrial) -> float:
    """Return the share of the examples behind a finished trial's quality, above 0 to 1."""
    return float(trial.user_attrs.get(SHARE, 1.0))


def divergence_of(trial: FrozenTrial) -> float | None:
    """Return a finished trial's divergence from the dense model in nats; None where the study does not tell it."""
    found = trial.user_attrs.get(DIVERGENCE)
    return None if found is None else float(found)
