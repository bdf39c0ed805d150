"""Held against others' measurements: every other number of tokens is left out, and predicted from the ones beside it.

    python -m benchmarks.foreign_tables

Imports Vidur's operator times of Llama-2-7B on an H100 (../shared/latency/vidur) and splits them by numbers of tokens:
odd places make the table, even places are predicted from it and compared with what was measured, time by time. The
first and the last number stay in the table, as nothing is predicted outside it. `median_error_pct` is the median
absolute error in per cent over all left-out times; by operator it stands in the details. The source rounds to
microseconds, so that short times are equal or off by much: `median_error_pct_from_50_us` leaves them out.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import record
from controller.tables.mapping_file import load_mapping
from evaluators.latency.importing import join, read_entries
from evaluators.latency.interpolation import TimeGrid
from evaluators.latency.table import Entry
from evaluators.latency.workload import Operator

ROOT = Path(__file__).parents[1]
MAPPING = ROOT / "examples" / "tables" / "vidur_h100_llama2_7b.yaml"
SOURCE = ROOT.parent / "shared" / "latency" / "vidur" / "h100_Llama-2-7b-hf_mlp.csv"
LONG_MS = 0.05
"""Times from which on the source's rounding to microseconds is small."""


def main() -> None:
    """Predict the left-out rows and print the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=SOURCE, help="CSV of times")
    parser.add_argument("--mapping", type=Path, default=MAPPING, help="what its columns mean")
    arguments = parser.parse_args()
    entries = read_entries(arguments.source.read_bytes(), load_mapping(arguments.mapping), name=arguments.source.name)
    kept, left_out = split_by_tokens(entries)
    table = join(kept)
    grid = TimeGrid({entry.operator: entry.median_ms for entry in table})
    errors: dict[str, list[float]] = defaultdict(list)
    long_errors = []
    for entry in left_out:
        found = grid.find(entry.operator)
        assert found is not None, entry.operator
        error_pct = 100 * abs(found.time_ms - entry.median_ms) / entry.median_ms
        errors[_without_tokens(entry.operator)].append(error_pct)
        long_errors += [error_pct] if entry.median_ms >= LONG_MS else []
    operators = {name: _figures(found) for name, found in errors.items()}
    for name, figures in sorted(operators.items(), key=lambda item: -item[1]["median_error_pct"]):
        sys.stderr.write(f"{name}: median {figures['median_error_pct']} %, p90 {figures['p90_error_pct']} %\n")
    record(
        "foreign_tables",
        {
            **_figures([error for found in errors.values() for error in found]),
            "median_error_pct_from_50_us": _figures(long_errors)["median_error_pct"],
        },
        details={"source": arguments.source.name, "table_rows": len(table), "operators": operators},
    )


def split_by_tokens(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Split times by their number of tokens: every other one, and the last, to keep; the others to predict."""
    tokens = sorted({entry.axes["tokens"] for entry in entries})
    kept = {*tokens[::2], tokens[-1]}
    return (
        [entry for entry in entries if entry.axes["tokens"] in kept],
        [entry for entry in entries if entry.axes["tokens"] not in kept],
    )


def _without_tokens(operator: Operator) -> str:
    sizes = [f"{name}={size}" for name, size in operator.axes if name != "tokens"]
    return " ".join([operator.family, *sizes])


def _figures(errors_pct: Sequence[float]) -> dict[str, Any]:
    median, p90, p99 = (round(float(x), 3) for x in np.percentile(errors_pct, [50, 90, 99]))
    return {
        "median_error_pct": median,
        "p90_error_pct": p90,
        "p99_error_pct": p99,
        "left_out_rows": len(errors_pct),
    }


if __name__ == "__main__":
    main()
