"""Architectures: one small module each, which declares the units of its models."""

from search_spaces.architectures import (  # noqa: F401  (importing registers them)
    bert,
    decoder,
    distilbert,
    mobilenet_v2,
    resnet,
    t5,
    vit,
)
from search_spaces.architectures.base import (
    ARCHITECTURES,
    Architecture,
    UnsupportedModelError,
    outlined_structure,
    structure_of,
)

__all__ = ["ARCHITECTURES", "Architecture", "UnsupportedModelError", "outlined_structure", "structure_of"]
