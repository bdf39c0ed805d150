"""Bad input by the thousand: whatever stands in a job file, a latency table, a policy or an argument is a typed error.

    python -m benchmarks.fuzz --examples 20000

Texts are valid ones with values replaced, dropped, repeated and renamed, and some that never were valid. Each is
read as a user's file is; command lines are those that change nothing. `crashes` counts the readers that ended in
anything but the errors and exit codes that they promise, or took longer than ten seconds over one example. The
examples are hypothesis's own, so that what crashes is made small before it is printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.recording import record
from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.job_file import load_job
from controller.problems import JobError
from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance, TableError, parse_table
from evaluators.latency.workload import Operator, OperatorKind
from search_spaces.policy import Choice, Policy, PolicyError

_JOB: Mapping[str, Any] = {
    "name": "fuzz",
    "model": {"id": "models/m", "task": "text-classification"},
    "data": {
        "source": "d.tsv",
        "columns": {"input": "sentence", "label": "label"},
        "calibration": 8,
        "search": 8,
        "holdout": 8,
        "max_length": 32,
    },
    "space": {
        "keep": [1.0, 0.5],
        "formats": ["fp32", "w8a8"],
        "overrides": [{"units": "layer.0.*", "keep": [1.0]}],
        "exclude": ["layer.1.attention"],
    },
    "target": {"name": "cpu-onnxruntime", "batch": 1, "sequence_length": 32, "threads": 1},
    "also": [{"table": "other.json"}],
    "objectives": ["quality", "latency_ms"],
    "constraints": {"max_quality_drop": 0.05, "max_latency_ms": 3.0},
    "search": {"sampler": "frontier", "trials": 60, "seed": 0, "parallel": 2, "timeout_minutes": 5},
    "storage": "sqlite:///paretrim.db",
    "mlflow": {"enabled": False, "tracking_uri": "sqlite:///mlflow.db"},
    "recheck": {"resamples": 200},
    "recovery": {"epochs": 2, "members": 1},
}
_READING = (
    ["validate"],
    ["schema"],
    ["front"],
    ["policy"],
    ["compare"],
    ["explain"],
    ["table", "show"],
    ["table", "check"],
    ["table", "diff"],
    ["table", "list"],
    ["db", "check"],
)
"""Commands that change nothing, and end soon on what does not exist."""
_ODD_TEXTS = ("../x", "", "nan", "1e-3", "010", "on", "sqlite:///", "a\0b", "/dev/full", "x" * 5000, "<b>", "\u202e")
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**30), max_value=10**30),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        ["../x", "", "nan", "1e-3", "010", "on", "sqlite:///", "a\0b", "/dev/full", "x" * 5000, "<b>", "\u202e"]
    ),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


@dataclass(frozen=True, slots=True)
class Target:
    """One reader under fire.

    Attributes:
        name: What it reads.
        examples: What it is given.
        read: Reads one; raises what a reader may, and nothing else, where something is wrong.
    """

    name: str
    examples: st.SearchStrategy[Any]
    read: Callable[[Any], None]


def mutated(valid: Any) -> st.SearchStrategy[Any]:
    """Copies of a JSON value with one to three places changed."""

    @st.composite
    def draw_one(draw: st.DrawFn) -> Any:
        found = copy.deepcopy(valid)
        for _ in range(draw(st.integers(1, 3))):
            places = list(_places(found))
            if not places:
                return draw(_VALUES)
            holder, key = draw(st.sampled_from(places))
            act = draw(st.sampled_from(["replace", "drop", "rename", "nest"]))
            if act == "replace":
                holder[key] = draw(_VALUES)
            elif act == "nest":
                holder[key] = [holder[key]]
            elif act == "rename" and isinstance(holder, dict):
                holder[draw(st.text(max_size=12))] = holder.pop(key)
            else:
                del holder[key]
        return found

    return draw_one()


def _places(part: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
    for key in keys:
        yield part, key
        yield from _places(part[key])


def targets(folder: Path) -> tuple[Target, ...]:
    """All readers under fire.

    Args:
        folder: For files that they read.
    """
    job_texts = st.one_of(
        mutated(_JOB).map(lambda job: yaml.safe_dump(job, allow_unicode=True)),
        mutated(_JOB).map(lambda job: yaml.safe_dump(job, default_flow_style=True)),
        _VALUES.map(yaml.safe_dump),
        st.text(max_size=200),
    )
    return (
        Target("job files", st.one_of(job_texts.map(_utf8), st.binary(max_size=200)), lambda body: _job(folder, body)),
        Target("tables", st.one_of(mutated(_table()).map(json.dumps), st.text(max_size=200)), _parse_table),
        Target("policies", st.one_of(mutated(_policy()).map(json.dumps), st.text(max_size=200)), _parse_policy),
        Target("arguments", _arguments(), _run),
    )


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


def _job(folder: Path, body: bytes) -> None:
    path = folder / "job.yaml"
    path.write_bytes(body)
    try:
        load_job(path)
    except JobError as error:
        str(error)


def _table() -> Any:
    operators = [
        Operator.of(OperatorKind.LINEAR, format="w8a8", tokens=8, in_features=16, out_features=size) for size in (8, 16)
    ]
    table = LatencyTable(
        target="cpu-onnxruntime",
        fingerprint=Fingerprint(device="x", runtime="onnxruntime", runtime_version="1", threads=1, os="Linux"),
        provenance=Provenance(measured_at="2026-01-01T00:00:00+00:00", rounds=1),
        entries=tuple(Entry.of(operator, 0.5, spread_ms=0.1, repeats=3, working_set_bytes=0) for operator in operators),
    )
    return json.loads(table.to_json())


def _parse_table(text: str) -> None:
    try:
        parse_table(text)
    except TableError as error:
        str(error)


def _policy() -> Any:
    choices = {f"layer.{number}.attention": Choice(number, "w8a8") for number in range(3)}
    return json.loads(Policy(choices).to_json())


def _parse_policy(text: str) -> None:
    try:
        Policy.from_json(text)
    except PolicyError as error:
        str(error)


def _arguments() -> st.SearchStrategy[list[str]]:
    options = ["--pick", "--trial", "--storage", "--json", "--table", "--allow-foreign-table", "--data", "--help", "-h"]
    odd = ["-1", "0", "nan", "1e400", "../..", "--", "knee", "best under -1 ms", "sqlite:///", "job.yaml", "x://y"]
    words = st.one_of(st.sampled_from([*options, *odd]), st.text(max_size=20))
    return st.builds(lambda command, rest: [*command, *rest], st.sampled_from(_READING), st.lists(words, max_size=6))


def _run(words: list[str]) -> None:
    """Run a command line that only reads; it ends with one of the documented codes, and never with a traceback."""
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in set(ExitCode) - {ExitCode.FAILED}:
        raise ValueError(f"exit code {result.exit_code} of {words}: {result.output[-300:]}")


def shoot(target: Target, examples: int) -> str | None:
    """Give a reader so many examples.

    Returns:
        What the smallest one ended in that should not have; None where all went well.
    """

    @settings(
        max_examples=examples, deadline=timedelta(seconds=10), database=None, suppress_health_check=list(HealthCheck)
    )
    @given(target.examples)
    def read(example: Any) -> None:
        target.read(example)

    try:
        read()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    """Shoot at all readers and print how many crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=20_000, help="for each reader")
    arguments = parser.parse_args()
    found: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory(prefix="paretrim-fuzz-") as folder:
        os.chdir(folder)
        for target in targets(Path(folder)):
            found[target.name] = shoot(target, arguments.examples)
            sys.stderr.write(f"{target.name}: {found[target.name] or 'no crash'}\n")
    crashes = sum(crash is not None for crash in found.values())
    record(
        "fuzz", {"examples": arguments.examples * len(found), "crashes": crashes}, details={"readers": sorted(found)}
    )


if __name__ == "__main__":
    main()
