"""What a policy costs on the target: latency by table, size by counting."""

from evaluators.latency.lookup import LatencyPredictor
from evaluators.scores import Costs
from evaluators.size import size_bytes
from search_spaces.policy import Policy
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
