"""Losses of recovery training. Shape letters: B batch, S sequence, C classes, T targets, D features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from evaluators.tasks.base import IGNORED

_LEAST_POWER = 1e-8


def scored(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and targets that count, one after the other.

    Args:
        logits: Shape (B, C) or (B, S, C).
        targets: Shape (B) or (B, S), `IGNORED` where nothing is asked.

    Returns:
        Logits of shape (T, C), targets of shape (T,).
    """
    wanted = targets != IGNORED
    return logits[wanted], targets[wanted]


def task_loss(logits_TC: Tensor, targets_T: Tensor) -> Tensor:
    """Mean cross-entropy with the labels, in nats a target."""
    return functional.cross_entropy(logits_TC.float(), targets_T)


def distillation_loss(logits_TC: Tensor, teacher_TC: Tensor, *, temperature: float) -> Tensor:
    """Mean divergence KL(teacher || student) of distributions softened by a temperature, times its square.

    Args:
        logits_TC: The student's logits.
        teacher_TC: The teacher's.
        temperature: Above 0; above 1 shows more of what the teacher holds for unlikely.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network (1503.02531), section 2.
    """
    student_TC = functional.log_softmax(logits_TC.float() / temperature, -1)
    wanted_TC = functional.log_softmax(teacher_TC.float() / temperature, -1)
    return temperature**2 * functional.kl_div(student_TC, wanted_TC, reduction="batchmean", log_target=True)


def embedding_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean cosine distance of embeddings from the teacher's.

    Args:
        student_BD: The student's embeddings.
        teacher_BD: The teacher's.
    """
    return (1 - functional.cosine_similarity(student_BD.float(), teacher_BD.float(), dim=-1)).mean()


def hidden_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], mask_BS: Tensor | None) -> Tensor:
    """Mean over layers of the squared error of hidden states, relative to the teacher's mean square.

    Args:
        student: Hidden states of each layer, shape (B, S, D), or of any shape where nothing is padded.
        teacher: Likewise.
        mask_BS: 1 where a token is no padding; None where all count.

    Raises:
        ValueError: The two have other layers or widths.

    Reference:
        Jiao et al., TinyBERT (1909.10351), equation 8, without the projection, as widths of the residual stream agree.
    """
    shapes = [tuple(state.shape) for state in student], [tuple(state.shape) for state in teacher]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"hidden states are compared between layers of one shape; got {shapes[0]} for {shapes[1]}; set hidden: 0"
        )
    parts = []
    for state, wanted in zip(student, teacher, strict=True):
        error, power = (state.float() - wanted.float()).square(), wanted.float().square()
        if mask_BS is not None and state.ndim == mask_BS.ndim + 1:
            error, power = error[mask_BS.bool()], power[mask_BS.bool()]
        parts.append(error.mean() / power.mean().clamp(min=_LEAST_POWER))
    return torch.stack(parts).mean()


def quantization_loss(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean over layers of the squared distance of weights from what their codes stand for, relative to their square.

    Args:
        pairs: (weight, rounded weight) of each layer; no gradient flows into the latter.
    """
    parts = [
        (weight - rounded.detach()).square().sum() / weight.detach().square().sum().clamp(min=_LEAST_POWER)
        for weight, rounded in pairs
    ]
    return torch.stack(parts).mean()
