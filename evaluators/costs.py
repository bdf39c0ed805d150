"""What a policy costs on the target: latency by table, size by counting."""

from evaluators.channel_size import layer_bytes
from evaluators.latency.lookup import LatencyPredictor
from evaluators.scores import Costs
from evaluators.size import size_bytes, unit_bytes
from search_spaces.channels import ChannelUnit, reachable_cuts
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace
from search_spaces.units import ModelStructure


class CostModel:
    """Knows the costs of every policy of a model on one target without running it.

    Args:
        structure: Units of the model.
        predictor: Latency of the target's workload.
    """

    def __init__(self, structure: ModelStructure, predictor: LatencyPredictor) -> None:
        self.structure = structure
        self.predictor = predictor

    def costs(self, policy: Policy) -> Costs:
        """Latency and size of a policy.

        Raises:
            MissingEntryError: The table lacks an operator of the policy.
        """
        return Costs(
            latency_ms=self.predictor.policy_ms(self.structure, policy), size_bytes=size_bytes(self.structure, policy)
        )


def least_size_bytes(space: SearchSpace) -> int:
    """Bytes that no policy of the space goes below; where units share no layers, one policy reaches them."""
    choices = {unit_space.unit.name: space.choices(unit_space.unit.name) for unit_space in space.unit_spaces}
    found = space.structure.fixed_bytes
    for unit_space in space.unit_spaces:
        unit = unit_space.unit
        if isinstance(unit, ChannelUnit):
            found += sum(
                min(layer_bytes(cut) for cut in reachable_cuts(layer, choices, space.base_format))
                for layer in unit.channel_layers
            )
        else:
            found += min(unit_bytes(unit, choice) for choice in choices[unit.name])
    return found


def least_latency_ms(space: SearchSpace, predictor: LatencyPredictor) -> float:
    """Time that no policy of the space goes below; where units share no layers, one policy reaches it.

    Raises:
        MissingEntryError: The table lacks an operator of the space.
    """
    choices = {unit_space.unit.name: space.choices(unit_space.unit.name) for unit_space in space.unit_spaces}
    found = predictor.fixed_ms(space.structure)
    for unit_space in space.unit_spaces:
        unit = unit_space.unit
        if isinstance(unit, ChannelUnit):
            found += sum(
                min(predictor.layer_ms(cut) for cut in reachable_cuts(layer, choices, space.base_format))
                for layer in unit.channel_layers
            )
        else:
            found += min(predictor.unit_ms(unit, choice) for choice in choices[unit.name])
    return found
