"""Intel Neural Compressor's accuracy-driven tuning of an ONNX model; run by Python of its own environment.

2.6 is the last version that quantizes ONNX models. The criterion is its default one in kind, absolute: at most one
point lost on the search examples. It takes the first configuration that meets it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from neural_compressor import quantization  # type: ignore[import-not-found]
from neural_compressor.config import (  # type: ignore[import-not-found]
    AccuracyCriterion,
    PostTrainingQuantConfig,
    TuningCriterion,
)

_TOLERATED_LOSS = 0.01
_MOST_TRIALS = 30
_CALIBRATION_EXAMPLES = 100
_IR_VERSION = 9
"""The newest that the ONNX of that time reads."""


class Loader:
    """Calibration examples, one at a time."""

    batch_size = 1

    def __init__(self, examples: list[tuple[dict[str, Any], int]]) -> None:
        self._examples = examples

    def __iter__(self) -> Iterator[tuple[dict[str, Any], int]]:
        return iter(self._examples)

    def __len__(self) -> int:
        return len(self._examples)


def main() -> None:
    """Tune and write what was found."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    search = _examples(request["search"])

    def accuracy(model: Any) -> float:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request["threads"]
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return float(np.mean([session.run(None, inputs)[0].argmax() == label for inputs, label in search]))

    dense = onnx.load(request["stock"])
    dense.ir_version = min(dense.ir_version, _IR_VERSION)
    calibration = Loader(_examples(request["calibration"])[:_CALIBRATION_EXAMPLES])
    models = []
    for approach in ("dynamic", "static"):
        started = time.perf_counter()
        config = PostTrainingQuantConfig(
            approach=approach,
            accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=_TOLERATED_LOSS),
            tuning_criterion=TuningCriterion(max_trials=_MOST_TRIALS),
        )
        tuned = quantization.fit(dense, config, calib_dataloader=calibration, eval_func=accuracy)
        if tuned is not None:
            tuned.save(str(Path(request["folder"]) / f"{approach}.onnx"))
            seconds = round(time.perf_counter() - started, 1)
            models.append({"name": approach, "file": f"{approach}.onnx", "made_in_s": seconds})
    reason = "" if models else f"no configuration of {_MOST_TRIALS} loses at most {_TOLERATED_LOSS:.0%}"
    answer = {"models": models, "reason": reason}
    Path(request["folder"], "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _examples(path: str) -> list[tuple[dict[str, Any], int]]:
    rows = map(json.loads, Path(path).read_text(encoding="utf-8").splitlines())
    return [({name: np.array([ids]) for name, ids in row["inputs"].items()}, row["label"]) for row in rows]


if __name__ == "__main__":
    main()
