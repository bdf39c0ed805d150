"""What a model card says on how to run the model: a program for the task and for the form that the target reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from workers.targets.base import ONNX_FILE, ExportForm

_NEW_TOKENS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the program depends on.

    Attributes:
        task: Name of the task.
        target: Name of the target.
        form: What the target's runtime reads.
        batch: Examples in one call.
        threads: Threads of the runtime.
        longest: Tokens at which texts are cut.
        has_processor: Whether a tokenizer or image processor lies in the folder; a language model without reads bytes.
    """

    task: str
    target: str
    form: ExportForm
    batch: int
    threads: int
    longest: int
    has_processor: bool


def render_usage(usage: Usage) -> str:
    """Write the section's text: a program in Python for the task, run in the artifact's folder.

    A task of a plug-in reads inputs in a way of its own; the program then ends with the opened model.
    """
    onnx = usage.form is ExportForm.ONNX
    needed = "packages onnxruntime and transformers" if onnx else "package paretrim"
    if usage.task == "image-classification":
        needed += ", and an image"
    calls = f"{usage.batch} example{'s' if usage.batch > 1 else ''} a call on {usage.threads} thread"
    text = f"In this folder, with the {needed}; {calls}{'s' if usage.threads > 1 else ''}, as it was timed:\n"
    return f"{text}\n```python\n{_program(usage)}\n```\n{'' if onnx else _kernels(usage)}"


def _program(usage: Usage) -> str:
    opening = _onnx(usage.threads) if usage.form is ExportForm.ONNX else _folder(usage.threads)
    body = "\n".join([*opening, *_TASKS.get(usage.task, _nothing)(usage)])
    imports = [f"import {name}" for name in ("numpy as np", "onnxruntime", "paretrim", "torch") if _uses(body, name)]
    if "Image." in body:
        imports.append("from PIL import Image")
    if classes := [name for name in _CLASSES if f"{name}." in body]:
        imports.append(f"from transformers import {', '.join(classes)}")
    return "\n".join([*imports, "", body])


def _uses(body: str, module: str) -> bool:
    return f"{module.split()[-1]}." in body


_CLASSES = ("AutoConfig", "AutoImageProcessor", "AutoTokenizer")
_CONFIG = 'config = AutoConfig.from_pretrained(".")'
_TOKENIZER = 'tokenizer = AutoTokenizer.from_pretrained(".")'


def _onnx(threads: int) -> Sequence[str]:
    return (
        "options = onnxruntime.SessionOptions()",
        f"options.intra_op_num_threads = {threads}",
        f'session = onnxruntime.InferenceSession("{ONNX_FILE}", options, providers=["CPUExecutionProvider"])',
        "",
        "",
        "def answer(inputs):",
        "    feeds = {node.name: inputs[node.name] for node in session.get_inputs()}",
        '    return session.run(["logits"], feeds)[0]',
        "",
        "",
    )


def _folder(threads: int) -> Sequence[str]:
    return (
        f"torch.set_num_threads({threads})",
        'model = paretrim.load(".")',
        "",
        "",
        "def answer(inputs):",
        "    with torch.inference_mode():",
        "        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}",
        "        return model(**tensors).logits.float().numpy()",
        "",
        "",
    )


def _kernels(usage: Usage) -> str:
    return (
        "\n`paretrim.load` computes it in plain torch, exactly. The latency above is that of the target's own kernels: "
        f'`DEVICES.get("{usage.target}")({usage.threads}).open(Path("."))`, with `DEVICES` from '
        "`workers.targets.device`, has a method `logits` for the same inputs as tensors.\n"
    )


def _up_to(usage: Usage) -> str:
    return f"  # up to {usage.batch}" if usage.batch > 1 else ""


def _texts(usage: Usage) -> Sequence[str]:
    padding = ", padding=True" if usage.batch > 1 else ""
    return (
        _TOKENIZER,
        f'texts = ["A sentence."]{_up_to(usage)}',
        f'encoded = tokenizer(texts, truncation=True, max_length={usage.longest}{padding}, return_tensors="np")',
    )


def _classes(inputs: str) -> Sequence[str]:
    return (f"for row in answer({inputs}):", "    print(config.id2label[int(row.argmax())], row)")


def _text_classification(usage: Usage) -> Sequence[str]:
    return (_CONFIG, *_texts(usage), *_classes("encoded"))


def _sentence_similarity(usage: Usage) -> Sequence[str]:
    return (*_texts(usage), "print(answer(encoded))  # an embedding of each text")


def _image_classification(usage: Usage) -> Sequence[str]:
    return (
        _CONFIG,
        'processor = AutoImageProcessor.from_pretrained(".")',
        'mode = "L" if config.num_channels == 1 else "RGB"',
        f'images = [Image.open("image.png").convert(mode)]{_up_to(usage)}',
        'pixels = processor(images, return_tensors="np")["pixel_values"].astype(np.float32)',
        *_classes('{"pixel_values": pixels}'),
    )


def _causal_lm(usage: Usage) -> Sequence[str]:
    ids, end = 'list("Once upon".encode())', 'bytes(n for n in tokens[0].tolist() if n < 256).decode(errors="replace")'
    if usage.has_processor:
        ids, end = 'tokenizer("Once upon")["input_ids"]', "tokenizer.decode(tokens[0], skip_special_tokens=True)"
    return (
        _CONFIG,
        *((_TOKENIZER,) if usage.has_processor else ()),
        f"tokens = np.array([{ids}])",
        f"for _ in range({_NEW_TOKENS}):",
        '    logits = answer({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})',
        "    tokens = np.append(tokens, logits[:, -1:].argmax(-1), axis=1)",
        "    if np.isin(tokens[0, -1], config.eos_token_id):",
        "        break",
        f"print({end})",
    )


def _seq2seq_lm(usage: Usage) -> Sequence[str]:
    return (
        _CONFIG,
        _TOKENIZER,
        f'source = np.array([tokenizer("A sentence.", truncation=True, max_length={usage.longest})["input_ids"]])',
        'inputs = {"input_ids": source, "attention_mask": np.ones_like(source)}',
        "target = np.array([[config.decoder_start_token_id]])",
        f"for _ in range({_NEW_TOKENS}):",
        '    inputs |= {"decoder_input_ids": target, "decoder_attention_mask": np.ones_like(target)}',
        "    target = np.append(target, answer(inputs)[:, -1:].argmax(-1), axis=1)",
        "    if np.isin(target[0, -1], config.eos_token_id):",
        "        break",
        "print(tokenizer.decode(target[0], skip_special_tokens=True))",
    )


def _nothing(usage: Usage) -> Sequence[str]:
    return ()


_TASKS: Mapping[str, Callable[[Usage], Sequence[str]]] = {
    "text-classification": _text_classification,
    "image-classification": _image_classification,
    "sentence-similarity": _sentence_similarity,
    "causal-lm": _causal_lm,
    "seq2seq-lm": _seq2seq_lm,
}
