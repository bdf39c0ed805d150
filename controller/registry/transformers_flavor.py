"""The flavour by which `mlflow.transformers.load_model` reads a registered model as a pipeline."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workers.quiet import no_progress_bars

FLAVOR = "transformers"
PIPELINES = {
    "text-classification": ("text-classification", "TextClassificationPipeline"),
    "causal-lm": ("text-generation", "TextGenerationPipeline"),
    "image-classification": ("image-classification", "ImageClassificationPipeline"),
}
"""Name and class of the pipeline of each task that has one; transformers 5 has none for sequences to sequences."""
_COMPONENTS = "components"
_COLOURS = 3
_WEIGHTS = ("*.safetensors", "*.onnx", "*.onnx.data")


def transformers_flavor(folder: Path, task: str, *, place: str, path: Path) -> dict[str, Any] | None:
    """Describe a Hugging Face folder as MLflow does a pipeline, and write what MLflow wants beside the weights.

    Weights are not written again: the flavour points to the artifact's folder.

    Args:
        folder: The artifact, which plain `from_pretrained` loads.
        task: Name of the task.
        place: Where the artifact lies within MLflow's folder.
        path: MLflow's folder of the model.

    Returns:
        Content of the flavour; None where the task has no pipeline, the folder has no tokenizer or processor, or the
        model takes other images than those of three colours, which is all that pipelines hand over.
    """
    import transformers

    if task not in PIPELINES:
        return None
    pipeline, instance = PIPELINES[task]
    component = "image_processor" if task == "image-classification" else "tokenizer"
    reader = transformers.AutoImageProcessor if component == "image_processor" else transformers.AutoTokenizer
    with no_progress_bars():
        try:
            found = reader.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError):
            return None
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if component == "image_processor" and getattr(config, "num_channels", _COLOURS) != _COLOURS:
        return None
    shutil.copytree(folder, path / _COMPONENTS / component, ignore=shutil.ignore_patterns(*_WEIGHTS))
    return {
        "task": pipeline,
        "instance_type": instance,
        "pipeline_model_type": config.architectures[0],
        "source_model_name": place,
        "model_binary": place,
        "components": [component],
        f"{component}_type": type(found).__name__,
        "transformers_version": version("transformers"),
        "code": None,
    }
