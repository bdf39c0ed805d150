"""NVIDIA Model-Optimizer's auto_quantize on a CPU; run by Python of its own environment.

Its int8 formats, plain and with SmoothQuant, and none, chosen for each layer by gradient sensitivity at two effective
bits: 8 quantizes every layer, 10 leaves the most sensitive in float. Its 4-bit and 8-bit float formats have no kernels
in ONNX Runtime on a CPU. The graph is written with the Q and DQ nodes that its quantizers export to.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import modelopt.torch.quantization as mtq  # type: ignore[import-not-found]
import torch
from transformers import AutoModelForSequenceClassification

_EFFECTIVE_BITS = (8.0, 10.0)
_CALIBRATION_STEPS = 128
_SCORE_STEPS = 64
_OPSET = 20


class Logits(torch.nn.Module):
    """A classifier of transformers that takes its inputs in order and gives logits alone."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits, (batch, classes)."""
        logits: torch.Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def main() -> None:
    """Quantize at each number of effective bits, and write the models."""
    warnings.simplefilter("ignore")
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    examples = _examples(request["calibration"])
    models = []
    for bits in _EFFECTIVE_BITS:
        started = time.perf_counter()
        model, found = _quantize(request, examples, bits)
        file = f"auto-quantize-{bits:g}.onnx"
        _export(model, examples[0], Path(request["folder"]) / file)
        models.append(
            {
                "name": f"auto_quantize {bits:g} bits",
                "file": file,
                "made_in_s": round(time.perf_counter() - started, 1),
                "note": f"formats of layers: {_count(found)}; weights stay float in the file, with Q and DQ after them",
            }
        )
    Path(request["folder"], "answer.json").write_text(json.dumps({"models": models}), encoding="utf-8")


def _quantize(request: dict[str, Any], examples: list[dict[str, torch.Tensor]], bits: float) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(
        request["model"], attn_implementation="eager", dtype=torch.float32
    )
    model, state = mtq.auto_quantize(
        model.eval(),
        constraints={"effective_bits": bits},
        quantization_formats=[mtq.INT8_DEFAULT_CFG, mtq.INT8_SMOOTHQUANT_CFG],
        data_loader=examples,
        forward_step=lambda quantized, batch: quantized(**batch),
        loss_func=lambda output, _: output.loss,
        num_calib_steps=min(_CALIBRATION_STEPS, len(examples)),
        num_score_steps=min(_SCORE_STEPS, len(examples)),
    )
    return model, state["best"]["recipe"]


def _export(model: Any, example: dict[str, torch.Tensor], path: Path) -> None:
    names = [name for name in example if name != "labels"]
    torch.onnx.export(
        Logits(model, names).eval(),
        tuple(example[name] for name in names),
        str(path),
        dynamo=False,
        opset_version=_OPSET,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names},
    )


def _count(recipe: dict[str, Any]) -> str:
    formats = [str(each).split("(")[0] for each in recipe.values()]
    return ", ".join(f"{formats.count(each)} {each}" for each in sorted(set(formats)))


def _examples(path: str) -> list[dict[str, torch.Tensor]]:
    rows = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
    return [
        {**{name: torch.tensor([ids]) for name, ids in row["inputs"].items()}, "labels": torch.tensor([row["label"]])}
        for row in rows
    ]


if __name__ == "__main__":
    main()
