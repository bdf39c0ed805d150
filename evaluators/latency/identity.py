"""Which models a correction holds for: those that do the same work in their units."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import lru_cache

from evaluators.latency.workload import Operator, Workload, policy_operators
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure

_DIGITS = 12
_ONE_TOKEN = Workload(batch=1, sequence_length=1)


@lru_cache(maxsize=64)
def model_name(structure: ModelStructure) -> str:
    """Return the name of all models that do a model's work ("bert-0f3a5c7e9b1d").

    It is made of the dense units' operators. So two fine-tuned versions of a model share it whatever their labels and
    words, and a model of another width or depth has another.

    Args:
        structure: Units of the model, and the format that they are dense in.
    """
    dense = Policy({unit.name: Choice(unit.groups, structure.base_format) for unit in structure.units})
    counts: Counter[Operator] = Counter()
    for unit in structure.units:
        counts.update(policy_operators(unit, dense, structure.base_format, _ONE_TOKEN))
    work = sorted((str(operator), count) for operator, count in counts.items())
    text = json.dumps([structure.base_format, work], separators=(",", ":"))
    return f"{structure.architecture}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"
