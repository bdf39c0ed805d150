"""The head of an early exit: what it computes, and how it is fitted to the whole model's answers.

Shape letters: B batch, S sequence, H hidden width, C classes, N examples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHT_DECAY = 1e-2
"""Factor of the squared weights in the loss: there are few examples for as many weights as a model is wide."""
_MOST_STEPS = 200


class ExitHead(nn.Module):
    """A linear layer on the mean of an example's tokens.

    The mean and not the first token: blocks before the last gather little in the token that the model's own head reads.

    Args:
        weight_CH: Weights on standardised means.
        bias_C: Bias.
    """

    weight_CH: Tensor
    bias_C: Tensor

    def __init__(self, weight_CH: Tensor, bias_C: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight_CH", weight_CH)
        self.register_buffer("bias_C", bias_C)

    def forward(self, hidden_BSH: Tensor, mask_BS: Tensor | None) -> Tensor:
        """Classify hidden states; see `pool` for the mask. Returns logits of shape (B, C)."""
        return self.classify(pool(hidden_BSH, mask_BS))

    def classify(self, pooled_BH: Tensor) -> Tensor:
        """Classify what `pool` returned; shape (B, C)."""
        return functional.linear(pooled_BH, self.weight_CH, self.bias_C)


def pool(hidden_BSH: Tensor, mask_BS: Tensor | None) -> Tensor:
    """Return the mean over tokens, standardised by example; shape (B, H).

    Args:
        hidden_BSH: What a block returned.
        mask_BS: 1 for tokens that count and 0 for padding; None where all count.
    """
    if mask_BS is None:
        mean_BH = hidden_BSH.mean(1)
    else:
        weight_BS = mask_BS.to(hidden_BSH.dtype)
        mean_BH = (hidden_BSH * weight_BS[..., None]).sum(1) / weight_BS.sum(1, keepdim=True).clamp(min=1)
    return functional.layer_norm(mean_BH, mean_BH.shape[-1:])


def entropy(logits_BC: Tensor) -> Tensor:
    """Return the entropy of the classes' probabilities in nats, shape (B,)."""
    log_BC = logits_BC.log_softmax(-1)
    return -(log_BC.exp() * log_BC).sum(-1)


def fit_head(pooled_NH: Tensor, whole_NC: Tensor) -> ExitHead:
    """Fit a head to the whole model's probabilities; no label is looked at, and the solution is the only one.

    Args:
        pooled_NH: What `pool` gives for each example.
        whole_NC: Logits of the whole model on the same examples.
    """
    pooled, target = pooled_NH.detach().clone().double(), whole_NC.detach().clone().double().softmax(-1)
    weight_CH = torch.zeros(target.shape[1], pooled.shape[1], dtype=torch.float64, requires_grad=True)
    bias_C = torch.zeros(target.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_CH, bias_C], max_iter=_MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits_NC = functional.linear(pooled, weight_CH, bias_C)
        value = functional.cross_entropy(logits_NC, target) + WEIGHT_DECAY * weight_CH.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return ExitHead(weight_CH.detach().float(), bias_C.detach().float())
