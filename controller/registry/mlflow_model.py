"""A verified artifact as a model in MLflow's form: an interface that takes raw rows, and what the runtimes load."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.artifact_job import read_job
from controller.job import JobSpec
from controller.registry.transformers_flavor import FLAVOR, transformers_flavor
from evaluators.tasks.base import longest_input
from workers.export.onnx import ExportError
from workers.export.verified import VerifiedArtifact
from workers.quiet import no_progress_bars
from workers.targets.base import ONNX_FILE

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model, ModelSignature

ARTIFACT = "artifact"
ARTIFACT_PATH = f"artifacts/{ARTIFACT}"
"""Where the artifact's folder lies within the model."""
_CODE = Path(__file__).with_name("served_model.py")
_SENTENCE = "sentence-similarity"
_TEXT = ("text-classification", "causal-lm", "seq2seq-lm", _SENTENCE)
_LANGUAGE = ("causal-lm", "seq2seq-lm")
_IMAGE = "image-classification"
_ALWAYS = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")
_EXAMPLE_TEXT = "This is a sentence."
MOST_NEW_TOKENS = 64
"""Tokens that a language model goes on for where a request says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedForm:
    """How a model is asked and answers.

    Attributes:
        settings: What the code that travels along is told.
        example: A request that it can answer; made up, so that no row of anybody's data goes along.
        signature: Types of columns in and out.
        requirements: Packages that it needs, pinned to what is installed here.
    """

    settings: Mapping[str, Any]
    example: pd.DataFrame
    signature: ModelSignature
    requirements: tuple[str, ...]

    @property
    def request(self) -> str:
        """The example as the body of a request, JSON."""
        return json.dumps({"dataframe_records": self.example.to_dict(orient="records")})


class NotServableError(ExportError):
    """The artifact has no form that answers requests."""


def write_mlflow_model(artifact: VerifiedArtifact, path: Path, *, model_id: str, run_id: str | None) -> ServedForm:
    """Write an artifact as an MLflow model: python_function, onnx, and transformers where plain classes load it.

    Args:
        artifact: The artifact; it is copied.
        path: Folder to write, which must not exist.
        model_id: MLflow's number of the model.
        run_id: MLflow's number of the run that it is from.

    Raises:
        NotServableError: The task is a plug-in's, or the tokenizer has no form that can be read without its code.
    """
    with warnings.catch_warnings(), no_progress_bars():
        warnings.simplefilter("ignore")  # MLflow warns of its own type hints as it is imported.
        import mlflow.pyfunc
        from mlflow.models import Model

        form = served_form(artifact)
        model = Model(artifact_path=model_id, model_id=model_id, run_id=run_id)
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=model,
            python_model=str(_CODE),
            artifacts={ARTIFACT: str(artifact.folder.resolve())},
            model_config=dict(form.settings),
            signature=form.signature,
            input_example=form.example,
            pip_requirements=list(form.requirements),
        )
    (path / "artifacts" / artifact.folder.resolve().name).rename(path / ARTIFACT_PATH)
    _add_flavors(model, artifact, path)
    return form


def _add_flavors(model: Model, artifact: VerifiedArtifact, path: Path) -> None:
    # MLflow would name the places on this machine that files came from.
    served = model.flavors["python_function"]
    served["artifacts"][ARTIFACT] = {"path": ARTIFACT_PATH, "uri": ARTIFACT_PATH}
    served["model_code_path"] = _CODE.name
    model.add_flavor(
        "onnx",
        onnx_version=version("onnx"),
        data=f"{ARTIFACT_PATH}/{ONNX_FILE}",
        providers=["CPUExecutionProvider"],
        onnx_session_options=None,
        code=None,
    )
    if artifact.report.folder_loader == "transformers":
        task = read_job(artifact.folder).model.task
        flavor = transformers_flavor(artifact.folder, task, place=ARTIFACT_PATH, path=path)
        if flavor is not None:
            model.add_flavor(FLAVOR, **flavor)
    model.save(path / "MLmodel")


def served_form(artifact: VerifiedArtifact) -> ServedForm:
    """Say how an artifact's model is asked and answers; see `ServedForm`."""
    import pandas as pd
    import transformers

    job = read_job(artifact.folder)
    task = job.model.task
    if task not in (*_TEXT, _IMAGE):
        raise NotServableError(
            f"models of the tasks {', '.join((*_TEXT, _IMAGE))} are registered; got {task!r}; log model.onnx of "
            f"{str(artifact.folder)!r} by mlflow.onnx.log_model"
        )
    if ONNX_FILE not in artifact.report.files:
        raise NotServableError(
            f"a model is served by ONNX Runtime from model.onnx; {str(artifact.folder)!r} has none; search for "
            "the target cpu-onnxruntime (paretrim retarget), and export that"
        )
    config = transformers.AutoConfig.from_pretrained(artifact.folder, trust_remote_code=False)
    _check_tokenizer(artifact, task)
    return ServedForm(
        settings=_settings(artifact, job, config),
        example=pd.DataFrame({job.data.columns.input: [_pixels(config) if task == _IMAGE else _EXAMPLE_TEXT]}),
        signature=_signature(job, config),
        requirements=_requirements(task),
    )


def _check_tokenizer(artifact: VerifiedArtifact, task: str) -> None:
    files = artifact.report.files
    if task in _TEXT and "tokenizer.json" not in files and any(name.startswith("tokenizer") for name in files):
        raise NotServableError(
            f"a served model reads its tokenizer from tokenizer.json; {str(artifact.folder)!r} has only another form; "
            "save the model's tokenizer with a current release of transformers, and search again"
        )


def _settings(artifact: VerifiedArtifact, job: JobSpec, config: Any) -> dict[str, Any]:
    task = job.model.task
    settings: dict[str, Any] = {
        "task": task,
        "column": job.data.columns.input,
        "batch": artifact.report.batch,
        "threads": artifact.report.threads,
    }
    if task not in (*_LANGUAGE, _SENTENCE):
        settings["labels"] = [str(config.id2label[index]) for index in range(config.num_labels)]
    if task == _IMAGE:
        return {**settings, "channels": int(config.num_channels)}
    settings["max_length"] = longest_input(config, job.data.max_length)
    if task in _LANGUAGE:
        start = getattr(config, "decoder_start_token_id", None) if task == "seq2seq-lm" else None
        return {**settings, "ends": _ends(config), "start": start, "max_new_tokens": MOST_NEW_TOKENS}
    return {**settings, "pad_id": int(getattr(config, "pad_token_id", 0) or 0)}


def _ends(config: Any) -> list[int]:
    """Tokens that end a text."""
    found = getattr(config, "eos_token_id", None)
    return [] if found is None else [int(token) for token in (found if isinstance(found, (list, tuple)) else [found])]


def _pixels(config: Any) -> list[Any]:
    """A black image."""
    import numpy as np

    size = getattr(config, "image_size", None) or 32
    height, width = (size, size) if isinstance(size, int) else size
    shape = (height, width) if config.num_channels == 1 else (height, width, 3)
    image: list[Any] = np.zeros(shape, dtype=np.int64).tolist()
    return image


def _signature(job: JobSpec, config: Any) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, ParamSchema, ParamSpec

    column, task = job.data.columns.input, job.model.task
    if task in _LANGUAGE:
        return ModelSignature(
            inputs=Schema([ColSpec(DataType.string, column)]),
            outputs=Schema([ColSpec(DataType.string, "continuation")]),
            params=ParamSchema([ParamSpec("max_new_tokens", DataType.long, MOST_NEW_TOKENS)]),
        )
    if task == _SENTENCE:
        return ModelSignature(
            inputs=Schema([ColSpec(DataType.string, column)]),
            outputs=Schema([ColSpec(Array(DataType.double), "embedding")]),
        )
    answer = Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")])
    if task == _IMAGE:
        rows: Any = Array(Array(DataType.long))
        asked = ColSpec(rows if config.num_channels == 1 else Array(rows), column)
    else:
        asked = ColSpec(DataType.string, column)
    return ModelSignature(inputs=Schema([asked]), outputs=answer)


def _requirements(task: str) -> tuple[str, ...]:
    """Packages by exact release; a build's own suffix ("+cpu") stands in no index."""
    further = ("pillow", "torch", "transformers") if task == _IMAGE else ("tokenizers",)
    return tuple(f"{name}=={version(name).partition('+')[0]}" for name in sorted((*_ALWAYS, *further)))
