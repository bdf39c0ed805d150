"""Structured pruning: which groups of a unit stay, and what the output projection becomes without the others."""

from workers.pruning.groups import PrunedUnit, PruningError, check_finite, prune_unit, removal_order
from workers.pruning.saliency import LayerWeights, Saliency

__all__ = ["LayerWeights", "PrunedUnit", "PruningError", "Saliency", "check_finite", "prune_unit", "removal_order"]
