"""How benchmarks report: one JSON line last, and the same kept with the device's name."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workers.targets.cpu import cpu_model

RESULTS = Path(__file__).with_name("results")


def record(name: str, figures: dict[str, Any], *, details: dict[str, Any] | None = None, keep: bool = True) -> None:
    """Print a benchmark's figures as the last line, and write them with details to `benchmarks/results/`.

    Args:
        name: Name of the benchmark, and of the model where there are several ("export_fidelity-minilm-sst2").
        figures: What the last line holds.
        details: What is kept beside them.
        keep: False only prints: a small run must not take the place of a whole one.
    """
    if keep:
        _write(name, {**figures, **(details or {})})
    sys.stdout.write(json.dumps(figures) + "\n")


def _write(name: str, found: dict[str, Any]) -> None:
    device, _ = cpu_model()
    body = {
        "benchmark": name,
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    (RESULTS / f"{name}-{slug}.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
