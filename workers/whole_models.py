"""Whole models for the correction of a latency table: policies spread over the space, exported without data.

Times do not depend on the values of weights, so variants are cut by magnitude and rounded to nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from evaluators.latency.lookup import LatencyPredictor
from search_spaces.formats import FORMATS, LayerType
from search_spaces.policy import Choice, Policy
from search_spaces.units import ModelStructure
from workers.assemble import Assembler
from workers.export.onnx import export_onnx
from workers.model import LoadedModel
from workers.profile import WholeModel
from workers.variants import VariantMaker

_RATIOS = (1.0, 0.5, 0.25)


def correction_policies(
    structure: ModelStructure, *, formats: tuple[str, ...], channel_multiple: int
) -> tuple[Policy, ...]:
    """Uniform policies that span the range of latencies: each format whole, and the first two formats cut down.

    Embedding tables, which take little time in any format, stay in the base format.
    """
    found: dict[Policy, None] = {}
    layer_types = {unit.layer_type for unit in structure.units} - {LayerType.EMBEDDING}
    formats = tuple(name for name in formats if layer_types <= set(FORMATS.get(name).layer_types))
    for ratio in _RATIOS:
        for name in formats if ratio == 1.0 else formats[:2]:
            choices = {
                unit.name: Choice(
                    unit.counts((ratio,), channel_multiple=channel_multiple)[0],
                    structure.base_format if unit.layer_type is LayerType.EMBEDDING else name,
                )
                for unit in structure.units
            }
            found[Policy(choices)] = None
    return tuple(found)


def export_whole_models(
    loaded: LoadedModel,
    policies: tuple[Policy, ...],
    predictor: LatencyPredictor,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[WholeModel]:
    """Export policies one after the other.

    Args:
        loaded: The dense model; its layers are swapped meanwhile.
        policies: What to export.
        predictor: Gives the plain sums of operator times.
        folder: Where the ONNX files go.
        progress: Called after each export.
    """
    maker = VariantMaker(loaded.model, loaded.structure.units, None)
    assembler = Assembler(loaded.model, loaded.structure, maker.make)
    workload = predictor.workload
    traced = loaded.task.random_inputs(2, workload.sequence_length, seed=0)
    feeds = loaded.task.random_inputs(workload.batch, workload.sequence_length, seed=1)
    for number, policy in enumerate(policies):
        path = folder / f"{policy.digest}.onnx"
        export_onnx(assembler.apply(policy), loaded.task, traced, path)
        if progress is not None:
            progress(number + 1, len(policies))
        yield WholeModel(
            predicted_ms=predictor.raw_ms(loaded.structure, policy),
            model=path,
            feeds={name: tensor.numpy() for name, tensor in feeds.items()},
        )
