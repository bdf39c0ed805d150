"""Bad input of every kind ends in a typed error: a small run of the benchmark."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fuzz import shoot, targets


@pytest.mark.parametrize("name", ["job files", "tables", "policies", "arguments"])
def test_nothing_crashes_a_reader(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (target,) = (target for target in targets(tmp_path) if target.name == name)
    assert shoot(target, 150) is None


def test_a_crash_is_told(tmp_path: Path) -> None:
    (target,) = (target for target in targets(tmp_path) if target.name == "policies")

    def read(_text: str) -> None:
        raise KeyError("unforeseen")

    assert shoot(replace(target, read=read), 5) == "KeyError: 'unforeseen'"
