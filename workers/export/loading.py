"""Loading of a folder that `export_huggingface` wrote: shapes and formats come from the file, nothing is guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from search_spaces.architectures import UnsupportedModelError
from search_spaces.policy import Policy, PolicyError
from workers.export.agreement import check_agreement
from workers.export.layer_codecs import decode_layer, stored_parts, tensor_names
from workers.export.layer_forms import FolderError, StoredLayer
from workers.export.skeleton import Skeleton, build_skeleton
from workers.model import ModelConfig, align_weights, forgo_cache, refuse_unsafe
from workers.quantization.linear import CallScope, DynamicInt8Linear, SharedInput, UnreadNorm

SCHEMA_VERSION = 1
METADATA = "paretrim"
"""Key in the metadata of a safetensors file."""
PLAIN_FILE = "model.safetensors"
"""The name that `from_pretrained` looks for."""
OWN_FILE = "compressed.safetensors"
"""Weights that only `load_folder` reads; `from_pretrained` would put random ones where it finds none."""
_MOST_METADATA_BYTES = 16 * 2**20
_MOST_JSON_BYTES = 4 * 2**20
_NAMED = 5


class Contents(BaseModel):
    """What a file says of itself.

    Attributes:
        schema_version: Version of this form.
        model_class: Class of the dense model.
        layers: Layers that are not as in the dense model, by name, outer ones first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    model_class: str
    layers: Mapping[str, StoredLayer]


def load_folder(folder: Path) -> nn.Module:
    """Load a model in evaluation mode, with the very arithmetic that was searched.

    Args:
        folder: What `export_huggingface` wrote.

    Raises:
        FolderError: It is not such a folder, is damaged, inconsistent or of another version.
        ModelError: It holds code or pickled weights.
    """
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        raise FolderError(f"a compressed model is a folder; got {str(folder)!r}; give what an export wrote")
    _read_json(folder / "config.json")
    refuse_unsafe(ModelConfig(id=str(folder.absolute())))
    path = weights_file(folder)
    try:
        with safe_open(path, framework="pt") as file:
            contents = _contents(path, file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FolderError(f"{path} can't be read: {error}; export the model again") from error
    policy = _policy(folder)
    skeleton = _skeleton(folder, contents, tensors)
    fill(skeleton, contents.layers, tensors)
    check_agreement(skeleton.model, skeleton.structure, policy)
    align_weights(skeleton.model)
    _share_inputs(skeleton)
    _skip_unread_norms(skeleton, policy)
    return skeleton.model.eval()


def fill(skeleton: Skeleton, layers: Mapping[str, StoredLayer], tensors: Mapping[str, Tensor]) -> None:
    """Make the skeleton the model of a file.

    Args:
        skeleton: The dense model; it is changed.
        layers: Layers that differ from it.
        tensors: All tensors of the file.

    Raises:
        FolderError: Tensors are missing, unexpected or of a wrong shape, or a layer has no place.
    """
    left = dict(tensors)
    for name, stored in layers.items():
        _place(skeleton, name, stored, left)
    _fill_dense(skeleton, layers, left)
    if left:
        raise FolderError(f"the file has tensors that the model has not: {_names(left)}; export the model again")


def _share_inputs(skeleton: Skeleton) -> None:
    """Let layers that read the same input round it once, and all take the same part of a batch for one call."""
    scope, modules = CallScope(), dict(skeleton.model.named_modules())
    for unit in skeleton.structure.units:
        readers = [name for name in unit.layers if isinstance(modules.get(name), DynamicInt8Linear)]
        counts = Counter(unit.input_layer(name) for name in readers)
        shared = {name: SharedInput(count) for name, count in counts.items()}
        for name in readers:
            layer: Any = modules[name]
            layer.scope, layer.shared = scope, shared[unit.input_layer(name)]


def _skip_unread_norms(skeleton: Skeleton, policy: Policy) -> None:
    """Spare what the constants of branches that are left out do not read."""
    for unit in skeleton.structure.units:
        if policy[unit.name].keep == 0 and unit.branch is not None and unit.branch.norm is not None:
            norm = skeleton.model.get_submodule(unit.branch.norm)
            skeleton.model.set_submodule(unit.branch.norm, UnreadNorm(norm))


def _place(skeleton: Skeleton, name: str, stored: StoredLayer, left: dict[str, Tensor]) -> None:
    try:
        dense = skeleton.model.get_submodule(name)
    except AttributeError as error:
        raise FolderError(f"the model has no layer {name!r}; the file is not of this configuration") from error
    if not name:
        raise FolderError("a layer has a name; got an empty one")
    names = {part: skeleton.stored_name(name, part) for part in tensor_names(stored.form)}
    found = {part: left.pop(stored_name) for part, stored_name in names.items() if stored_name in left}
    skeleton.model.set_submodule(name, decode_layer(name, stored, found, dense).eval())


def _fill_dense(skeleton: Skeleton, layers: Mapping[str, StoredLayer], left: dict[str, Tensor]) -> None:
    """Read what is as in the dense model; names that share one tensor read it once."""
    shared: dict[int, list[str]] = {}
    places: dict[str, tuple[nn.Module, str, Tensor]] = {}
    for module_name, module in _untouched(skeleton.model, layers):
        for part, tensor in _own_tensors(module):
            name = skeleton.stored_name(module_name, part)
            places[name] = module, part, tensor
            shared.setdefault(id(tensor), []).append(name)
    missing = []
    for names in shared.values():
        given = [name for name in names if name in left]
        if not given:
            missing.append(names[0])
            continue
        value = left.pop(given[0])
        if len(given) > 1 and not all(left.pop(name).equal(value) for name in given[1:]):
            raise FolderError(f"{given} are one tensor in the model; the file has several; export the model again")
        tensor = places[names[0]][2]
        if (value.shape, value.dtype) != (tensor.shape, tensor.dtype):
            raise FolderError(
                f"{names[0]} is {tensor.dtype} of shape {tuple(tensor.shape)} by the configuration; the file has "
                f"{value.dtype} of shape {tuple(value.shape)}; export the model again"
            )
        new = nn.Parameter(value, requires_grad=False) if isinstance(tensor, nn.Parameter) else value
        for name in names:
            module, part, _ = places[name]
            setattr(module, part, new)
    if missing:
        raise FolderError(f"the file lacks tensors, which would be random: {_names(missing)}; export the model again")


def _untouched(model: nn.Module, layers: Mapping[str, StoredLayer]) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if name not in layers)


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers of a module itself, as the very objects that modules share."""
    own = {**module._parameters, **module._buffers}
    return ((name, tensor) for name in stored_parts(module) if (tensor := own[name]) is not None)


def _names(names: Mapping[str, Any] | list[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def weights_file(folder: Path) -> Path:
    """Return the file of a folder that holds the tensors.

    Raises:
        FolderError: It has none, or two.
    """
    found = [folder / name for name in (PLAIN_FILE, OWN_FILE) if (folder / name).is_file()]
    if len(found) != 1:
        raise FolderError(
            f"a compressed model has one of {PLAIN_FILE} and {OWN_FILE}; {str(folder)!r} has "
            f"{[path.name for path in found]}; export the model again"
        )
    return found[0]


def _contents(path: Path, metadata: Mapping[str, str]) -> Contents:
    text = metadata.get(METADATA)
    if text is None:
        raise FolderError(
            f"{path} was not written by Paretrim (no {METADATA!r} in its metadata); load it with transformers"
        )
    if len(text) > _MOST_METADATA_BYTES:
        raise FolderError(f"the description of layers in {path} has {len(text)} characters, too many to be one")
    try:
        contents = Contents.model_validate_json(text)
    except ValidationError as error:
        raise FolderError(f"the description of layers in {path} is none: {error}") from error
    if contents.schema_version != SCHEMA_VERSION:
        raise FolderError(
            f"this program reads folders of schema_version {SCHEMA_VERSION}; got {contents.schema_version}; use the "
            "paretrim release that wrote it"
        )
    return contents


def _policy(folder: Path) -> Policy:
    path = folder / "policy.json"
    try:
        return Policy.from_json(_read_json(path))
    except PolicyError as error:
        raise FolderError(f"{path} is no policy: {error}") from error


def _read_json(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise FolderError(f"{path} has {path.stat().st_size} bytes, more than any that an export writes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FolderError(f"{path} can't be read: {error}; export the model again") from error


def _skeleton(folder: Path, contents: Contents, tensors: Mapping[str, Tensor]) -> Skeleton:
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = transformers.AutoConfig.from_pretrained(str(folder.absolute()), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise FolderError(f"{folder / 'config.json'} is no configuration: {error}") from error
    try:
        skeleton = build_skeleton(config, contents.model_class, most_layers=len(tensors))
    except UnsupportedModelError as error:
        raise FolderError(f"{folder / 'config.json'}: {error}") from error
    forgo_cache(skeleton.model)
    return skeleton
