"""Gradients on the calibration examples: how much the model's answers depend on each unit's output.

Shape letters: B batch, S sequence, T tokens, C classes, K input features, O output features, G groups, R columns of a
group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from evaluators.quality import StackedCalls
from evaluators.tasks.base import IGNORED
from search_spaces.units import Unit
from workers.calibrate import CalibrationError


def collect_fisher(
    model: nn.Module, units: Sequence[Unit], calls: Sequence[StackedCalls], *, seed: int = 0
) -> dict[str, Tensor]:
    """Sum outer products of gradients at each unit's output, in one backward pass over the examples.

    To second order the divergence between the answers before and after a small change of logits dz is half
    dz^T (diag(p) - p p^T) dz. One random vector e of signs for each answer gives a gradient v of
    sum_c sqrt(p_c) e_c (z_c - sum_k p_k z_k) whose outer products v v^T average to that matrix, seen from the unit's
    output. No labels are needed. Embeddings have a probe of their own, see `probe_of`.

    Args:
        model: The dense model.
        units: Units to watch.
        calls: The calibration split.
        seed: Seed of the signs.

    Returns:
        By unit name the matrix of shape (O, O), float64, scaled to a mean diagonal of 1; the identity where the answers
        do not depend on the unit.

    Raises:
        CalibrationError: A gradient is not finite.

    Reference: Martens and Grosse, K-FAC, 1503.05671, the factor of the outputs; Wang et al., EigenDamage, 1905.05934,
    for pruning by it. The estimate by signs is Hutchinson's.
    """
    generator, probe = torch.Generator().manual_seed(seed), probe_of(model)
    sums: dict[str, Tensor] = {}

    def add(unit: Unit, _output: Tensor, gradient: Tensor) -> None:
        gradient_TO = gradient.reshape(-1, gradient.shape[-1]).float()
        product_OO = (gradient_TO.T @ gradient_TO).double()
        sums[unit.name] = sums[unit.name] + product_OO if unit.name in sums else product_OO

    _backward(model, units, calls, lambda logits, _: probe(logits, generator), add, at_output=True)
    return {unit.name: _scaled(sums[unit.name], unit) for unit in units}


def collect_taylor(
    model: nn.Module, units: Sequence[Unit], calls: Sequence[StackedCalls], targets: Sequence[Tensor] | None
) -> dict[str, Tensor]:
    """Average over the examples by how much the loss would change without each group, to first order.

    For one example the change is |sum of w dL/dw| over the group's columns of the consumer, which equals the sum of
    h dL/dh over its inputs h, whatever the examples that share a backward pass.

    Args:
        model: The dense model.
        units: Units to watch.
        calls: The calibration split.
        targets: Of each call, shape (B,) or (B, S) with `IGNORED` where nothing is asked; None takes the model's own
            most likely answers.

    Returns:
        By unit name the saliency of each group, (G,), float64.

    Raises:
        CalibrationError: A gradient is not finite, or the model gives embeddings, which lose nothing to first order.

    Reference: Molchanov et al., 1611.06440, equations 6 to 8, and 1906.10771, equation 8.
    """
    if gives_embeddings(model):
        raise CalibrationError(
            "the Taylor saliency takes the gradient of a loss, and that of embeddings' distance from themselves is 0; "
            f"got {type(model).__name__}; take another saliency"
        )
    sums: dict[str, Tensor] = {}

    def add(unit: Unit, input: Tensor, gradient: Tensor) -> None:
        share_BGR = (input * gradient).double().flatten(1, -2).sum(1) if input.ndim > 2 else (input * gradient).double()
        saliency_G = share_BGR.view(len(input), unit.groups, -1).sum(2).abs().sum(0)
        sums[unit.name] = sums[unit.name] + saliency_G if unit.name in sums else saliency_G

    def loss(logits: Tensor, number: int) -> Tensor:
        wanted = logits.detach().argmax(-1) if targets is None else targets[number].to(logits.device)
        return nn.functional.cross_entropy(
            logits.float().flatten(0, -2), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    _backward(model, units, calls, loss, add, at_output=False)
    examples = sum(len(call.rows) for call in calls)
    for unit in units:
        _check_finite(sums[unit.name], unit)
    return {unit.name: sums[unit.name] / examples for unit in units}


def _backward(
    model: nn.Module,
    units: Sequence[Unit],
    calls: Sequence[StackedCalls],
    loss: Callable[[Tensor, int], Tensor],
    add: Callable[[Unit, Tensor, Tensor], None],
    *,
    at_output: bool,
) -> None:
    """Run forward and backward for each call; hand over each unit's consumer input or output, and its gradient."""
    seen: dict[str, Tensor] = {}
    device = next(model.parameters()).device
    with ExitStack() as stack, torch.inference_mode(False), torch.enable_grad():
        for unit in units:
            consumer = model.get_submodule(unit.consumer)
            if at_output:
                handle = consumer.register_forward_hook(partial(_see_output, seen, unit.name))
            else:
                handle = consumer.register_forward_pre_hook(partial(_see_input, seen, unit.name))
            stack.callback(handle.remove)
        for number, call in enumerate(calls):
            seen.clear()
            logits = model(**{name: tensor.to(device) for name, tensor in call.inputs.items()}).logits
            gradients = torch.autograd.grad(
                loss(logits, number), [seen[unit.name] for unit in units], materialize_grads=True
            )
            for unit, gradient in zip(units, gradients, strict=True):
                add(unit, seen[unit.name].detach(), gradient)


def _see_output(
    seen: dict[str, Tensor], name: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    seen[name] = output if output.requires_grad else output.requires_grad_()


def _see_input(seen: dict[str, Tensor], name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    seen[name] = inputs[0] if inputs[0].requires_grad else inputs[0].requires_grad_()


def gives_embeddings(model: nn.Module) -> bool:
    """Whether a model's outputs are embeddings, and no logits."""
    return bool(getattr(model, "gives_embeddings", False))


def probe_of(model: nn.Module) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The probe whose gradients tell how far a change moves the model's outputs: by divergence, or by cosine."""
    return direction_probe if gives_embeddings(model) else sign_probe


def direction_probe(embeddings: Tensor, generator: torch.Generator) -> Tensor:
    """A scalar whose gradients' outer products average to the second derivative of the cosine distance.

    To second order the distance of an embedding from itself after a small change is half the squared change of its
    direction, whatever its length.
    """
    directions = nn.functional.normalize(embeddings.float(), dim=-1)
    signs = torch.randint(2, directions.shape, generator=generator).to(directions) * 2 - 1
    return (signs * directions).sum()


def sign_probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A scalar whose gradients' outer products average to the divergence's second derivative; see `collect_fisher`."""
    logits = logits.float()
    share = logits.detach().softmax(-1)
    signs = torch.randint(2, logits.shape, generator=generator).to(logits) * 2 - 1
    centred = logits - (share * logits).sum(-1, keepdim=True)
    return (share.sqrt() * signs * centred).sum()


def _scaled(product_OO: Tensor, unit: Unit) -> Tensor:
    _check_finite(product_OO, unit)
    mean = float(product_OO.diagonal().mean())
    if mean <= 0:
        return torch.eye(len(product_OO), dtype=product_OO.dtype, device=product_OO.device)
    return product_OO / mean


def _check_finite(total: Tensor, unit: Unit) -> None:
    if not bool(total.isfinite().all()):
        raise CalibrationError(
            f"gradients at unit {unit.name} must be finite; got NaN or infinity on the calibration data; check the "
            "model's weights and the data"
        )
