"""Several processes write and read one variant store while one of them is killed at random, again and again.

    python -m benchmarks.variant_store --seconds 60

Each process asks for random variants of two models with equal names, whose tensors follow from their key, and compares
what it gets. Entries are dropped at a budget meanwhile. The last line counts what was read and made, processes killed,
`wrong` tensors handed out and `torn` entries left on disk; both must be 0.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from benchmarks.recording import record
from search_spaces.policy import Choice
from search_spaces.units import Producer, Unit, UnitKind
from workers.variant_store import Variant, VariantStore, decode_entry

UNIT = Unit(
    name="layer.0.feed_forward",
    kind=UnitKind.FEED_FORWARD,
    groups=32,
    producers=(Producer(layer="up", rows_per_group=1),),
    consumer="down",
    columns_per_group=1,
    in_features=64,
    out_features=64,
)
FORMATS = ("fp32", "w8a8", "w4")
ASKED, MADE, WRONG = range(3)

Counters = Any
"""Shared memory of one process and its parent alone: a lock that several processes share could die with its holder."""


class Source:
    """Variants whose tensors follow from their key.

    Args:
        model: Tells models apart that bear the same name.
        counters: Counts variants that were made.
    """

    def __init__(self, model: str, counters: Counters) -> None:
        self._model, self._counters = model, counters

    def key(self, unit: Unit, choice: Choice) -> str:
        """As of a maker: all that the variant depends on, digested."""
        return hashlib.sha256(f"{self._model} {unit.name} {choice.keep} {choice.format}".encode()).hexdigest()

    def make(self, unit: Unit, choice: Choice) -> Variant:
        """Draw the tensors."""
        self._counters[MADE] += 1
        return self.expected(unit, choice)

    def expected(self, unit: Unit, choice: Choice) -> Variant:
        """The tensors that belong to a choice."""
        generator = torch.Generator().manual_seed(int(self.key(unit, choice)[:12], 16))
        return {
            "up/weight": torch.randn(choice.keep, 4096, generator=generator),
            "down/codes": torch.randint(-127, 128, (512, choice.keep), generator=generator).to(torch.int8),
            "down/bias": torch.randn(64, generator=generator),
        }


def work(folder: str, budget_bytes: int, seed: int, counters: Counters) -> None:
    """Ask for random variants until ended."""
    torch.set_num_threads(1)
    generator, store = random.Random(seed), VariantStore(folder, budget_bytes=budget_bytes)
    sources = [Source(model, counters) for model in ("fine-tune 1", "fine-tune 2")]
    while True:
        source = generator.choice(sources)
        choice = Choice(generator.randint(1, UNIT.groups), generator.choice(FORMATS))
        found, expected = store.get_or_make(source, UNIT, choice), source.expected(UNIT, choice)
        equal = found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in expected)
        counters[ASKED] += 1
        counters[WRONG] += not equal


def main() -> None:
    """Run the processes, kill one now and then, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=1.0, help="mean seconds between two kills")
    parser.add_argument("--budget-mb", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paretrim-bench-") as folder:
        run(arguments, Path(folder) / "store")


class Crowd:
    """Processes that work on one folder.

    Args:
        folder: The store's.
        budget_bytes: The store's.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._folder, self._budget_bytes = folder, budget_bytes
        self._running: list[tuple[BaseProcess, Counters]] = []
        self._counters: list[Counters] = []

    def start(self) -> None:
        """Add a process."""
        counters: Counters = self._context.RawArray("q", 3)
        arguments = (str(self._folder), self._budget_bytes, len(self._counters), counters)
        process = self._context.Process(target=work, args=arguments, daemon=True)
        process.start()
        self._running.append((process, counters))
        self._counters.append(counters)

    def kill(self, generator: random.Random) -> bool:
        """End one process at once, whatever it is doing, if any is past its start."""
        busy = [index for index, (_, counters) in enumerate(self._running) if counters[ASKED]]
        if busy:
            self._end(generator.choice(busy))
        return bool(busy)

    def _end(self, index: int) -> None:
        process, _ = self._running.pop(index)
        process.kill()
        process.join()

    def kill_all(self) -> None:
        """End all."""
        while self._running:
            self._end(0)

    def wait_until_all_work(self) -> None:
        """Wait until every process has been answered once."""
        while not all(counters[ASKED] for counters in self._counters):
            if not all(process.is_alive() for process, _ in self._running):
                raise RuntimeError("a process ended by itself; its traceback is above")
            time.sleep(0.05)

    def total(self, what: int) -> int:
        """Sum of a counter over all processes, ended ones included."""
        return sum(counters[what] for counters in self._counters)


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Run on one folder and record what came of it."""
    generator, kills = random.Random(arguments.seed), 0
    crowd = Crowd(folder, int(arguments.budget_mb * 1e6))
    for _ in range(arguments.processes):
        crowd.start()
    crowd.wait_until_all_work()
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        time.sleep(min(generator.expovariate(1 / arguments.kill_every), max(0.0, end - time.monotonic())))
        if crowd.kill(generator):
            crowd.start()
            kills += 1
    crowd.kill_all()
    entries = sorted(folder.glob("*.safetensors"))
    torn = sum(decode_entry(path.stem, path.read_bytes()) is None for path in entries)
    wrong = crowd.total(WRONG)
    record(
        "variant_store",
        {
            "wrong": wrong,
            "torn": torn,
            "asked": crowd.total(ASKED),
            "made": crowd.total(MADE),
            "kills": kills,
            "entries_left": len(entries),
            "megabytes_left": sum(path.stat().st_size for path in entries) / 1e6,
            "unfinished_left": len(list(folder.glob(".writing-*"))),
        },
        details={"seconds": arguments.seconds, "processes": arguments.processes, "budget_mb": arguments.budget_mb},
    )
    if wrong or torn:
        sys.exit(1)


if __name__ == "__main__":
    main()
