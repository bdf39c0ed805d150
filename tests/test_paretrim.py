"""The public face: it hands on, imports nothing heavy, and says what hides its packages."""

import json
import subprocess
import sys
import types

import pytest

import controller
import paretrim
from controller.errors import UsageError
from controller.job import JobError

JOB = {"name": "demo", "model": {"id": "org/model"}, "data": {"source": "org/data"}}


def python(program, folder):
    """Run a program as a user would, in a folder that comes first on the path."""
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)


def test_import_is_light_and_finds_its_packages(tmp_path):
    done = python(
        "import sys, paretrim; print([n for n in ('torch', 'ray', 'pydantic') if n in sys.modules])", tmp_path
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", paretrim.PACKAGES)
def test_a_folder_that_hides_a_package_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    done = python("import paretrim", tmp_path)
    assert done.returncode == 1
    assert f"ImportError: Paretrim's package '{name}' must be" in done.stderr
    assert f"{tmp_path / name / '__init__.py'}, which hides it; rename" in done.stderr


def test_a_module_that_hides_a_package_is_named(tmp_path):
    (tmp_path / "workers.py").write_text("")
    assert "workers.py, which hides it; rename" in python("import paretrim", tmp_path).stderr


def test_a_missing_package_is_named(tmp_path):
    program = (
        "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'workers' else real(name)\nimport paretrim"
    )
    assert "needs its package 'workers' beside" in python(program, tmp_path).stderr


def test_the_program_says_what_hides_a_package(tmp_path):
    (tmp_path / "evaluators.py").write_text("")
    program = "import controller.cli.app as a, sys; sys.argv = ['paretrim', '--version']; a.main()"
    done = python(program, tmp_path)
    assert done.returncode == 1
    assert "which hides it" in done.stderr
    assert "Traceback" not in done.stderr


def test_functions_hand_on_to_the_services(tmp_path, monkeypatch):
    calls = []
    operations = types.ModuleType("controller.operations")
    operations.run_search = lambda job, on_progress: calls.append(("search", job.name, on_progress(None)))
    operations.load_front = lambda study, storage, *, pick: calls.append(("front", study, storage, pick))
    operations.run_export = lambda study, storage, **more: calls.append(("export", study, more))
    operations.run_profile = lambda model, target, out, on_progress: calls.append(("profile", model, target, out))
    operations.run_sensitivity = lambda job, on_progress, **more: calls.append(("sensitivity", job.name, more))
    operations.run_sweep = lambda job, on_progress, **more: calls.append(("sweep", job.name, more))
    monkeypatch.setitem(sys.modules, "controller.operations", operations)
    monkeypatch.setattr(controller, "operations", operations, raising=False)
    path = tmp_path / "job.json"
    path.write_text(json.dumps(JOB))
    paretrim.search(str(path))
    paretrim.search(paretrim.load_job(path), on_progress=lambda progress: "told")
    paretrim.front("demo")
    paretrim.export("demo", trial=3, out=str(tmp_path))
    paretrim.profile("model", "target", out=tmp_path)
    paretrim.front("demo", pick="knee")
    paretrim.sensitivity(path, fisher=True, out=str(tmp_path))
    paretrim.sweep(path, keep=(0.5,), max_drop=0.1)
    unasked = {"recovery": None, "early_exit": None, "registration": None}
    assert calls == [
        ("search", "demo", None),
        ("search", "demo", "told"),
        ("front", "demo", "sqlite:///.paretrim/paretrim.db", None),
        ("export", "demo", {"pick": None, "trial": 3, "out": tmp_path, **unasked}),
        ("profile", "model", "target", tmp_path),
        ("front", "demo", "sqlite:///.paretrim/paretrim.db", "knee"),
        ("sensitivity", "demo", {"measure": False, "fisher": True, "out": tmp_path, "csv": None}),
        ("sweep", "demo", {"keep": (0.5,), "max_drop": 0.1, "format": None}),
    ]


def test_functions_refuse_what_makes_no_sense(tmp_path):
    with pytest.raises(JobError, match="letters, digits"):
        paretrim.front("../x")
    with pytest.raises(UsageError, match="either pick or trial"):
        paretrim.export("demo", out=tmp_path)
    with pytest.raises(JobError, match="there is no such file"):
        paretrim.load_job(tmp_path / "none.yaml")
