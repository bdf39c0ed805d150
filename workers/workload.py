"""The workload that a target's section of a job means for a model."""

from evaluators.latency.workload import Workload
from search_spaces.units import ModelStructure
from workers.targets.base import TargetConfig


class WorkloadError(ValueError):
    """The target's workload does not fit the model."""


def workload_of(target: TargetConfig, structure: ModelStructure) -> Workload:
    """Batch and tokens of one call on the target.

    Raises:
        WorkloadError: The sequence length is missing, too long, or given where the model fixes it.
    """
    length = target.sequence_length
    if structure.tokens is not None:
        if length not in (None, structure.tokens):
            raise WorkloadError(
                f"the model fixes {structure.tokens} tokens for each example; got target.sequence_length={length}; "
                "leave it out"
            )
        length = structure.tokens
    if length is None:
        raise WorkloadError("the latency of a text model depends on its length; set target.sequence_length (tokens)")
    if structure.max_tokens is not None and length > structure.max_tokens:
        raise WorkloadError(
            f"target.sequence_length is at most {structure.max_tokens} for this model; got {length}; write "
            f"{structure.max_tokens} or less, or take a model of more positions"
        )
    return Workload(batch=target.batch, sequence_length=length)
