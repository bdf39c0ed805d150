"""What one-shot compression costs in quality: uniform policies by saliency, update and rounding.

    python -m benchmarks.compression_quality --model ../shared/models/minilm-sst2

Units of one kind are pruned alike, all others stay whole; every unit takes the row's format. Without --model a ResNet
is trained on digits, several times, as one of them on few images says little; a row holds means over them.

In the last line `kl_ratio` is the KL to the dense outputs of magnitude pruning over that of the default, by keep, for
feed-forward or convolution channels in the base format; `ffn_drop_0.25` and `heads_drop_0.5` are the quality that the
default loses against the dense model, in the metric's unit. `default_best_or_level` counts rows (kind, keep, format) in
which the default's KL is the lowest or within 5 % of it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Case, load_case
from benchmarks.recording import record
from search_spaces.formats import FORMATS, LayerType
from search_spaces.policy import Choice, Policy
from search_spaces.units import Unit, UnitKind
from workers.assemble import Assembler
from workers.pruning import Saliency
from workers.variant_store import Variant
from workers.variants import Method, VariantMaker

LEVEL = 1.05
KEEPS = (0.75, 0.5, 0.25)
CHANNELS = (UnitKind.FEED_FORWARD, UnitKind.CONVOLUTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One uniform policy made by one method.

    Attributes:
        kind: Units that are pruned.
        keep: Share of their groups that stays.
        format: Format of all units.
        saliency: By what groups were ranked; None where none went.
        update: Whether projections were solved again.
        gptq: Whether weights were rounded by GPTQ; None where they were not.
        quality: The task's metric.
        kl: Mean KL divergence to the dense outputs, nats.
    """

    kind: str
    keep: float
    format: str
    saliency: str | None
    update: bool | None
    gptq: bool | None
    quality: float
    kl: float

    @property
    def is_default(self) -> bool:
        """Whether the defaults of `Method` made it."""
        return self.saliency in (None, Saliency.HESSIAN) and self.update is not False and self.gptq is not False


def main() -> None:
    """Measure the table and print what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the model; a ResNet on digits without it")
    parser.add_argument("--formats", nargs="*", help="formats beside the base format; all that fit without it")
    parser.add_argument("--saliencies", nargs="*", default=["magnitude_l2", "activation", "hessian"])
    parser.add_argument("--trained", type=int, default=4, help="models that are trained without --model")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        count = arguments.trained if arguments.model is None else 1
        cases = [load_case(arguments.model, Path(folder) / str(seed), seed=seed) for seed in range(count)]
        saliencies, formats = [Saliency(name) for name in arguments.saliencies], _formats(cases[0], arguments.formats)
        rows = []
        for alike in zip(*(measure(case, saliencies, formats) for case in cases), strict=True):
            rows.append(_mean(alike))
            sys.stderr.write(f"{_describe(rows[-1])}\n")
    dense = statistics.mean(case.evaluator.dense_metric for case in cases)
    record(
        f"compression_quality-{cases[0].name}",
        summarise(rows, dense),
        details={"dense": dense, "minutes": (time.monotonic() - started) / 60, "rows": [asdict(row) for row in rows]},
    )


def measure(case: Case, saliencies: Sequence[Saliency], formats: Sequence[str]) -> Iterator[Row]:
    """Score every uniform policy under every method."""
    bench = _Bench(case)
    units = case.loaded.structure.units
    kinds = [kind for kind in (*CHANNELS, UnitKind.ATTENTION) if any(unit.kind is kind for unit in units)]
    for name in formats[1:]:
        for gptq in (False, True):
            yield bench.row(Method(gptq=gptq), kinds[0], 1.0, name)
    for kind in kinds:
        for saliency, update in itertools.product(saliencies, (False, True)):
            for keep, name in itertools.product(KEEPS, formats if kind in CHANNELS else formats[:1]):
                for gptq in (False, True) if FORMATS.get(name).is_quantized else (True,):
                    yield bench.row(Method(saliency=saliency, update=update, gptq=gptq), kind, keep, name)


class _Bench:
    """Scores policies under one method after the other; units that stay whole are made once."""

    def __init__(self, case: Case) -> None:
        self._case, self._calibration = case, case.calibration()
        self._makers: dict[Method, VariantMaker] = {}
        self._whole: dict[tuple[Unit, Choice, bool], Variant] = {}

    def row(self, method: Method, kind: UnitKind, keep: float, format_name: str) -> Row:
        """Compress and score one uniform policy, and leave the model dense."""
        structure = self._case.loaded.structure
        if method not in self._makers:
            model = self._case.loaded.model
            self._makers[method] = VariantMaker(model, structure.units, self._calibration, method)
        assembler = Assembler(self._case.loaded.model, structure, lambda unit, choice: self._make(method, unit, choice))
        policy = Policy({u.name: _choice(u, keep if u.kind is kind else 1.0, format_name) for u in structure.units})
        quality = self._case.evaluate(assembler, policy)
        assembler.apply(Policy({u.name: Choice(u.groups, structure.base_format) for u in structure.units}))
        return Row(
            kind=kind.value,
            keep=keep,
            format=format_name,
            saliency=method.saliency.value if keep < 1 else None,
            update=method.update if keep < 1 else None,
            gptq=method.gptq if FORMATS.get(format_name).is_quantized else None,
            quality=quality.value,
            kl=quality.kl_to_dense,
        )

    def _make(self, method: Method, unit: Unit, choice: Choice) -> Variant:
        if choice.keep < unit.groups:
            return self._makers[method].make(unit, choice)
        key = (unit, choice, method.gptq)
        if key not in self._whole:
            self._whole[key] = self._makers[method].make(unit, choice)
        return self._whole[key]


def _mean(alike: Sequence[Row]) -> Row:
    """Rows of several models that differ in nothing else."""
    return replace(
        alike[0], quality=statistics.mean(row.quality for row in alike), kl=statistics.mean(row.kl for row in alike)
    )


def _choice(unit: Unit, keep: float, format_name: str) -> Choice:
    has_kernel = unit.layer_type in FORMATS.get(format_name).layer_types
    return Choice(max(1, round(keep * unit.groups)), format_name if has_kernel else "fp32")


def _formats(case: Case, names: Sequence[str] | None) -> list[str]:
    """The base format, and those that were asked for or that fit the model's largest units."""
    structure = case.loaded.structure
    layer_types = {unit.layer_type for unit in structure.units} - {LayerType.EMBEDDING}
    fitting = [name for name in ("w8a8", "w8a8s", "w4", "w4g128") if layer_types <= set(FORMATS.get(name).layer_types)]
    return [structure.base_format, *(names if names is not None else fitting)]


def summarise(rows: Sequence[Row], dense: float) -> dict[str, Any]:
    """The figures of the last line."""
    plain = [row for row in rows if row.format == "fp32" and row.keep < 1]
    channels = [row for row in plain if row.kind in CHANNELS]
    default = {row.keep: row for row in channels if row.is_default}
    magnitude = {row.keep: row for row in channels if row.saliency == Saliency.MAGNITUDE_L2 and not row.update}
    heads = [row for row in plain if row.kind == UnitKind.ATTENTION and row.is_default]
    groups: dict[tuple[str, float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.keep, row.format), []).append(row)
    lost = [key for key, group in groups.items() if not _is_level(group)]
    figures: dict[str, Any] = {
        "kl_ratio": {str(keep): magnitude[keep].kl / row.kl for keep, row in default.items() if keep in magnitude},
        "ffn_drop_0.25": dense - default[0.25].quality,
        "rows": len(groups),
        "default_best_or_level": len(groups) - len(lost),
        "default_behind": [" ".join(map(str, key)) for key in lost],
    }
    for row in heads:
        if row.keep == 0.5:
            figures["heads_drop_0.5"] = dense - row.quality
    return figures


def _is_level(group: Sequence[Row]) -> bool:
    default = min(row.kl for row in group if row.is_default)
    return default <= LEVEL * min(row.kl for row in group)


def _describe(row: Row) -> str:
    update = "-" if row.update is None else "update" if row.update else "cut"
    rounding = "-" if row.gptq is None else "gptq" if row.gptq else "nearest"
    method = f"{row.saliency or '-':12} {update:6} {rounding:7}"
    return f"{row.kind:12} {row.keep:4} {row.format:6} {method} quality {row.quality:.4f} KL {row.kl:.5f}"


if __name__ == "__main__":
    main()
