"""Artifacts of tiny models, verified, for tests of what becomes of them; services that commands are tested with."""

import sys
import types
from pathlib import Path

import pytest

import controller
from controller.artifact_job import JOB_FILE, job_text
from controller.job import Constraints, JobSpec, MlflowConfig, SearchConfig


@pytest.fixture(scope="session")
def tiny_artifact(request, tmp_path_factory):
    """Returns a maker of the verified artifact of a tiny model's policy; each is made once."""
    from workers.export.artifact import ExportRequest, export_artifact
    from workers.trial import TrialWorker

    made: dict[tuple[str, str, int], Path] = {}

    def make(kind: str, policy: str = "dense", trial: int = 0) -> Path:
        key = kind, policy, trial
        if key not in made:
            folder = tmp_path_factory.mktemp("artifact")
            tiny = request.getfixturevalue(kind)
            worker = TrialWorker(tiny.spec(folder / "cache"))
            space = worker.space
            policies = {"dense": space.dense_policy(), **space.uniform_policies()}
            job = JobSpec(
                name="tiny",
                model=tiny.model,
                data=tiny.data,
                space=tiny.space,
                target=worker.spec.target,
                constraints=Constraints(max_quality_drop=0.1),
                search=SearchConfig(sampler="nsga2", trials=4),
                mlflow=MlflowConfig(enabled=False),
            )
            asked = ExportRequest(
                spec=worker.spec,
                study="tiny",
                trial=trial,
                policy=policies[policy],
                out=folder / "best",
                render_card=lambda report: "# A card\n",
                texts={JOB_FILE: job_text(job)},
            )
            export_artifact(worker, asked)
            made[key] = folder / "best"
        return made[key]

    return make


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: demo\nmodel: {id: org/model}\ndata: {source: org/data}\n")
    return str(path)


@pytest.fixture
def serve(monkeypatch):
    """Put functions in the place of the services, as each of the real ones loads a model."""

    def put(**functions):
        service = types.ModuleType("controller.operations")
        for name, function in functions.items():
            setattr(service, name, function)
        monkeypatch.setitem(sys.modules, "controller.operations", service)
        monkeypatch.setattr(controller, "operations", service, raising=False)

    return put
