"""What changes over a training: loss weights, temperature, learning rate, bits. Pure functions of its progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

from workers.recovery.config import QuantizationMode, RecoveryConfig

_WARM_SHARE = 0.1
_STAGED_FROM = 0.5
_STAGES_BITS = (16, 8, 4)
_LAST_STAGE_SHARE = 0.5
"""The last stage of progressive bits gets this share of the training; those before it share the rest alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the parts of the loss at one moment.

    Attributes:
        task: Of the labels.
        distillation: Of the dense model's answers.
        quantization: Of the distance from codes.
        temperature: Of the distillation.
    """

    task: float
    distillation: float
    quantization: float
    temperature: float


def loss_weights(config: RecoveryConfig, progress: float) -> LossWeights:
    """Weights at a moment: distillation from the start, labels later, the temperature falling.

    Args:
        config: The training.
        progress: Share of its steps that are done, 0 to 1.
    """
    labels = max(0.0, progress - config.labels_from) / (1 - config.labels_from)
    # Without a teacher nothing else would be learned before the labels count.
    task = config.alpha * (labels if config.beta else 1.0)
    temperature = config.temperature + (config.last_temperature - config.temperature) * progress
    return LossWeights(task=task, distillation=config.beta, quantization=config.gamma, temperature=temperature)


def learning_rate(peak: float, progress: float) -> float:
    """A linear rise over the first tenth, then half a cosine down to 0."""
    if progress < _WARM_SHARE:
        return peak * (progress + 1e-2) / (_WARM_SHARE + 1e-2)
    return peak * (1 + math.cos(math.pi * (progress - _WARM_SHARE) / (1 - _WARM_SHARE))) / 2


def weight_bits(mode: QuantizationMode, progress: float, *, target_bits: int, least_bits: int) -> int | None:
    """Bits that a layer's weights are rounded to at a moment; None leaves them and its inputs as they are.

    Args:
        mode: How rounding sets in.
        progress: Share of the steps that are done, 0 to 1.
        target_bits: Bits of the layer's format.
        least_bits: Fewest bits of any layer, which decide how many stages there are.
    """
    match mode:
        case QuantizationMode.JOINT:
            return target_bits
        case QuantizationMode.OFF:
            return None
        case QuantizationMode.STAGED:
            return target_bits if progress >= _STAGED_FROM else None
        case QuantizationMode.PROGRESSIVE:
            stages = [bits for bits in _STAGES_BITS if bits > least_bits]
            place = int(progress / _LAST_STAGE_SHARE * len(stages)) if stages else 0
            return max(target_bits, stages[place]) if place < len(stages) else target_bits
