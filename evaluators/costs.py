"""What a policy costs on the target: latency and energy by table, size and memory by counting."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from evaluators.channel_size import layer_bytes
from evaluators.energy import EnergyPredictor
from evaluators.latency.lookup import LatencyPredictor
from evaluators.latency.policy_table import PolicyTable
from evaluators.latency.working_set import working_set_bytes
from evaluators.latency.workload import fixed_operators, layer_operators, unit_operators
from evaluators.memory import MemoryPlan, PeakMemory
from evaluators.scores import Costs
from evaluators.size import size_bytes, unit_bytes
from search_spaces.channels import ChannelUnit, CutLayer, reachable_cuts
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace
from search_spaces.units import ModelStructure, Unit


class CostModel:
    """Knows the costs of every policy of a model on one target without running it.

    Args:
        structure: Units of the model.
        predictor: Latency of the target's workload.
        memory_plan: How the target's runtime holds tensors.
    """

    def __init__(
        self,
        structure: ModelStructure,
        predictor: LatencyPredictor,
        memory_plan: MemoryPlan = MemoryPlan.REUSED,
    ) -> None:
        self.structure = structure
        self.predictor = predictor
        self.energy = EnergyPredictor(predictor)
        self.memory = PeakMemory(structure, predictor.workload, memory_plan)

    def __call__(self, policy: Policy) -> Costs:
        """All costs of a policy; see `costs`."""
        return self.costs(policy)

    def latency_table(self, choices: Mapping[str, Sequence[Choice]]) -> PolicyTable:
        """Return what prices many policies at once.

        Args:
            choices: What each unit may choose, by its name.

        Raises:
            MissingEntryError: The table lacks an operator of the choices.
        """
        return PolicyTable(self.structure, self.predictor, choices)

    def costs(self, policy: Policy) -> Costs:
        """All costs of a policy.

        Raises:
            MissingEntryError: The table lacks an operator of the policy.
        """
        return Costs(
            latency_ms=self.predictor.policy_ms(self.structure, policy),
            size_bytes=size_bytes(self.structure, policy),
            energy_mj=self.energy.policy_mj(self.structure, policy),
            energy_basis=self.energy.basis,
            peak_memory_bytes=self.memory.policy_bytes(policy),
        )


def least_size_bytes(space: SearchSpace) -> int:
    """Bytes that no policy of the space goes below; where units share no layers, one policy reaches them."""
    return round(_least(space, lambda _: space.structure.fixed_bytes, unit_bytes, layer_bytes))


def least_latency_ms(space: SearchSpace, predictor: LatencyPredictor) -> float:
    """Time that no policy of the space goes below; where units share no layers and the table has no cache curves, one
    policy reaches it.

    Raises:
        MissingEntryError: The table lacks an operator of the space.
    """
    inside = predictor.at(_least_weights(space, predictor))
    return _least(space, partial(inside.fixed_ms, space.structure), inside.unit_ms, inside.layer_ms)


def least_energy_mj(space: SearchSpace, energy: EnergyPredictor) -> float:
    """Energy that no policy of the space goes below; where units share no layers and power was not measured, one policy
    reaches it.
    """
    inside = energy.at(0)
    return _least(space, partial(inside.fixed_mj, space.structure), inside.unit_mj, inside.layer_mj)


def _least_weights(space: SearchSpace, predictor: LatencyPredictor) -> float:
    """Bytes of weights in the caches that no policy of the space goes below."""
    workload = predictor.workload

    def fixed(policy: Policy) -> float:
        return working_set_bytes(fixed_operators(space.structure, workload, policy).items())

    def of_unit(unit: Unit, choice: Choice) -> float:
        return working_set_bytes(unit_operators(unit, choice, workload).items())

    def of_layer(cut: CutLayer) -> float:
        return working_set_bytes(layer_operators(cut, workload).items())

    return _least(space, fixed, of_unit, of_layer)


def _least(
    space: SearchSpace,
    fixed_cost: Callable[[Policy], float],
    unit_cost: Callable[[Unit, Choice], float],
    layer_cost: Callable[[CutLayer], float],
) -> float:
    """The least sum of what units cost; of layers between channels each takes what is least for itself."""
    choices = {unit_space.unit.name: space.choices(unit_space.unit.name) for unit_space in space.unit_spaces}
    cheapest: dict[str, Choice] = {}
    found = 0.0
    for unit_space in space.unit_spaces:
        unit = unit_space.unit
        offered = choices[unit.name]
        if isinstance(unit, ChannelUnit):
            cheapest[unit.name] = min(offered, key=lambda choice: choice.keep)
            found += sum(
                min(layer_cost(cut) for cut in reachable_cuts(layer, choices, space.base_format))
                for layer in unit.channel_layers
            )
        else:
            cheapest[unit.name] = min(offered, key=partial(unit_cost, unit))
            found += unit_cost(unit, cheapest[unit.name])
    return found + fixed_cost(Policy(cheapest))
