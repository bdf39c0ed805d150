"""Configurations of models whose layers all agree in width: transformers builds these by itself."""

from __future__ import annotations

import copy
from typing import Any

from search_spaces.policy import Policy
from search_spaces.units import ModelStructure, UnitKind

_HIDDEN_WIDTHS = ("intermediate_size", "hidden_dim", "d_ff")


def narrowed(config: Any, structure: ModelStructure, policy: Policy) -> Any:
    """Copy a configuration, with the widths that all units of a kind have under the policy.

    What can't be said in a configuration stays as it is, so the copy may still not fit.

    Args:
        config: The dense model's.
        structure: Its units.
        policy: A choice for each.
    """
    found = copy.deepcopy(config)
    units = {kind: [unit for unit in structure.units if unit.kind is kind] for kind in UnitKind}
    hidden = {policy[unit.name].keep for unit in units[UnitKind.FEED_FORWARD]}
    name = next((name for name in _HIDDEN_WIDTHS if getattr(config, name, None)), None)
    if name is not None and len(hidden) == 1 and 0 not in hidden:
        setattr(found, name, hidden.pop())
    heads = {policy[unit.name].keep for unit in units[UnitKind.ATTENTION]}
    dense = getattr(config, "num_key_value_heads", None)
    if dense and len(heads) == 1 and 0 not in heads:
        queries, size = config.num_attention_heads // dense, _head_size(config)
        found.num_key_value_heads = heads.pop()
        found.num_attention_heads = queries * found.num_key_value_heads
        found.head_dim = size
    return found


def _head_size(config: Any) -> int:
    """Features of a head, which a configuration may leave to follow from the count of heads."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
