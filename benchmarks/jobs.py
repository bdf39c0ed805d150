"""Jobs of the benchmarks: the example of each model, with all output in a scratch folder."""

from __future__ import annotations

from pathlib import Path

from controller.job import JobSpec
from controller.job_file import load_job
from examples.digits import train_digits_model, write_digits

_EXAMPLES = Path(__file__).parents[1] / "examples"


def job_for(model: Path | None, folder: Path) -> JobSpec:
    """Return the job of a benchmark.

    Args:
        model: Folder of a model that has an example (minilm-sst2); None trains the digits transformer.
        folder: Takes database, table, variants, and the digits where they are used.
    """
    if model is None:
        if not (folder / "model" / "model.safetensors").exists():
            write_digits(folder / "data")
            train_digits_model(folder / "data", folder / "model")
        job = load_job(_EXAMPLES / "digits.yaml")
        data = {"source": str(folder / "data/test.jsonl"), "calibration_source": str(folder / "data/train.jsonl")}
        paths = {"model": job.model.model_copy(update={"id": str(folder / "model")})}
    else:
        job = load_job(_EXAMPLES / f"{model.name.replace('-', '_')}.yaml")
        source = model.parents[1] / "data" / "sst2"
        data = {"source": str(source / "dev.tsv"), "calibration_source": str(source / "calibration.tsv")}
        paths = {"model": job.model.model_copy(update={"id": str(model)})}
    return job.model_copy(
        update={
            **paths,
            "data": job.data.model_copy(update=data),
            "storage": f"sqlite:///{folder.absolute()}/paretrim.db",
            "mlflow": job.mlflow.model_copy(update={"enabled": False}),
        }
    )
