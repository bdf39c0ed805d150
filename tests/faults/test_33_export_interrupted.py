"""Fault 33: an export is killed (-9) in the middle. There is the whole artifact, verified, or none."""

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workers.export.artifact import file_digests

DRIVER = """
import os, pickle, signal, sys
from pathlib import Path

from workers.export.artifact import ExportRequest, export_artifact
from workers.trial import TrialWorker

if __name__ == "__main__":
    spec, out, point = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), sys.argv[3]

    def watch(happening, arguments):
        '''End this process as it first writes, as it writes its report, or as it is about to release.'''
        if happening == "open" and isinstance(arguments[0], (str, os.PathLike)):
            path, mode = os.fspath(arguments[0]), arguments[1] or ""
            inside = f"{out.parent}/.{out.name}-" in str(path)
            struck = point == "first" and inside and "w" in mode
            struck = struck or (point == "report" and inside and str(path).endswith("report.json") and "w" in mode)
        else:
            struck = point == "release" and happening == "os.rename" and str(arguments[1]) == str(out)
        if struck:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    worker = TrialWorker(spec)
    policy = worker.space.uniform_policies()["keep 0.5, w8a8"]
    request = ExportRequest(
        spec=worker.spec, study="tiny", trial=1, policy=policy, out=out, render_card=lambda report: "# A card"
    )
    export_artifact(worker, request)
"""


@pytest.mark.slow
def test_a_killed_export_releases_nothing_and_the_next_one_all(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    tiny = request.getfixturevalue("tiny_text")
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "spec").write_bytes(pickle.dumps(tiny.spec(tmp_path / "cache")))
    out = tmp_path / "out" / "best"

    def export(point: str) -> int:
        command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "spec"), str(out), point]
        return subprocess.run(command, check=False, timeout=120, capture_output=True).returncode

    for point in ("first", "report", "release"):
        assert export(point) == -signal.SIGKILL, point
        assert not out.exists()
    assert export("never") == 0
    report = json.loads((out / "report.json").read_text())
    found = file_digests(out)
    assert {name: found[name] for name in report["files"]} == report["files"]
    assert set(found) == {*report["files"], "report.json", "README.md"}
