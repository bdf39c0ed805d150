"""Whole models for the correction of a latency table, made without data.

Times do not depend on the values of weights, so variants are cut by magnitude and rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from evaluators.latency.workload import Workload, operators
from search_spaces.policy import Policy
from workers.assemble import Assembler
from workers.model import LoadedModel
from workers.profiling.whole import WholeModel
from workers.targets.device import Device
from workers.variants import VariantMaker


def export_whole_models(
    loaded: LoadedModel,
    policies: Mapping[str, Policy],
    workload: Workload,
    device: Device,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[WholeModel]:
    """Put policies into the runtime's own form, one after the other.

    Args:
        loaded: The dense model; its layers are swapped meanwhile.
        policies: What to export, by name.
        workload: What the models are fed with.
        device: What the models are timed on.
        folder: Where the runtime's files go; they must stay while models are timed.
        progress: Called after each export.
    """
    maker = VariantMaker(loaded.model, loaded.structure.units, None)
    assembler = Assembler(loaded.model, loaded.structure, maker.make)
    for number, (name, policy) in enumerate(policies.items()):
        timed = device.whole_model(assembler.apply(policy), loaded.task, workload, folder)
        if progress is not None:
            progress(number + 1, len(policies))
        yield WholeModel(name=name, operators=operators(loaded.structure, policy, workload), timed=timed)
