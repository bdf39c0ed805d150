"""The exported graph: what ONNX Runtime makes of it when it is loaded with all optimisations."""

from pathlib import Path
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from evaluators.tasks import TASKS
from workers.export.onnx import export_onnx

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


def test_residual_additions_stay_apart_from_layer_normalisation(exported):
    path, expected, inputs = exported
    session, operators = optimised(path)
    assert "SkipLayerNormalization" not in operators
    assert operators.count("LayerNormalization") == 5
    (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-5)
