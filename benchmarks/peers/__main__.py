"""Paretrim's front beside what other tools make of the same model, on one machine, data and runtime, in one run.

    python -m benchmarks.peers --model ../shared/models/minilm-sst2
    python -m benchmarks.peers --model ../shared/models/minilm-sst2 --with-optional
    python -m benchmarks.peers --model ../shared/models/minilm-sst2 --study sqlite:///$PWD/examples/.paretrim/paretrim.db

Peers: ONNX Runtime's dynamic int8 and 4-bit weights everywhere, torch-pruning by magnitude followed by int8, and with
--with-optional, each in a virtual environment that is made for it, Model-Optimizer's auto_quantize, Olive's search and
Neural Compressor's tuning. Peers calibrate on the examples that ours calibrates on; those that score candidates do so
on the half of dev that our search sees. Nobody trains. All are scored on all of dev, and timed from their ONNX files by
the same code, in turn, in a fresh session each time; files are taken as their tools write them.

`dominated` counts the peers' models that a member of our front dominates or levels, of `of` (rules:
`benchmarks.peers.verdict`), `levelled` those of them that are only levelled, `dominated_unseen_half` as many as
`dominated` by the half of dev alone that no search saw. `speedup_at_equal_accuracy` is the latency
of the most accurate of them over that of our fastest member that is at least as accurate.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.jobs import job_for
from benchmarks.peers.contestant import Absent, Contestant, Side
from benchmarks.peers.isolated import ISOLATED, run_isolated
from benchmarks.peers.magnitude import pruned_then_int8
from benchmarks.peers.material import Material, prepare
from benchmarks.peers.measure import Measured, measure
from benchmarks.peers.onnxruntime_uniform import dynamic_int8, weights_4_bit
from benchmarks.peers.ours import Durations, dense_by_our_export, export_members, spread
from benchmarks.peers.verdict import Standing, Verdict, best_of, judge
from benchmarks.recording import record
from controller.job import JobSpec
from controller.results import Progress
from controller.search import run_search
from controller.search_result import load_front
from controller.storage.engine import open_database
from controller.storage.repository import Repository
from controller.study_summary import summarise
from evaluators.scores import QualityMeasure

_ENVIRONMENTS = Path(".paretrim/peers")
_Make = Callable[[Material], Sequence[Contestant | Absent]]


def main() -> None:
    """Let all make their models, measure them, and print how they stand."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        job = _job(arguments, folder)
        material = prepare(job, folder / "peers")
        made = [*_references(material), *_peers(material, arguments)]
        made += _ours(job, arguments, folder)
        present = [each for each in made if isinstance(each, Contestant)]
        measured = measure(present, material, rounds=arguments.rounds)
        _report(measured, [each for each in made if isinstance(each, Absent)], arguments.model.name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a text classifier that has an example")
    parser.add_argument("--study", help="URL of the database of a finished study of the example; else it is searched")
    parser.add_argument("--folder", type=Path, help="keeps study, models and answers of drivers for another run")
    parser.add_argument("--trials", type=int, help="trials of our search; else those of the example")
    parser.add_argument("--members", type=int, help="members of our front, spread along it; else all")
    parser.add_argument("--rounds", type=int, default=15, help="how often each model is timed")
    parser.add_argument("--with-optional", action="store_true", help="run peers that need environments of their own")
    parser.add_argument("--only", nargs="+", choices=[each.name for each in ISOLATED], help="which of those")
    parser.add_argument("--environments", type=Path, default=_ENVIRONMENTS, help="keeps these (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.folder is not None and arguments.study is not None:
        parser.error("--folder keeps exports of a study of its own; give it without --study")
    for name in ("members", "rounds"):
        given = getattr(arguments, name)
        if given is not None and given < 1:
            parser.error(f"--{name} is 1 or more; got {given}")
    return arguments


def _job(arguments: argparse.Namespace, folder: Path) -> JobSpec:
    job = job_for(arguments.model, folder)
    if arguments.study is not None:
        found = summarise(Repository(open_database(arguments.study)), job.name).job
        return found.model_copy(update={"storage": arguments.study})
    # Accuracy on the few hundred examples of the search half rewards luck.
    job = job.model_copy(update={"quality": QualityMeasure.FIDELITY})
    if arguments.trials is None:
        return job
    return job.model_copy(update={"search": job.search.model_copy(update={"trials": arguments.trials})})


def _references(material: Material) -> list[Contestant]:
    stock = Contestant(name="dense onnxruntime", side=Side.DENSE, path=material.stock, made_in_s=0.0)
    return [stock, dense_by_our_export(material)]


def _peers(material: Material, arguments: argparse.Namespace) -> list[Contestant | Absent]:
    makes: list[_Make] = [dynamic_int8, weights_4_bit, pruned_then_int8]
    chosen = [each for each in ISOLATED if arguments.only is None or each.name in arguments.only]
    absent = [Absent(name=each.name, reason="not asked for; give --with-optional") for each in ISOLATED]
    if arguments.with_optional:
        makes += [partial(run_isolated, each, environments=arguments.environments) for each in chosen]
        absent = [each for each in absent if each.name not in {peer.name for peer in chosen}]
    found: list[Contestant | Absent] = [*absent]
    for make in makes:
        for each in make(material):
            _say(f"peer: {each.name}: {each.reason if isinstance(each, Absent) else f'{each.made_in_s:.0f} s'}")
            found.append(each)
    return found


def _ours(job: JobSpec, arguments: argparse.Namespace, folder: Path) -> list[Contestant]:
    durations = Durations(folder / "durations.json")
    if arguments.study is not None:
        result, searched_in_s = load_front(job.name, job.storage), 0.0
    else:
        started = time.perf_counter()
        result = run_search(job, _show)
        # A study that was searched before is only read.
        if "search" not in durations:
            durations.keep("search", time.perf_counter() - started)
        searched_in_s = durations["search"]
    rows = spread(result.front, arguments.members)
    return export_members(job.name, job.storage, rows, folder / "ours", durations, searched_in_s=searched_in_s)


def _report(measured: Sequence[Measured], absent: Sequence[Absent], model: str) -> None:
    by_side = {side: [each for each in measured if each.contestant.side is side] for side in Side}
    peers, ours, dense = by_side[Side.PEER], by_side[Side.OURS], by_side[Side.DENSE][0]
    verdicts = {each.contestant.name: judge(each, ours) for each in peers}
    unseen = {each.contestant.name: judge(each, ours, unseen_only=True) for each in peers}
    rows = [_row(each, dense, verdicts.get(each.contestant.name)) for each in measured]
    for row in rows:
        _say(_line(row))
    for missing in absent:
        _say(f"{missing.name}: {missing.reason}")
    best = best_of(peers)
    speedup = verdicts[best.contestant.name].speedup_at_its_accuracy
    record(
        f"peers-{model}",
        {
            "dominated": sum(each.standing is not Standing.OPEN for each in verdicts.values()),
            "levelled": sum(each.standing is Standing.LEVEL for each in verdicts.values()),
            "of": len(peers),
            "dominated_unseen_half": sum(each.standing is not Standing.OPEN for each in unseen.values()),
            "best_peer": best.contestant.name,
            "speedup_at_equal_accuracy": None if speedup is None else round(speedup, 3),
            "absent": [each.name for each in absent],
        },
        details={
            "models": rows,
            "verdicts": {name: asdict(each) for name, each in verdicts.items()},
            "verdicts_unseen_half": {name: asdict(each) for name, each in unseen.items()},
            "why_absent": {each.name: each.reason for each in absent},
        },
    )


def _row(each: Measured, dense: Measured, verdict: Verdict | None) -> dict[str, Any]:
    return {
        "name": each.contestant.name,
        "side": str(each.contestant.side),
        "accuracy": round(each.accuracy, 5),
        "accuracy_unseen_half": round(each.unseen_accuracy, 5),
        "latency_ms": round(each.latency_ms, 4),
        "latency_over_dense": round(each.latency_over(dense), 4),
        "size_bytes": each.contestant.size_bytes,
        "made_in_s": each.contestant.made_in_s,
        "note": each.contestant.note,
        "standing": None if verdict is None else str(verdict.standing),
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['name']:44s} {row['accuracy']:.4f} ({row['accuracy_unseen_half']:.4f} unseen) {row['latency_ms']:7.3f} "
        f"ms  {row['latency_over_dense']:.3f} of dense {row['size_bytes'] / 1e6:6.1f} MB  {row['standing'] or ''}"
    )


def _show(progress: Progress) -> None:
    _say(f"{progress.stage} {progress.trials_done}/{progress.trials_total} {progress.best or ''}")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
