"""Real searches of tiny models, in this process."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.dispatch import search_inline
from controller.job import JobSpec, parse_job
from controller.preparation import describe, price
from controller.results import Progress
from controller.search import study_config_of
from controller.study_factory import StudyFactory
from workers.trial import TrialWorker

if TYPE_CHECKING:
    from conftest import TinyJob


def quiet(_progress: Progress) -> None:
    """Take progress and say nothing."""


def make_job(tiny: "TinyJob", folder: Path, trials: int, **changes: Any) -> JobSpec:
    """The job of a tiny model, with its database in a folder; changes replace whole sections."""
    content = {
        "name": "tiny",
        "model": {"id": tiny.model.id, "task": tiny.model.task},
        "data": tiny.data.model_dump(mode="json"),
        "space": {"keep": [1.0, 0.5, 0.0], "formats": ["fp32", "w8a8"]},
        "target": {"table": str(tiny.table), "sequence_length": tiny.sequence_length},
        "search": {"sampler": "frontier", "trials": trials},
        "storage": f"sqlite:///{folder}/paretrim.db",
        "mlflow": {"enabled": False},
        "recheck": {"resamples": 200},
    }
    return parse_job({**content, **changes})


def search(job: JobSpec) -> TrialWorker:
    """Search, and return the worker that scored."""
    priced = price(job, describe(job), lambda *_: None)
    worker = TrialWorker(priced.description.spec)
    config = study_config_of(job, priced, worker, worker.chance_quality)
    search_inline(StudyFactory(config=config, storage=job.storage, cost_of=priced.costs.costs)(), worker)
    return worker
