"""`paretrim profile`: a latency table of a model's operators on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from controller.preparation import Description, grid_of, measure_table
from controller.results import ProfileSummary, Progress
from search_spaces.space import SpaceConfig
from workers.data import DataConfig
from workers.model import ModelConfig, load_structure
from workers.protocol import WorkerSpec
from workers.targets import TargetConfig
from workers.trial import space_of, workload_of


def run_profile(
    model: ModelConfig, target: TargetConfig, out: Path, on_progress: Callable[[Progress], None]
) -> ProfileSummary:
    """Measure the operators of a model on a grid of widths, and a correction on whole models.

    What the file already holds is not measured again.

    Raises:
        ModelError: The model can't be read.
        ForeignTableError: The file holds a table of other hardware.
    """
    started = time.monotonic()
    structure = load_structure(model)
    config = target.model_copy(update={"table": out})
    spec = WorkerSpec(
        model=model, data=DataConfig(source="none"), space=SpaceConfig(), target=config, cache_dir=out.absolute().parent
    )
    description = Description(
        spec=spec,
        structure=structure,
        space=space_of(spec, structure),
        workload=workload_of(target, structure),
        table=out,
    )

    def on_stage(stage: str, done: int, total: int) -> None:
        elapsed_s = time.monotonic() - started
        eta_s = elapsed_s * (total - done) / done if done else None
        on_progress(Progress(stage=f"{stage} ({done} of {total})", elapsed_s=elapsed_s, eta_s=eta_s))

    table = measure_table(model, config, description, grid_of(description), out, on_stage)
    spreads = [entry.spread_ms / entry.median_ms for entry in table.entries]
    mark = table.fingerprint
    return ProfileSummary(
        target=target.name,
        table=out.absolute(),
        entries=len(table.entries),
        fingerprint=f"{mark.device}, {mark.runtime} {mark.runtime_version}, {mark.threads} thread(s)",
        spread=statistics.median(spreads),
        seconds=time.monotonic() - started,
    )
