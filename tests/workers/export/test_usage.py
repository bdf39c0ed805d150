"""The programs in model cards, run as they stand in the folders that they are for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from programs import ROOT, output_of, program_in

from evaluators.tasks import TASKS
from search_spaces.architectures import structure_of
from search_spaces.policy import Choice, Policy
from workers.export.artifact import ExportRequest, export_artifact
from workers.export.card import render_card
from workers.export.huggingface import export_huggingface
from workers.export.onnx import export_onnx
from workers.export.usage import Usage, render_usage
from workers.model import forgo_cache
from workers.targets.base import ExportForm
from workers.trial import TrialWorker

if TYPE_CHECKING:
    from conftest import TinyJob

BLOCK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
BLOCK |= {"max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}


@pytest.mark.parametrize("kind", ["tiny_text", "tiny_image"])
def test_card_and_readme_run_an_artifact(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    worker = TrialWorker(request.getfixturevalue(kind).spec(tmp_path / "cache"))
    policy, out = worker.space.dense_policy(), tmp_path / "best"
    export_artifact(
        worker,
        ExportRequest(
            spec=worker.spec,
            study="tiny",
            trial=1,
            policy=policy,
            out=out,
            render_card=lambda report: render_card(
                report, spec=worker.spec, structure=worker.structure, policy=policy, command="again"
            ),
        ),
    )
    if kind == "tiny_image":
        pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
        Image.fromarray(pixels).save(out / "image.png")
        examples = worker.task.encode([pixels.tolist()], [0], max_length=1)
    else:
        examples = worker.task.encode(["A sentence."], [0], max_length=32)
    with torch.inference_mode():
        logits = worker.model_of(policy)(**worker.task.collate(examples)).logits[0]
    card = (out / "README.md").read_text()
    label, _, values = output_of(program_in(card, after="## How to run it"), out).partition(" ")
    assert label == f"LABEL_{int(logits.argmax())}"
    torch.testing.assert_close(torch.tensor(numbers(values)), logits, rtol=1e-3, atol=1e-3)
    if kind == "tiny_text":
        program = program_in((ROOT / "README.md").read_text(), after="ONNX Runtime runs `model.onnx` without Paretrim")
        assert output_of(program, tmp_path) == f"{label}\n"


def test_a_sentence_encoder_answers_with_an_embedding(tiny_pairs: "TinyJob", tmp_path: Path) -> None:
    worker = TrialWorker(tiny_pairs.spec(tmp_path / "cache"))
    model: Any = worker.model_of(worker.space.dense_policy())
    with torch.inference_mode():
        expected = model(**worker.processor("A sentence.", return_tensors="pt")).logits[0]
    for form in ExportForm:
        for batch in (1, 4):
            printed = run(form, model, worker.task, worker.processor, tmp_path / form, "sentence-similarity", batch)
            torch.testing.assert_close(torch.tensor(numbers(printed)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", ExportForm)
@pytest.mark.parametrize("reads", ["bytes", "tokens"])
def test_a_causal_model_goes_on_with_a_text(form: ExportForm, reads: str, tiny_text: "TinyJob", tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_text.model.id) if reads == "tokens" else None
    model = prepared(transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=256, **BLOCK)))
    task = TASKS.get("causal-lm")(tokenizer, model.config)
    written = list(b"Once upon") if tokenizer is None else tokenizer("Once upon")["input_ids"]
    for _ in range(20):
        with torch.inference_mode():
            written.append(int(model(input_ids=torch.tensor([written])).logits[0, -1].argmax()))
    if tokenizer is None:
        expected = bytes(written).decode(errors="replace")
    else:
        expected = tokenizer.decode(written, skip_special_tokens=True)
    assert run(form, model, task, tokenizer, tmp_path, "causal-lm").rstrip("\n") == expected.rstrip("\n")


@pytest.mark.parametrize("form", ExportForm)
def test_a_sequence_to_sequence_model_begins_a_text_of_its_own(
    form: ExportForm, tiny_text: "TinyJob", tmp_path: Path
) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_text.model.id)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "initializer_factor": 4.0}
    config = transformers.T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, eos_token_id=None, **sizes)
    model = prepared(transformers.T5ForConditionalGeneration(config))
    task = TASKS.get("seq2seq-lm")(tokenizer, model.config)
    source = tokenizer("A sentence.", return_tensors="pt")["input_ids"]
    written = [0]
    for _ in range(20):
        with torch.inference_mode():
            logits = model(input_ids=source, decoder_input_ids=torch.tensor([written])).logits
        written.append(int(logits[0, -1].argmax()))
    expected = tokenizer.decode(written, skip_special_tokens=True)
    assert run(form, model, task, tokenizer, tmp_path, "seq2seq-lm") == f"{expected}\n"


def test_a_task_of_a_plug_in_gets_a_model_that_is_open(tiny_text: "TinyJob", tmp_path: Path) -> None:
    worker = TrialWorker(tiny_text.spec(tmp_path / "cache"))
    model = worker.model_of(worker.space.dense_policy())
    assert run(ExportForm.ONNX, model, worker.task, worker.processor, tmp_path, "of-a-plug-in") == ""


def prepared(model: Any) -> Any:
    """A model as exports take it, with random weights that tell inputs apart."""
    torch.manual_seed(0)
    for parameter in model.eval().requires_grad_(False).parameters():
        parameter.add_(torch.randn_like(parameter) * 0.15)
    model.set_attn_implementation("eager")
    forgo_cache(model)
    return model


def run(form: ExportForm, model: Any, task: Any, processor: Any, folder: Path, name: str, batch: int = 1) -> str:
    """Write a model with what lies beside it, and run the program of its card there."""
    structure = structure_of(model)
    dense = Policy({unit.name: Choice(unit.groups, "fp32") for unit in structure.units})
    export_huggingface(model, dense, folder, processor=processor)
    if form is ExportForm.ONNX:
        export_onnx(model, task, task.random_inputs(2, 8, seed=0), folder / "model.onnx")
    usage = Usage(
        task=name,
        target="cpu-torch",
        form=form,
        batch=batch,
        threads=1,
        longest=32,
        has_processor=processor is not None,
    )
    return output_of(program_in(render_usage(usage), after="In this folder"), folder)


def numbers(printed: str) -> list[float]:
    return [float(word) for word in printed.replace("[", " ").replace("]", " ").split()]
