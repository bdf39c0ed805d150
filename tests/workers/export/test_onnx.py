"""The exported graph: what ONNX Runtime makes of it when it is loaded with all optimisations."""

import re
from pathlib import Path
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
import torch
from tiny_families import FAMILIES
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from evaluators.tasks import TASKS
from workers.export.onnx import export_onnx
from workers.model import forgo_cache

_BLOCK = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(params=["bert", "vit"])
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, torch.Tensor, dict[str, torch.Tensor]]:
    """A file, and what the model it came from answers to some inputs."""
    torch.manual_seed(0)
    if request.param == "bert":
        model = BertForSequenceClassification(BertConfig(vocab_size=30, num_labels=2, pad_token_id=0, **_BLOCK))
        names = SimpleNamespace(model_input_names=["input_ids", "attention_mask"])
        task = TASKS.get("text-classification")(names, model.config)
    else:
        model = ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, num_labels=2, **_BLOCK))
        task = TASKS.get("image-classification")(None, model.config)
    model.set_attn_implementation("eager")
    model.eval()
    path = tmp_path / "model.onnx"
    inputs = task.random_inputs(2, 6, seed=0)
    export_onnx(model, task, inputs, path)
    with torch.no_grad():
        return path, model(**inputs).logits, inputs


def optimised(path: Path) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session with the default optimisations, and the operators that it runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_name("optimised.onnx"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.parametrize(
    ("family", "norms", "rotations"),
    [("llama", 5, 4), ("mistral", 5, 4), ("qwen3", 9, 4), ("gemma2", 9, 4), ("glm", 5, 4), ("t5", 12, 0)],
)
def test_norms_and_rotations_of_positions_are_one_kernel_each(family, norms, rotations, tmp_path) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    model.set_attn_implementation("eager")
    forgo_cache(model)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.15)
    task = TASKS.get("seq2seq-lm" if family == "t5" else "causal-lm")(SimpleNamespace(pad_token_id=0), model.config)
    path = tmp_path / "model.onnx"
    export_onnx(model, task, task.random_inputs(2, 9, seed=0), path)
    session, operators = optimised(path)
    assert operators.count("SimplifiedLayerNormalization") == norms
    assert operators.count("RotaryEmbedding") == rotations
    assert not {"Reciprocal", "Sqrt"} & set(operators)
    # Scores of both layers' causal attention, and of no other, are bounded.
    assert operators.count("ReduceMax") == 2
    # transformers' way of masking gathers the padding of each pair of tokens.
    assert ("GatherND" in operators) == (family == "t5")
    inputs = task.random_inputs(3, 7, seed=1)
    inputs["attention_mask"][0, 4:] = 0
    inputs["attention_mask"][1, :2] = 0
    inputs["attention_mask"][2] = 0
    (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model(**inputs).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "family", "answer"),
    [
        ("text-classification", "distilbert", ["batch", 3]),
        ("sentence-similarity", "distilbert, embedding", ["batch", 32]),
        ("image-classification", "resnet", ["batch", 3]),
        ("causal-lm", "llama", ["batch", "sequence", 50]),
        ("seq2seq-lm", "t5", ["batch", "target_sequence", 50]),
    ],
)
def test_axes_bear_the_names_that_the_task_gives_them(name, family, answer, tmp_path) -> None:
    model = FAMILIES[family]().eval()
    model.set_attn_implementation("eager")
    forgo_cache(model)
    processor = SimpleNamespace(model_input_names=["input_ids", "attention_mask"], pad_token_id=0)
    task = TASKS.get(name)(processor, model.config)
    path = tmp_path / "model.onnx"
    export_onnx(model, task, task.random_inputs(2, 9, seed=0), path)
    graph = onnx.load(path).graph
    varying = {
        value.name: {axis: size for axis, size in enumerate(sizes_of(value)) if isinstance(size, str)}
        for value in graph.input
    }
    assert varying == {name: task.dynamic_axes[name] for name in varying}
    assert [sizes_of(value) for value in graph.output] == [answer]
    words = {
        word for value in graph.value_info for size in sizes_of(value) for word in re.findall(r"\b[a-z]\w*", str(size))
    }
    assert words <= {name for axes in task.dynamic_axes.values() for name in axes.values()}


def sizes_of(value: onnx.ValueInfoProto) -> list[str | int]:
    """Sizes of a value's axes, by name where they vary."""
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_residual_additions_stay_apart_from_layer_normalisation(exported):
    path, expected, inputs = exported
    session, operators = optimised(path)
    assert "SkipLayerNormalization" not in operators
    assert "ReduceMax" not in operators
    assert operators.count("LayerNormalization") == 5
    (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-5)
