"""Architectures: one small module each, which declares the units of its models."""

from search_spaces.architectures import bert, vit  # noqa: F401  (importing a module registers it)
from search_spaces.architectures.base import ARCHITECTURES, Architecture, UnsupportedModelError, structure_of

__all__ = ["ARCHITECTURES", "Architecture", "UnsupportedModelError", "structure_of"]
