"""A decoder exported as ONNX Runtime runs it fast, and with the small operators that transformers writes.

One operator for each norm and rotation and a short mask stand against many, and bounded scores against unbounded ones.

    python -m benchmarks.decoder_kernels --model DIR

`ratio_FORMAT` is the time of the small operators over that of the few, of the whole model in one format, the median
over both workloads (1 sentence of 32 tokens, 8 of 64); `largest_difference` is that of the logits in float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.recording import record
from search_spaces.formats import FORMATS
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure
from workers.export import onnx, onnx_rewrites
from workers.model import ModelConfig, load_model, load_structure
from workers.targets import TargetConfig
from workers.targets.device import DEVICES
from workers.targets.onnxruntime_cpu import open_session, time_runs
from workers.trial import workload_of
from workers.whole_models import export_whole_models

_FORMATS = ("fp32", "w8a8", "w4")
_WORKLOADS = ((1, 32), (8, 64))
_ROUNDS, _RUNS = 10, 20


def main() -> None:
    """Export, time both forms in turn and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a decoder for text generation")
    model = ModelConfig(id=str(parser.parse_args().model), task="causal-lm")
    rows = [_compare(model, name, batch, tokens) for name in _FORMATS for batch, tokens in _WORKLOADS]
    figures: dict[str, Any] = {
        f"ratio_{name}": round(statistics.median(row["ratio"] for row in rows if row["format"] == name), 3)
        for name in _FORMATS
    }
    figures["largest_difference"] = max(row["difference"] for row in rows if row["format"] == "fp32")
    record("decoder_kernels", figures, details={"rows": rows})


def _compare(model: ModelConfig, name: str, batch: int, tokens: int) -> dict[str, Any]:
    target = TargetConfig(name="cpu-onnxruntime", batch=batch, sequence_length=tokens, threads=1)
    structure = load_structure(model)
    device = DEVICES.get(target.name)(1)
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        sessions = []
        for small in (True, False):
            with ExitStack() as stack:
                if small:
                    stack.enter_context(patch.object(onnx, "onnx_positions", nullcontext))
                    stack.enter_context(patch.object(onnx, "rewrite_for_runtime", onnx_rewrites.keep_sums_apart))
                policies = {"whole": _whole(structure, name)}
                exported = export_whole_models(
                    load_model(model), policies, workload_of(target, structure), device, Path(folder)
                )
                (found,) = exported
                timed: Any = found.timed
                sessions.append(open_session(timed.model, threads=1))
        small_logits, logits = (session.run(None, timed.feeds)[0] for session in sessions)
        ratios = []
        for _ in range(_ROUNDS):
            before, after = (float(np.median(time_runs(s, timed.feeds, runs=_RUNS))) for s in sessions)
            ratios.append(before / after)
    return {
        "format": name,
        "batch": batch,
        "tokens": tokens,
        "ratio": round(statistics.median(ratios), 3),
        "difference": float(np.abs(small_logits - logits).max()),
    }


def _whole(structure: ModelStructure, name: str) -> Policy:
    """Everything kept, in one format where the unit's layers have it."""
    number_format = FORMATS.get(name)
    formats = {
        unit.name: name if unit.layer_type in number_format.layer_types else structure.base_format
        for unit in structure.units
    }
    return Policy({unit.name: Choice(unit.groups, formats[unit.name]) for unit in structure.units})


if __name__ == "__main__":
    main()
