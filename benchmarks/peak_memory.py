"""How wrong the computed peak of activation memory is: ONNX Runtime's own peak beside it.

    python -m benchmarks.peak_memory

Policies of some models, dense to smallest, are exported and run once each in a process of their own, with arena and
memory patterns off, so that every buffer of the runtime's plan is allocated and freed by itself, and nothing is held
that was not asked for (the arena doubles when it grows): the growth of the largest resident set while a call runs is
its peak. `median_error_pct` and `p90_error_pct` are of the computed peaks against that, `bias_pct` is
the median with its sign (above 0 where too much is computed). Models of the shared folder are left out where there is
none. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Digits
from benchmarks.recording import record
from evaluators.latency.workload import Workload
from evaluators.memory import PeakMemory
from examples.digits import train_digits_model, write_digits
from examples.digits_resnet import train_digits_resnet
from search_spaces.policy import Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from workers.assemble import Assembler
from workers.export.onnx import export_onnx
from workers.model import LoadedModel, ModelConfig, load_model
from workers.targets import TARGETS
from workers.variants import VariantMaker

_TARGET = TARGETS.get("cpu-onnxruntime")
_SHARED = Path(__file__).parents[2] / "shared" / "models"
_WORKLOADS = {
    "minilm-sst2": Workload(batch=8, sequence_length=128),
    "glm-tiny": Workload(batch=4, sequence_length=256),
    Digits.VIT.value: Workload(batch=512, sequence_length=17),
    Digits.RESNET.value: Workload(batch=512, sequence_length=1),
}
"""Large enough for every tensor that counts to have pages of its own."""
_MEASURE = """
import sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = dict(np.load(sys.argv[2]))
session.run(None, {name: value[:2] for name, value in feeds.items()})
def kilobytes(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1])
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
session.run(None, feeds)
print(1024 * (kilobytes("VmHWM") - before))
"""


def main() -> None:
    """Measure, and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(_WORKLOADS))
    parser.add_argument("--random", type=int, default=3, help="random policies of each model")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="paretrim-memory-") as folder:
        for name in arguments.cases:
            if (config := _model(name, Path(folder))) is not None:
                rows += _rows(name, load_model(config), Path(folder), arguments.random)
    errors = np.array([100 * (row["computed"] / row["measured"] - 1) for row in rows])
    figures = {
        "median_error_pct": round(float(np.median(np.abs(errors))), 2),
        "p90_error_pct": round(float(np.quantile(np.abs(errors), 0.9)), 2),
        "bias_pct": round(float(np.median(errors)), 2),
        "policies": len(rows),
    }
    record("peak_memory", figures, details={"policies_by_model": rows})


def _model(name: str, folder: Path) -> ModelConfig | None:
    if name not in list(Digits):
        task = "causal-lm" if name.startswith("glm") else "text-classification"
        return ModelConfig(id=str(_SHARED / name), task=task) if (_SHARED / name).exists() else None
    write_digits(folder / "data")
    train = train_digits_resnet if name == Digits.RESNET else train_digits_model
    train(folder / "data", folder / name, seed=0)
    return ModelConfig(id=str(folder / name), task="image-classification")


def _rows(name: str, loaded: LoadedModel, folder: Path, random_policies: int) -> Iterator[dict[str, Any]]:
    workload, structure = _WORKLOADS[name], loaded.structure
    space = build_space(structure, SpaceConfig(), target_formats=_TARGET.formats, channel_multiple=8)
    peaks = PeakMemory(structure, workload)
    assembler = Assembler(loaded.model, structure, VariantMaker(loaded.model, structure.units, None).make)
    feeds = loaded.task.random_inputs(workload.batch, workload.sequence_length, seed=1)
    np.savez(folder / "feeds.npz", **{key: value.numpy() for key, value in feeds.items()})  # type: ignore[arg-type]
    for title, policy in _policies(space, random_policies):
        path = folder / "model.onnx"
        path.unlink(missing_ok=True)
        example = loaded.task.random_inputs(2, workload.sequence_length, seed=0)
        export_onnx(assembler.apply(policy), loaded.task, example, path)
        computed, measured = peaks.policy_bytes(policy), _measure(path)
        row = {"model": name, "policy": title, "computed": computed, "measured": measured}
        sys.stderr.write(json.dumps({**row, "ratio": round(computed / measured, 3)}) + "\n")
        yield row


def _policies(space: SearchSpace, random_policies: int) -> Iterator[tuple[str, Policy]]:
    import random

    generator = random.Random(0)
    yield "dense", space.dense_policy()
    yield from list(space.uniform_policies().items())[:: max(1, len(space.uniform_policies()) // 5)]
    yield "smallest", space.smallest_policy()
    for number in range(random_policies):
        yield f"random {number}", space.random_policy(generator)


def _measure(model: Path) -> int:
    """Bytes by which the largest resident set grows in a call."""
    command = [sys.executable, "-c", _MEASURE, str(model), str(model.with_name("feeds.npz"))]
    # Without these glibc keeps freed tensors for later ones, and what is resident says little.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout)


if __name__ == "__main__":
    main()
