"""One model under several policies, to ONNX and to Hugging Face folders, each set beside what was searched.

All get one example a call.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import paretrim
from benchmarks.cases import Case
from evaluators.quality import Forward, Outputs
from search_spaces.policy import Choice, Policy
from search_spaces.space import SearchSpace, SpaceConfig, build_space
from workers.assemble import Assembler
from workers.export.compare import describe_deviation, layer_differences
from workers.export.huggingface import export_huggingface
from workers.export.onnx import export_onnx
from workers.quantization.linear import DynamicInt8Linear
from workers.targets import TARGETS
from workers.targets.onnxruntime_cpu import open_session
from workers.variants import VariantMaker

EXACT_DIFFERENCE = 1e-4
"""Largest difference of a logit where nothing is quantized."""
COSINE = 0.995
"""Smallest cosine of the logits elsewhere."""
METRIC_GAP = 0.003
"""Largest gap of a metric between 0 and 1."""
BITS_GAP = math.log2(1.005)
"""Largest gap of bits per token: 0.5 % of perplexity."""
_KEEPS = (1.0, 0.75, 0.5)


def compare_exports(case: Case, *, policies: int, folder: Path, seed: int = 0) -> list[dict[str, Any]]:
    """Export policies, the first of them in float32 throughout, and measure how each form differs.

    Args:
        case: Model and data.
        policies: How many.
        folder: Takes the exports; each is overwritten by the next.
        seed: Seed of the policies.
    """
    target = TARGETS.get("cpu-onnxruntime")
    space = build_space(
        case.loaded.structure,
        SpaceConfig(keep=_KEEPS),
        target_formats=target.formats,
        channel_multiple=target.channel_multiple,
    )
    maker = VariantMaker(case.loaded.model, case.loaded.structure.units, case.calibration())
    assembler = Assembler(case.loaded.model, case.loaded.structure, maker.make)
    generator = random.Random(seed)
    drawn = [draw_policy(space, generator, quantized=number > 0) for number in range(policies)]
    return [_compare(case, assembler, policy, folder) for policy in drawn]


def draw_policy(space: SearchSpace, generator: random.Random, *, quantized: bool) -> Policy:
    """Draw keeps and formats at random, and leave one residual branch out where the model has any."""
    policy = space.random_policy(generator)
    if not quantized:
        policy = Policy({name: Choice(choice.keep, space.base_format) for name, choice in policy.choices.items()})
    branches = [u.unit.name for u in space.unit_spaces if u.unit.branch is not None]
    return policy.replace(**{generator.choice(branches): Choice(0, space.base_format)}) if branches else policy


def _compare(case: Case, assembler: Assembler, policy: Policy, folder: Path) -> dict[str, Any]:
    model: Any = assembler.apply(policy)
    searched = case.evaluator.run(assembler.logits)
    assembler.scope.examples = None
    task, structure = case.loaded.task, case.loaded.structure
    path = folder / "model.onnx"
    export_onnx(model, task, task.random_inputs(2, 16, seed=0), path)
    summary = export_huggingface(model, policy, folder / "huggingface", processor=case.loaded.processor)
    loaded: Any = paretrim.load(folder / "huggingface")
    summary.weights.unlink()
    session = open_session(path, threads=1)
    names = [node.name for node in session.get_inputs()]

    def run_session(inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
        rows = range(0, len(next(iter(inputs.values()))), examples_per_call)
        feeds = [{name: inputs[name][at : at + examples_per_call].numpy() for name in names} for at in rows]
        return torch.from_numpy(np.concatenate([session.run(None, feed)[0] for feed in feeds]))

    scopes = [module.scope for module in loaded.modules() if isinstance(module, DynamicInt8Linear)]

    def run_loaded(inputs: Mapping[str, Tensor], examples_per_call: int) -> Tensor:
        for scope in scopes:
            scope.examples = examples_per_call
        with torch.inference_mode():
            found: Tensor = loaded(**inputs).logits
        return found

    is_exact = all(choice.format == structure.base_format for choice in policy.choices.values())
    forms: dict[str, Forward] = {"onnx": run_session, "huggingface": run_loaded}
    found = {
        name: _measure(case, searched, case.evaluator.run(forward), is_exact=is_exact)
        for name, forward in forms.items()
    }
    if not found["onnx"]["equal"]:
        differences = layer_differences(path, model, structure, task.random_inputs(2, 16, seed=1))
        found["onnx"]["deviation"] = describe_deviation(differences)
    return {"policy": policy.digest, "quantized": not is_exact, "plain": summary.plain, **found}


def _measure(case: Case, searched: Outputs, exported: Outputs, *, is_exact: bool) -> dict[str, Any]:
    values = [case.evaluator.score(outputs).value for outputs in (searched, exported)]
    gap = values[1] - values[0]
    difference = float((searched.logits_MC - exported.logits_MC).abs().max())
    cosine = float(torch.cosine_similarity(searched.logits_MC.flatten(), exported.logits_MC.flatten(), dim=0))
    is_close = difference <= EXACT_DIFFERENCE if is_exact else cosine >= COSINE
    allowed = METRIC_GAP if case.loaded.task.right_or_wrong else BITS_GAP
    return {
        "equal": bool(is_close and abs(gap) <= allowed),
        "searched_metric": values[0],
        "metric_gap": gap,
        "max_difference": difference,
        "cosine": cosine,
    }
