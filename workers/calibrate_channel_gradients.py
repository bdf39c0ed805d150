"""Gradients on the calibration examples for layers between channels: how much answers depend on them.

Shape letters: B batch, C input channels, O output channels, P places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit
from workers.calibrate import CalibrationError
from workers.calibrate_gradients import sign_probe


def collect_channel_fisher(
    model: nn.Module, units: Sequence[ChannelUnit], calls: Sequence[StackedCalls], *, seed: int = 0
) -> dict[str, Tensor]:
    """Sum squared gradients at each layer's output over examples and places, in one backward pass.

    Times the mean squared error of a place they give the divergence of the answers that the error causes, up to a
    factor that is the same for all layers: so errors of different layers can be added up.

    Args:
        model: The dense model, folded.
        units: Its units.
        calls: The calibration split.
        seed: Seed of the signs.

    Returns:
        By layer name, (O,), float64; none for depthwise layers.

    Raises:
        CalibrationError: A gradient is not finite.

    Reference: `workers.calibrate_gradients.collect_fisher`, of which this is the diagonal.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = _readers(units)
    found = {layer.layer: torch.zeros(layer.out_channels, dtype=torch.float64) for layer in layers}
    seen: dict[str, Tensor] = {}

    def see(name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name] = output if output.requires_grad else output.requires_grad_()

    with ExitStack() as stack:
        for name in found:
            stack.callback(model.get_submodule(name).register_forward_hook(partial(see, name)).remove)
        for gradients in _backward(model, calls, seen, lambda logits: sign_probe(logits, generator)):
            for name, gradient in gradients.items():
                found[name] += gradient.double().square().transpose(0, 1).flatten(1).sum(1)
    return _finite(found)


def collect_channel_taylor(
    model: nn.Module, units: Sequence[ChannelUnit], calls: Sequence[StackedCalls]
) -> dict[str, Tensor]:
    """Average over the examples by how much the loss would change without each channel, to first order.

    The loss is that of the model's own most likely answers.

    Returns:
        By unit name the saliency of each channel, (C,), float64.

    Raises:
        CalibrationError: A gradient is not finite.

    Reference: Molchanov et al., 1611.06440, equations 6 to 8, and 1906.10771, equation 8.
    """
    unit_of = {layer.layer: str(layer.columns) for layer in _readers(units) if layer.columns is not None}
    found = {unit.name: torch.zeros(unit.groups, dtype=torch.float64) for unit in units}
    seen: dict[str, Tensor] = {}

    def see(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # Layers that read the same map get gradients of their own.
        input = inputs[0].view_as(inputs[0])
        seen[name] = input if input.requires_grad else input.requires_grad_()
        return (seen[name],)

    with ExitStack() as stack:
        for name in unit_of:
            stack.callback(model.get_submodule(name).register_forward_pre_hook(partial(see, name)).remove)
        for gradients in _backward(model, calls, seen, _own_answers):
            shares: dict[str, Tensor] = {}
            for name, gradient in gradients.items():
                share_BC = (
                    (seen[name].detach() * gradient).double().flatten(2).sum(2)
                    if gradient.ndim > 2
                    else (seen[name].detach() * gradient).double()
                )
                shares[unit_of[name]] = shares.get(unit_of[name], torch.zeros(())) + share_BC
            for unit, share_BC in shares.items():
                found[unit] += share_BC.abs().sum(0)
    examples = sum(len(call.rows) for call in calls)
    return {unit: total / examples for unit, total in _finite(found).items()}


def _readers(units: Sequence[ChannelUnit]) -> list[ChannelLayer]:
    layers = (layer for unit in units for layer in unit.channel_layers)
    return [layer for layer in layers if layer.kind is not ChannelLayerKind.DEPTHWISE]


def _backward(
    model: nn.Module, calls: Sequence[StackedCalls], seen: Mapping[str, Tensor], loss: Callable[[Tensor], Tensor]
) -> Iterator[dict[str, Tensor]]:
    """For each call, gradients with respect to what the hooks have seen."""
    with torch.inference_mode(False), torch.enable_grad():
        for call in calls:
            total = loss(model(**call.inputs).logits)
            gradients = torch.autograd.grad(total, list(seen.values()), materialize_grads=True)
            yield dict(zip(seen, gradients, strict=True))


def _own_answers(logits: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), logits.detach().argmax(-1), reduction="sum")


def _finite(found: dict[str, Tensor]) -> dict[str, Tensor]:
    for name, total in found.items():
        if not bool(total.isfinite().all()):
            raise CalibrationError(
                f"gradients at {name} must be finite; got NaN or infinity on the calibration data; check the model's "
                "weights and the data"
            )
    return found
