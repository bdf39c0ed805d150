"""How sharply the model's answers depend on each unit's weights: traces of the Fisher information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.units import Unit
from workers.calibrate import CalibrationError
from workers.calibrate_gradients import probe_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Curvature:
    """Of one unit.

    Attributes:
        trace: Trace of the Fisher information of all its weights, per example.
        weights: How many weights that is.
    """

    trace: float
    weights: int


def fisher_traces(
    model: nn.Module, units: Sequence[Unit], calls: Sequence[StackedCalls], *, seed: int = 0
) -> dict[str, Curvature]:
    """Estimate the trace of the Fisher information of each unit's weights, in one backward pass over the examples.

    The Fisher information of the model's own answers is the Gauss-Newton part of the Hessian of the divergence from
    the dense model, and at the dense model all of it: half the trace, weighted by the squared change of the weights,
    is the divergence that a small change causes. The squared gradient of a sum of logits under random signs (see
    `sign_probe`) has it as its mean. Signs of different answers are independent, so a call needs but one gradient. Of
    embeddings it is the second derivative of the cosine distance.

    Args:
        model: The dense model.
        units: Units to look at.
        calls: The calibration split.
        seed: Seed of the signs.

    Returns:
        By unit name; biases do not count.

    Raises:
        CalibrationError: A gradient is not finite.

    Reference: Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990; Dong et al., HAWQ-V2,
    1911.03852, for sensitivity by traces; Martens, 1412.1193, section 5, for Fisher and Gauss-Newton.
    """
    generator, probe = torch.Generator().manual_seed(seed), probe_of(model)
    names = list(dict.fromkeys(layer for unit in units for layer in unit.layers))
    weights = [_weight_of(model, name) for name in names]
    squares = dict.fromkeys(names, 0.0)
    device = next(model.parameters()).device
    with torch.inference_mode(False), torch.enable_grad():
        for call in calls:
            logits = model(**{key: tensor.to(device) for key, tensor in call.inputs.items()}).logits
            gradients = torch.autograd.grad(probe(logits, generator), weights, materialize_grads=True)
            for name, gradient in zip(names, gradients, strict=True):
                squares[name] += float(gradient.double().square().sum())
    examples = sum(len(call.rows) for call in calls)
    sizes = {name: weight.numel() for name, weight in zip(names, weights, strict=True)}
    return {unit.name: _sum_up(unit, squares, sizes, examples) for unit in units}


def _weight_of(model: nn.Module, layer: str) -> Tensor:
    weight = model.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight.requires_grad_()


def _sum_up(unit: Unit, squares: dict[str, float], sizes: dict[str, int], examples: int) -> Curvature:
    trace = sum(squares[layer] for layer in unit.layers) / examples
    if not torch.isfinite(torch.tensor(trace)):
        raise CalibrationError(
            f"gradients of unit {unit.name} must be finite; got {trace} on the calibration data; check the model's "
            "weights and the data"
        )
    return Curvature(trace=trace, weights=sum(sizes[layer] for layer in unit.layers))
