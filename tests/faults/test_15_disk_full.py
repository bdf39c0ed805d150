"""Fault 15: the disk is full. Trials fail by that name, nothing half-written stays, and room is looked for first."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from controller.disk_space import check_disk_space, variant_bytes
from controller.errors import PreflightError
from controller.guard import evaluate_guarded
from controller.storage import Patience, Repository, open_database
from controller.storage.records import StudyState
from search_spaces.policy import Choice
from workers.protocol import FailureReason, TrialFailure, TrialRequest
from workers.simulated import simulated_space
from workers.variant_store import VariantStore

MEGABYTE = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "paretrim-test", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class LargeVariants:
    """Makes variants of 300 kB."""

    def key(self, unit: object, choice: Choice) -> str:
        return f"variant-{choice.keep}"

    def make(self, unit: object, choice: Choice) -> dict[str, torch.Tensor]:
        return {"weight": torch.zeros(300_000, dtype=torch.uint8)}


class StoringWorker:
    """Stores a variant for each trial."""

    def __init__(self, folder: Path) -> None:
        self._store = VariantStore(folder)

    def evaluate(self, request: TrialRequest) -> TrialFailure:
        self._store.get_or_make(LargeVariants(), None, Choice(request.trial, "fp32"))
        raise AssertionError("there was room")


def test_a_trial_that_finds_no_room_fails_by_name_and_leaves_nothing(small_disk: Path) -> None:
    worker = StoringWorker(small_disk / "variants")
    results = []
    for trial in range(1, 6):
        request = TrialRequest(trial=trial, attempt=str(trial), policy=simulated_space(1).dense_policy())
        try:
            results.append(evaluate_guarded(worker, request))
        except AssertionError:
            continue
    failures = [r for r in results if isinstance(r, TrialFailure) and r.reason is FailureReason.DISK_FULL]
    assert len(failures) == 2
    assert "No space left on device" in failures[0].message
    files = [path for path in (small_disk / "variants").rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(path.stat().st_size > 300_000 for path in files)
    # What is there is whole: it is read, not made again.
    store = VariantStore(small_disk / "variants")
    assert store.get_or_make(LargeVariants(), None, Choice(1, "fp32"))["weight"].shape == (300_000,)


def test_a_search_that_the_disk_has_no_room_for_does_not_begin(small_disk: Path) -> None:
    space = simulated_space(4)
    assert variant_bytes(space) > 0
    with pytest.raises(PreflightError, match=r"needs 6\d MB, and its disk has 1 MB free; make room"):
        check_disk_space(small_disk / "cache", space)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)


def test_a_study_waits_for_room_in_its_database(small_disk: Path) -> None:
    database = open_database(f"sqlite:///{small_disk}/paretrim.db")
    patience = Patience(quiet_s=0.0)
    repository = Repository(database, patience)
    study = repository.create_study(
        name="s", job_digest="j", job={}, fixed_json="{}", space_digest="d", objectives=["quality"]
    )
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    # Few enough for the log to fit once there is room: it grows until a checkpoint.
    writer = threading.Thread(target=lambda: [repository.set_state(study, StudyState.STOPPED) for _ in range(40)])
    writer.start()
    try:
        while patience.trouble is None:
            assert writer.is_alive(), "the log was long enough for all of it"
        assert "full" in patience.trouble
    finally:
        filler.unlink()
        writer.join()
    found = repository.find_study("s")
    database.dispose()
    assert found is not None
    assert found.state is StudyState.STOPPED
