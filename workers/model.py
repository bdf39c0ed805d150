"""The model that a job names: read safely, with its tokenizer or image processor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from evaluators.tasks.base import TASKS, Task, auto_model_of
from search_spaces.units import ModelStructure
from workers.quiet import no_progress_bars

if TYPE_CHECKING:
    from torch import nn

_TOKENIZERS = ("tokenizer", "vocab", "spiece", "sentencepiece")
_TRAINING_SCRIPT = "train_script.py"
"""Lies beside many models from sentence-transformers to show how they were made; nothing loads it."""
_ALIGNED_BYTES = 64
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class ModelError(ValueError):
    """The model can't be read, or must not be."""


class ModelConfig(BaseModel):
    """Which model is compressed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(min_length=1)
    """Local folder, or Hugging Face id ("org/name")."""
    revision: str | None = None
    """Commit or tag on the hub; pin a commit, as tags move."""
    task: str = "text-classification"
    """Name of a registered task."""

    @field_validator("revision")
    @classmethod
    def _revision_is_plain(cls, revision: str | None) -> str | None:
        if revision is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", revision):
            raise ValueError(f"a revision has letters, digits, dots, dashes and underscores only; got {revision!r}")
        return revision


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to be calibrated, compressed and scored.

    Attributes:
        model: The dense model in float32, in evaluation mode.
        processor: Its tokenizer or image processor; None where the model reads bytes.
        task: The task, bound to processor and configuration.
        structure: Its units.
    """

    model: nn.Module
    processor: Any
    task: Task
    structure: ModelStructure


def load_model(config: ModelConfig) -> LoadedModel:
    """Read a model from a local folder or the hub: safetensors only, and never code that comes with it.

    Raises:
        ModelError: Not found, only a pickle, needs remote code, or weights that do not fit the configuration.
        UnsupportedModelError: No architecture module describes it.
    """
    from safetensors import SafetensorError

    from search_spaces.architectures import structure_of

    task_class = _task_class(config)
    refuse_unsafe(config)
    auto_model = auto_model_of(task_class)
    arguments: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    try:
        with no_progress_bars():
            model, loading = auto_model.from_pretrained(
                config.id,
                use_safetensors=True,
                attn_implementation="eager",
                dtype="float32",
                output_loading_info=True,
                **arguments,
            )
        processor = load_processor(config.id, task_class, revision=config.revision)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"model {config.id!r} can't be loaded for the task {config.task!r}: {error}") from error
    _refuse_random_weights(config, loading)
    model.eval()
    model.requires_grad_(False)
    align_weights(model)
    forgo_cache(model)
    _note_image_size(model.config, task_class, lambda: processor)
    return LoadedModel(
        model=model, processor=processor, task=task_class(processor, model.config), structure=structure_of(model)
    )


def align_weights(model: nn.Module) -> None:
    """Move weights to addresses that are multiples of 64 bytes, as torch's own are.

    Those of a mapped file lie anywhere. Some kernels (MKL's on AMD CPUs) add up in another order there, so that equal
    weights gave outputs that differ in their last bits.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.data_ptr() % _ALIGNED_BYTES:
            tensor.data = tensor.data.clone()


def forgo_cache(model: nn.Module) -> None:
    """Let no part of a model keep keys and values of earlier calls: whole texts are scored at once."""
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False


def load_task(config: ModelConfig) -> Task:
    """Read what a task needs of a model: its configuration and its tokenizer or image processor, no weights.

    Raises:
        ModelError: They can't be read.
    """
    import transformers

    task_class = _task_class(config)
    try:
        model_config = transformers.AutoConfig.from_pretrained(
            config.id, revision=config.revision, trust_remote_code=False
        )
        processor = load_processor(config.id, task_class, revision=config.revision)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{config.id!r} has no processor for the task {config.task!r}: {error}") from error
    return task_class(processor, model_config)


def load_processor(folder: str, task_class: type[Task], *, revision: str | None = None) -> Any:
    """Read the tokenizer or image processor of a model; None where there is no tokenizer and bytes will do."""
    import transformers

    if task_class.byte_level and not _has_tokenizer(ModelConfig(id=folder, revision=revision)):
        return None
    auto_processor = getattr(transformers, task_class.auto_processor)
    return auto_processor.from_pretrained(folder, revision=revision, trust_remote_code=False)


def load_structure(config: ModelConfig) -> ModelStructure:
    """Describe a model without reading a weight: from the headers of its files where they tell all, without torch.

    Raises:
        ModelError: As `load_model`.
        UnsupportedModelError: No architecture module describes it.
    """
    from search_spaces.architectures import outlined_structure, structure_of

    task_class = _task_class(config)
    refuse_unsafe(config)
    ending = task_class.auto_model.rpartition(":")[2].removeprefix("AutoModel") or "Model"
    if Path(config.id).is_dir() and (outlined := outlined_structure(Path(config.id), ending=ending)) is not None:
        return outlined
    import torch
    import transformers

    try:
        model_config = transformers.AutoConfig.from_pretrained(
            config.id, revision=config.revision, trust_remote_code=False
        )
        _note_image_size(
            model_config, task_class, lambda: load_processor(config.id, task_class, revision=config.revision)
        )
        with torch.device("meta"):
            model = auto_model_of(task_class).from_config(model_config)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model {config.id!r} can't be described for the task {config.task!r}: {error}") from error
    return structure_of(model)


def _note_image_size(model_config: Any, task_class: type[Task], processor: Callable[[], Any]) -> None:
    """Write the size of images into a configuration without one, as a ResNet's: feature maps follow from it."""
    if task_class.auto_processor == "AutoImageProcessor" and getattr(model_config, "image_size", None) is None:
        from evaluators.tasks.image_classification import processed_size

        model_config.image_size = list(processed_size(processor()))


def _task_class(config: ModelConfig) -> type[Task]:
    import evaluators.tasks  # noqa: F401  (importing registers the tasks)

    return TASKS.get(config.task)


def _has_tokenizer(config: ModelConfig) -> bool:
    files, _ = _list_files(config)
    return any(Path(name).name.startswith(_TOKENIZERS) for name in files)


def refuse_unsafe(config: ModelConfig) -> None:
    """Refuse a model that needs code of its own, or whose weights are only a pickle, before anything of it is read.

    Raises:
        ModelError: It is such a model, or is not found.
    """
    files, model_config = _list_files(config)
    if _mentions_auto_map(model_config) or any(name.endswith(".py") for name in files if name != _TRAINING_SCRIPT):
        raise ModelError(
            f"model {config.id!r} needs code of its own (auto_map or *.py beside the weights), which other programs "
            "run under trust_remote_code=True and Paretrim never runs; save it as a model of an architecture that "
            "transformers has built in"
        )
    if not any(name.endswith(".safetensors") for name in files):
        pickles = sorted(name for name in files if name.endswith(_PICKLES))
        if pickles:
            raise ModelError(
                f"model {config.id!r} has its weights only as a pickle ({pickles[0]}), which can run code when it is "
                'read; where you trust it, convert it once: python -c "from transformers import AutoModel; '
                f"AutoModel.from_pretrained('{config.id}').save_pretrained('{Path(config.id).name}-safetensors')\" "
                "(with the AutoModel class of your task)"
            )
        raise ModelError(f"model {config.id!r} has no *.safetensors file; got {sorted(files)}")


def _list_files(config: ModelConfig) -> tuple[list[str], Any]:
    folder = Path(config.id)
    if folder.is_dir():
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        path = folder / "config.json"
        if not path.is_file():
            raise ModelError(
                f"folder {config.id!r} has no config.json; got {sorted(files)}; save_pretrained writes one"
            )
        return files, _read_config(path)
    if folder.is_absolute() or config.id.startswith(".") or config.id.count("/") > 1:
        raise ModelError(f"no folder {config.id!r}; give a folder with config.json, or a hub id such as org/name")
    return _list_hub_files(config)


def _list_hub_files(config: ModelConfig) -> tuple[list[str], Any]:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        files = HfApi().list_repo_files(config.id, revision=config.revision)
        path = hf_hub_download(config.id, "config.json", revision=config.revision)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(
            f"no folder {config.id!r} here, and the hub gave nothing under that id ({error.__class__.__name__}); "
            "check the path, the id and the network, or download the model first and give its folder"
        ) from error
    return files, _read_config(Path(path))


def _read_config(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not the JSON of a model configuration: {error}") from error


def _mentions_auto_map(node: Any) -> bool:
    if isinstance(node, dict):
        return "auto_map" in node or any(_mentions_auto_map(value) for value in node.values())
    return isinstance(node, list) and any(_mentions_auto_map(value) for value in node)


def _refuse_random_weights(config: ModelConfig, loading: Any) -> None:
    missing: Iterable[str] = loading.get("missing_keys") or ()
    mismatched: Iterable[Any] = loading.get("mismatched_keys") or ()
    wrong = sorted(str(key) for key in (*missing, *mismatched))
    if wrong:
        raise ModelError(
            f"the files of model {config.id!r} lack weights, which would be random: {', '.join(wrong[:5])}"
            f"{' and more' if len(wrong) > 5 else ''}; check that the model was trained for the task {config.task!r}"
        )
