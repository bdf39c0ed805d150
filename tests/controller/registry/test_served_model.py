"""Language models as they are served: greedy continuation, token by token, against a naive loop in torch."""

import importlib
import warnings

import pandas as pd
import pytest
import torch
import transformers

from evaluators.tasks import TASKS
from workers.export.onnx import export_onnx
from workers.model import forgo_cache


@pytest.fixture(scope="module")
def serve():
    """Returns an opener of a folder as MLflow opens it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints as it is imported.
        served = importlib.import_module("controller.registry.served_model")
        context_class = importlib.import_module("mlflow.pyfunc.model").PythonModelContext

    def open_it(folder, **settings):
        model = served.ServedModel()
        model.load_context(context_class(artifacts={"artifact": str(folder)}, model_config=settings))
        return lambda texts, **params: list(model.predict(None, pd.DataFrame({"text": texts}), params)["continuation"])

    return open_it


def exported(model, task_name, processor, folder):
    model.eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    forgo_cache(model)
    task = TASKS.get(task_name)(processor, model.config)
    export_onnx(model, task, task.random_inputs(2, 8, seed=0), folder / "model.onnx")
    return model


def greedy(model, written, most, **inputs):
    """Tokens that come out likeliest, each after all before it."""
    name = "decoder_input_ids" if inputs else "input_ids"
    first = len(written)
    with torch.inference_mode():
        for _ in range(most):
            logits = model(**inputs, **{name: torch.tensor([written])}).logits
            written = [*written, int(logits[0, -1].argmax())]
    return written[first:]


def test_a_causal_model_goes_on_with_bytes(serve, tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    model = exported(transformers.LlamaForCausalLM(config), "causal-lm", None, tmp_path)
    settings = {"task": "causal-lm", "column": "text", "batch": 1, "threads": 1, "max_length": 20}
    ask = serve(tmp_path, **settings, ends=[], start=None, max_new_tokens=6)
    texts = ["abc", "another one"]
    expected = [greedy(model, list(text.encode()), 6) for text in texts]
    assert ask(texts) == [bytes(tokens).decode(errors="replace") for tokens in expected]
    assert ask(texts[:1], max_new_tokens=2) == [bytes(expected[0][:2]).decode(errors="replace")]
    long = "x" * 30
    assert ask([long]) == [""]
    last = serve(tmp_path, **settings, ends=[expected[0][2]], start=None, max_new_tokens=6)
    assert last(texts[:1]) == [bytes(expected[0][:2]).decode(errors="replace")]


def test_a_sequence_to_sequence_model_begins_a_text_of_its_own(serve, tiny_text, tmp_path):
    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_text.model.id)
    tokenizer.save_pretrained(tmp_path)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        initializer_factor=4.0,
    )
    model = exported(transformers.T5ForConditionalGeneration(config), "seq2seq-lm", tokenizer, tmp_path)
    settings = {"task": "seq2seq-lm", "column": "text", "batch": 1, "threads": 1, "max_length": 20}
    ask = serve(tmp_path, **settings, ends=[], start=0, max_new_tokens=5)
    source = torch.tensor([tokenizer("w1 w2 w3")["input_ids"]])
    expected = greedy(model, [0], 5, input_ids=source)
    assert ask(["w1 w2 w3"]) == [tokenizer.decode(expected, skip_special_tokens=True)]
