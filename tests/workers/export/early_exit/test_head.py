"""The head of an exit, against its definitions."""

import numpy as np
import pytest
import torch

from workers.export.early_exit.head import WEIGHT_DECAY, entropy, fit_head, pool


def test_padding_does_not_count():
    hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    together = pool(hidden, mask)
    torch.testing.assert_close(together[:1], pool(hidden[:1, :3], None))
    torch.testing.assert_close(together[1:], pool(hidden[1:], None))
    assert together.mean(-1).abs().max() < 1e-6


def test_entropy_is_that_of_the_probabilities():
    logits = np.array([[0.0, 0.0], [3.0, -1.0], [200.0, -200.0]])
    p = np.exp(logits[:2]) / np.exp(logits[:2]).sum(-1, keepdims=True)
    found = entropy(torch.from_numpy(logits))
    np.testing.assert_allclose(found[:2], -(p * np.log(p)).sum(-1))
    assert found[0] == pytest.approx(np.log(2))
    assert 0 <= found[2] < 1e-100


def test_a_fitted_head_is_where_the_loss_has_no_slope():
    generator = torch.Generator().manual_seed(1)
    pooled = torch.randn(60, 6, generator=generator)
    whole = 3 * torch.randn(60, 4, generator=generator)
    head = fit_head(pooled, whole)
    target = whole.double().softmax(-1).numpy()
    logits = pooled.double().numpy() @ head.weight_CH.double().numpy().T + head.bias_C.double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    slope = (p - target).T @ pooled.double().numpy() / 60 + 2 * WEIGHT_DECAY * head.weight_CH.double().numpy()
    assert np.abs(slope).max() < 1e-4
    assert np.abs((p - target).mean(0)).max() < 1e-4
