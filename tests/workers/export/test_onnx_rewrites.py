"""Rewrites of exported graphs, against the module that they come from."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from workers.export.onnx_rewrites import rewrite_for_runtime
from workers.targets.onnxruntime_cpu import open_session

SHAPE = (2, 3, 7, 7)
LOW = torch.finfo(torch.float32).min


class Masked(nn.Module):
    """Softmax of scores (B, H, S, S) under a causal mask; tokens of padding (B, S) are 0."""

    def forward(self, scores: Tensor, tokens: Tensor) -> Tensor:
        places = torch.arange(scores.shape[-1])
        seen = (places[:, None] >= places) & tokens[:, None, None, :].bool()
        return (scores + torch.where(seen, 0.0, LOW)).softmax(-1)


class Padded(nn.Module):
    """The same without the causal part."""

    def forward(self, scores: Tensor, tokens: Tensor) -> Tensor:
        return (scores + torch.where(tokens[:, None, None, :].bool(), 0.0, LOW)).softmax(-1)


class RootMeanSquare(nn.Module):
    """Normalisation, and a reciprocal root that is used twice."""

    def forward(self, x: Tensor) -> Tensor:
        inverse = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x * inverse + inverse


class ReciprocalAlone(nn.Module):
    """A product with a reciprocal of something else."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.abs() + 1).reciprocal()


DYNAMIC = torch.export.Dim.DYNAMIC
OF_TOKENS = ({0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}, {0: DYNAMIC, 1: DYNAMIC})


def run(
    module: nn.Module, inputs: tuple[Tensor, ...], folder: Path, dynamic_shapes: Any = None
) -> tuple[Tensor, Counter[str]]:
    """What ONNX Runtime answers after the rewrites, and the operators of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module.eval(), inputs, dynamo=True, opset_version=20, dynamic_shapes=dynamic_shapes, verbose=False
        )
    rewrite_for_runtime(program.model)
    path = folder / "model.onnx"
    program.save(str(path))
    onnx.checker.check_model(str(path))
    session = open_session(path, threads=1)
    feeds = {node.name: value.numpy() for node, value in zip(session.get_inputs(), inputs, strict=True)}
    (found,) = session.run(None, feeds)
    return torch.from_numpy(found), Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("spread", [1.0, 40.0, 400.0])
def test_bounded_scores_have_the_same_weights(spread: float, tmp_path: Path) -> None:
    """Also where masked scores are far above those that count, and where a whole row is masked."""
    scores = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * spread
    tokens = torch.ones(2, 7, dtype=torch.int64)
    tokens[0, :3] = 0
    tokens[1, 5:] = 0
    module = Masked()
    found, operators = run(module, (scores, tokens), tmp_path, OF_TOKENS)
    assert operators["Max"] == 1
    torch.testing.assert_close(found, module(scores, tokens), rtol=1e-5, atol=1e-7)


def test_scores_that_no_comparison_masks_stay_as_they_are(tmp_path: Path) -> None:
    _, operators = run(Padded(), (torch.randn(SHAPE), torch.ones(2, 7, dtype=torch.int64)), tmp_path, OF_TOKENS)
    assert operators["Softmax"] == 1
    assert operators["Max"] == 0


def test_a_root_mean_square_divides(tmp_path: Path) -> None:
    module, x = RootMeanSquare(), torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    found, operators = run(module, (x,), tmp_path)
    assert operators["Div"] == 1
    assert operators["Reciprocal"] == 1
    torch.testing.assert_close(found, module(x))


def test_another_reciprocal_stays(tmp_path: Path) -> None:
    module, x = ReciprocalAlone(), torch.randn(2, 5, 16)
    found, operators = run(module, (x,), tmp_path)
    assert operators["Div"] == 0
    torch.testing.assert_close(found, module(x))
