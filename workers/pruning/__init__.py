"""Structured pruning: which groups of a unit stay, and what the output projection becomes without the others."""

from workers.pruning.groups import LayerWeights, PrunedUnit, PruningError, Saliency, prune_unit, removal_order

__all__ = ["LayerWeights", "PrunedUnit", "PruningError", "Saliency", "prune_unit", "removal_order"]
