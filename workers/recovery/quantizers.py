"""Rounding that lets gradients through, with steps that are learned.

Shape letters: O output features, N blocks of input features, G columns of a block, K input features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from search_spaces.formats import Format
from workers.quantization.codes import FLOAT8_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRange:
    """Codes of a format.

    Attributes:
        low: Smallest code.
        high: Largest code.
        is_float8: Whether codes are e4m3 numbers; else they are integers.
    """

    low: int
    high: int
    is_float8: bool = False

    @classmethod
    def of(cls, target: Format) -> CodeRange:
        """Codes that `workers.quantization.codes.fit_grid` uses."""
        if target.is_float8:
            return cls(low=-FLOAT8_MAX, high=FLOAT8_MAX, is_float8=True)
        levels = 2**target.weight_bits - 1
        return cls(low=-(levels // 2), high=levels // 2) if target.symmetric else cls(low=0, high=levels)

    def nearest(self, steps: Tensor, zeros: Tensor) -> tuple[Tensor, Tensor]:
        """Codes next to weights, as float32, and whether each is what it would be in a larger range.

        Args:
            steps: Weights in units of their scale.
            zeros: Codes of the value 0.
        """
        if self.is_float8:
            clamped = steps.clamp(self.low, self.high)
            return clamped.to(torch.float8_e4m3fn).float(), clamped == steps
        nearest = steps.round() + zeros
        clamped = nearest.clamp(self.low, self.high)
        return clamped, clamped == nearest


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """Return `rounded`, with the gradient as if it were `value`.

    Reference:
        Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons (1308.3432), section 4.
    """
    found: Tensor = _StraightThrough.apply(value, rounded)  # type: ignore[no-untyped-call]
    return found


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, weight_ONG: Tensor, scale_ON1: Tensor, zeros_ON1: Tensor, codes: CodeRange) -> Tensor:
        steps_ONG = weight_ONG / scale_ON1
        codes_ONG, inside_ONG = codes.nearest(steps_ONG, zeros_ON1)
        rounded_ONG = codes_ONG - zeros_ON1
        per_scale = weight_ONG.numel() // scale_ON1.numel()
        context.save_for_backward(steps_ONG, rounded_ONG, inside_ONG, scale_ON1)
        context.step_size = 1 / math.sqrt(per_scale * codes.high)
        return rounded_ONG * scale_ON1

    @staticmethod
    def backward(context: Any, gradient_ONG: Tensor) -> tuple[Tensor, Tensor, None, None]:
        steps_ONG, rounded_ONG, inside_ONG, scale_ON1 = context.saved_tensors
        by_scale_ONG = gradient_ONG * (rounded_ONG - steps_ONG * inside_ONG)
        return gradient_ONG * inside_ONG, by_scale_ONG.sum_to_size(scale_ON1.shape) * context.step_size, None, None


def round_to_learned_steps(
    weight_OK: Tensor, scale_ON: Tensor, zeros_ON: Tensor | None, codes: CodeRange, *, block: int
) -> Tensor:
    """Round a weight to its codes; gradients reach the weight and its scales.

    A weight whose code is not clamped passes its gradient on, and moves the scale by (code - weight / scale); one that
    is clamped moves the scale alone, by its code. Gradients of scales are divided by the root of weights a scale times
    largest code.

    Args:
        weight_OK: float32.
        scale_ON: Step of each row and block, above 0; one row of them serves all.
        zeros_ON: Codes of the value 0; None for 0.
        codes: Codes that there are.
        block: Columns that share a scale.

    Returns:
        The values that the codes stand for, float32 of shape (O, K).

    Reference:
        Esser et al., Learned Step Size Quantization (1902.08153), equations 1 to 3 and section 2.2.
    """
    scale_ON1, zeros_ON1 = _columns(scale_ON), _zeros(scale_ON, zeros_ON)
    rounded: Tensor = _LearnedStep.apply(_blocks(weight_OK, block), scale_ON1, zeros_ON1, codes)  # type: ignore[no-untyped-call]
    return rounded.flatten(1)[:, : weight_OK.shape[1]]


def codes_at_steps(
    weight_OK: Tensor, scale_ON: Tensor, zeros_ON: Tensor | None, codes: CodeRange, *, block: int
) -> Tensor:
    """The codes whose values `round_to_learned_steps` returns, as float32 of shape (O, K)."""
    steps_ONG = _blocks(weight_OK, block) / _columns(scale_ON)
    codes_ONG, _ = codes.nearest(steps_ONG, _zeros(scale_ON, zeros_ON))
    return codes_ONG.flatten(1)[:, : weight_OK.shape[1]]


def _blocks(weight_OK: Tensor, block: int) -> Tensor:
    return functional.pad(weight_OK, (0, -weight_OK.shape[1] % block)).view(len(weight_OK), -1, block)


def _columns(scale_ON: Tensor) -> Tensor:
    return scale_ON[..., None]


def _zeros(scale_ON: Tensor, zeros_ON: Tensor | None) -> Tensor:
    return _columns(torch.zeros_like(scale_ON) if zeros_ON is None else zeros_ON.to(scale_ON))
