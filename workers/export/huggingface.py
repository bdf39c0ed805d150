"""Export to a folder that `paretrim.load` reads exactly, and `from_pretrained` where all layers agree in shape."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from search_spaces.policy import Policy
from workers.export.agreement import check_agreement
from workers.export.layer_codecs import encode_layer, stored_parts
from workers.export.layer_forms import FolderError, LayerForm, StoredLayer
from workers.export.loading import METADATA, OWN_FILE, PLAIN_FILE, SCHEMA_VERSION, Contents
from workers.export.narrowing import narrowed
from workers.export.server_config import quantization_config
from workers.export.skeleton import Skeleton, build_skeleton
from workers.quantization.linear import UnreadNorm

_PLAIN_FORMS = (
    LayerForm.FLOAT16,
    LayerForm.INT8,
    LayerForm.INT8_PER_ROW,
    LayerForm.FLOAT8_PER_ROW,
    LayerForm.INT8_ROWS,
)
"""Forms beside float32 that transformers loads. Affine packed 4-bit weights have their place in compressed-tensors, and
its own functions read them exactly, but transformers allots their zero points unpacked and refuses the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSummary:
    """What was written.

    Attributes:
        weights: The safetensors file.
        plain: Whether `from_pretrained` loads it: all shapes are those of the configuration, and nothing is left out.
        needs_compressed_tensors: Whether that takes the package compressed-tensors, as some layers are quantized.
    """

    weights: Path
    plain: bool
    needs_compressed_tensors: bool


def export_huggingface(model: nn.Module, policy: Policy, folder: Path, *, processor: Any = None) -> FolderSummary:
    """Write a model with its configuration, its policy and its tokenizer or image processor.

    Args:
        model: The assembled model of the policy.
        policy: The policy.
        folder: Made where it does not exist; files of the same names are replaced.
        processor: Tokenizer or image processor; None where there is none.

    Raises:
        FolderError: A layer has no form in a file, or the model is not that of the policy.
    """
    from safetensors.torch import save_file

    plan = _plan(model, policy)
    skeleton, layers, tensors = plan.skeleton, plan.layers, plan.tensors
    check_agreement(model, skeleton.structure, policy)
    folder.mkdir(parents=True, exist_ok=True)
    config = plan.config
    config.architectures = [getattr(model, "published_as", type(model).__name__)]
    quantized = quantization_config(
        {
            skeleton.names.get(name, name): stored
            for name, stored in layers.items()
            if not _is_padded(skeleton, name, stored, tensors)
        },
        [
            skeleton.names.get(name, name)
            for name, module in model.named_modules()
            if type(module) in (nn.Linear, nn.Embedding)
        ],
    )
    if quantized is not None:
        config.quantization_config = quantized
    config.save_pretrained(folder)
    contents = Contents(schema_version=SCHEMA_VERSION, model_class=type(model).__name__, layers=layers)
    path = folder / (PLAIN_FILE if plan.plain else OWN_FILE)
    save_file(tensors, path, metadata={"format": "pt", METADATA: contents.model_dump_json(exclude_defaults=True)})
    (folder / "policy.json").write_text(policy.to_json() + "\n", encoding="utf-8")
    if processor is not None:
        processor.save_pretrained(folder)
    save_modules: Any = getattr(model, "save_modules", None)
    if plan.plain and save_modules is not None:
        save_modules(folder)
    generation: Any = getattr(model, "generation_config", None)
    if generation is not None:
        generation.save_pretrained(folder)
    return FolderSummary(weights=path, plain=plan.plain, needs_compressed_tensors=quantized is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What goes into the files.

    Attributes:
        config: Configuration of the skeleton.
        skeleton: The dense model that layers are described against.
        layers: Layers that differ from it.
        tensors: All tensors under their stored names.
        plain: Whether `from_pretrained` loads them.
    """

    config: Any
    skeleton: Skeleton
    layers: Mapping[str, StoredLayer]
    tensors: dict[str, Tensor]
    plain: bool


def _plan(model: nn.Module, policy: Policy) -> _Plan:
    """Describe a model against the narrowest configuration that fits it, else against the dense one."""
    config: Any = model.config
    plan = _describe(model, copy.deepcopy(config))
    if plan.plain:
        return plan
    narrow = narrowed(config, plan.skeleton.structure, policy)
    if narrow.to_dict() == config.to_dict():
        return plan
    other = _describe(model, narrow)
    if not other.plain:
        return plan
    return other


def _describe(model: nn.Module, config: Any) -> _Plan:
    skeleton = build_skeleton(copy.deepcopy(config), type(model).__name__)
    layers: dict[str, StoredLayer] = {}
    tensors: dict[str, Tensor] = {}
    dense_modules = dict(skeleton.model.named_modules())
    for name, module in model.named_modules():
        found = stored_parts(module)
        if not _as_dense(module, dense_modules.get(name)):
            encoded = encode_layer(module)
            if encoded is None:
                raise FolderError(
                    f"a folder holds layers of the dense model and compressed ones; {name!r} is a "
                    f"{type(module).__name__}, which is neither; export it as ONNX alone"
                )
            layers[name], found = encoded
        tensors |= {skeleton.stored_name(name, part): tensor for part, tensor in found.items()}
    return _Plan(
        config=config,
        skeleton=skeleton,
        layers=layers,
        tensors=_without_aliases(model, tensors),
        plain=_is_plain(skeleton, layers, tensors),
    )


def _as_dense(module: nn.Module, dense: nn.Module | None) -> bool:
    """Whether a module is of the dense one's class, or stands for it, with tensors of the same shapes."""
    return dense is not None and type(module) in (type(dense), UnreadNorm) and _shapes(module) == _shapes(dense)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...] | None]:
    own = {**module._parameters, **module._buffers}
    return {name: None if tensor is None else tuple(tensor.shape) for name, tensor in own.items()}


def _without_aliases(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the names that transformers fills from another one; every tensor has memory of its own."""
    aliases = model.all_tied_weights_keys
    kept = {name: tensor for name, tensor in tensors.items() if name not in aliases}
    storages = Counter(tensor.untyped_storage().data_ptr() for tensor in kept.values())
    return {
        name: tensor.clone() if storages[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in kept.items()
    }


def _is_plain(skeleton: Skeleton, layers: Mapping[str, StoredLayer], tensors: Mapping[str, Tensor]) -> bool:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, stored in layers.items():
        if stored.form not in _PLAIN_FORMS:
            return False
        shapes.pop(skeleton.stored_name(name, "weight_scale"), None)
    return shapes == skeleton.plain_shapes


def _is_padded(skeleton: Skeleton, name: str, stored: StoredLayer, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the last block of a 4-bit layer is not full, for which only our own reader has a meaning."""
    if stored.form is not LayerForm.INT4:
        return False
    return bool(tensors[skeleton.stored_name(name, "weight_shape")][1] % stored.block)
