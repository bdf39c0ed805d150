"""Olive's search over ONNX Runtime's quantization; run by Python of its own environment.

One pass is searched, all of its parameters, by TPE. A second pass in front of it (transformer fusion, which has nothing
to choose) makes every sample after the first fail in Olive 0.13: it records a model's node twice and its record then
refuses the field `model_config`. The search ends after twenty minutes (its limit of samples does not count those that
it repeats). Candidates are scored and timed by Olive on the search examples; it returns the best of those that lose at
most a point of accuracy.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import torch
from olive import run  # type: ignore[import-not-found]
from olive.data.registry import Registry  # type: ignore[import-not-found]

_SEARCH_S = 1200
_CALIBRATION_EXAMPLES = 64
_SCORED_EXAMPLES = 436


class Examples(torch.utils.data.Dataset[Any]):
    """Encoded examples; padded to one length where asked, as its histograms of activations need."""

    def __init__(self, path: str, *, examples: int, length: int | None) -> None:
        self._rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()][:examples]
        self._length = length

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        row = self._rows[index]
        return {name: self._tensor(ids) for name, ids in row["inputs"].items()}, row["label"]

    def _tensor(self, ids: list[int]) -> torch.Tensor:
        padding = 0 if self._length is None else self._length - len(ids)
        return torch.tensor(ids + [0] * padding)


def main() -> None:
    """Search and write the best candidate."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(request["folder"])

    @Registry.register_dataset("examples")  # type: ignore[untyped-decorator]
    def _examples(split: str, **_: Any) -> Examples:
        if split == "calibration":
            return Examples(request[split], examples=_CALIBRATION_EXAMPLES, length=request["max_length"])
        return Examples(request[split], examples=_SCORED_EXAMPLES, length=None)

    started = time.perf_counter()
    best = run(_workflow(request)).get_best_candidate()
    seconds = time.perf_counter() - started
    if best is None:
        answer: dict[str, Any] = {"reason": f"no candidate in {_SEARCH_S} s loses at most a point of accuracy"}
    else:
        shutil.copy(best.model_path, folder / "best.onnx")
        made = {"name": "search", "file": "best.onnx", "made_in_s": round(seconds, 1)}
        answer = {"models": [made]}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _workflow(request: dict[str, Any]) -> dict[str, Any]:
    folder = Path(request["folder"])
    cpu = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "input_model": {"type": "OnnxModel", "model_path": request["stock"]},
        "systems": {"local": {"type": "LocalSystem", "accelerators": [cpu]}},
        "target": "local",
        "host": "local",
        "data_configs": [_data("calibration"), _data("search")],
        "evaluators": {"both": {"type": "OnnxEvaluator", "metrics": _metrics(request["threads"])}},
        "evaluator": "both",
        "passes": {"quantization": {"type": "OnnxQuantization", "data_config": "calibration"}},
        "search_strategy": {
            "execution_order": "joint",
            "sampler": "tpe",
            "sampler_config": {"max_samples": 0, "seed": 0},
            "max_time": _SEARCH_S,
            "include_pass_params": True,
        },
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "out"),
        "log_severity_level": 2,
    }


def _metrics(threads: int) -> list[dict[str, Any]]:
    accuracy = {
        "name": "accuracy_score",
        "priority": 1,
        "metric_config": {"task": "multiclass", "num_classes": 2},
        "goal": {"type": "max-degradation", "value": 0.01},
    }
    settings = {"onnx": {"session_options": {"intra_op_num_threads": threads}}}
    return [
        {
            "name": "accuracy",
            "type": "accuracy",
            "backend": "torch_metrics",
            "data_config": "search",
            "sub_types": [accuracy],
        },
        {
            "name": "latency",
            "type": "latency",
            "data_config": "search",
            "sub_types": [{"name": "avg", "priority": 2}],
            "user_config": {"inference_settings": settings},
        },
    ]


def _data(split: str) -> dict[str, Any]:
    return {
        "name": split,
        "type": "DataContainer",
        "load_dataset_config": {"type": "examples", "params": {"split": split}},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "text_classification_post_process"},
        "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 1}},
    }


if __name__ == "__main__":
    main()
