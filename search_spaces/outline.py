"""A model without torch: its parameters by name and shape, read from its configuration and the headers of its files.

What an architecture module declares follows from shapes. Importing torch and a model's classes takes seconds, reading
the head of a safetensors file takes none. Whatever is not plainly there is left to the model itself: `read_outline`
then returns None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = frozenset(("F64", "F32", "F16", "BF16"))
_LARGEST_HEADER_BYTES = 100_000_000
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


class OutlinedParameter:
    """A parameter that has a shape and no values.

    Args:
        shape: Its axes.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)

    def numel(self) -> int:
        """Return the number of values."""
        return math.prod(self.shape)


class Outline:
    """A module: its own parameters and its parts, under the names that torch gives them.

    Attributes:
        config: Configuration of the model, at the root.
    """

    def __init__(self) -> None:
        self.config: Any = None
        self._own: dict[str, OutlinedParameter] = {}
        self._parts: dict[str, Outline] = {}

    def add(self, name: str, parameter: OutlinedParameter) -> None:
        """Put a parameter where its name says."""
        *path, last = name.split(".")
        module = self
        for part in path:
            module = module._parts.setdefault(part, Outline())
        module._own[last] = parameter

    def get_submodule(self, target: str) -> Outline:
        """Return a part by its name.

        Raises:
            AttributeError: There is none.
        """
        module = self
        for part in target.split("."):
            if part not in module._parts:
                raise AttributeError(f"the model's files hold nothing under {target!r}")
            module = module._parts[part]
        return module

    def parameters(self) -> Iterator[OutlinedParameter]:
        """Yield each parameter once, as torch does."""
        return iter({id(parameter): parameter for parameter in self._all()}.values())

    def named_children(self) -> list[tuple[str, Outline]]:
        """Return the parts: a list's by their numbers, others as the file has them."""
        if all(name.isdigit() for name in self._parts):
            return sorted(self._parts.items(), key=lambda part: int(part[0]))
        return list(self._parts.items())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._parts:
            return self._parts[name]
        if name == "bias" and "weight" in self._own:
            return self._own.get("bias")
        axis = {"out_features": 0, "num_embeddings": 0, "in_features": 1, "embedding_dim": 1}.get(name)
        weight = self._own.get("weight")
        if axis is None or weight is None or len(weight.shape) != 2:
            raise AttributeError(f"the model's files say nothing of {name!r}")
        return weight.shape[axis]

    def _all(self) -> Iterator[OutlinedParameter]:
        yield from self._own.values()
        for part in self._parts.values():
            yield from part._all()


def read_outline(
    folder: Path, config: Mapping[str, Any], *, ending: str, renames: Mapping[str, str] | None = None
) -> Outline | None:
    """Outline the model in a folder, or return None where its files do not tell all.

    Args:
        folder: Holds safetensors files.
        config: What its `config.json` says.
        ending: How the name of the model's class ends ("ForCausalLM"); weights of another class have other parts.
        renames: Parts of names in files to what the model calls them, in the order in which they are replaced.
    """
    try:
        shapes = _shapes(folder)
    except (OSError, ValueError, RecursionError):
        return None
    classes = config.get("architectures")
    if not (isinstance(classes, list) and classes and str(classes[0]).endswith(ending)):
        return None
    if shapes is None or not _shares_plainly(config, shapes):
        return None
    root = Outline()
    root.config = SimpleNamespace(**config)
    parameters = {_renamed(name, renames or {}): OutlinedParameter(shape) for name, shape in shapes.items()}
    if config.get("tie_word_embeddings") is True and _EMBEDDING in parameters and ending == "ForCausalLM":
        parameters[_HEAD] = parameters[_EMBEDDING]
    for name, parameter in parameters.items():
        root.add(name, parameter)
    return root


def read_config(folder: Path) -> dict[str, Any] | None:
    """Read a folder's `config.json`; None where there is none that can be read."""
    try:
        return _read_json(folder / "config.json")
    except (OSError, ValueError, RecursionError):
        return None


def _renamed(name: str, renames: Mapping[str, str]) -> str:
    for before, after in renames.items():
        name = name.replace(before, after)
    return name


def _shares_plainly(config: Mapping[str, Any], shapes: Mapping[str, Any]) -> bool:
    """Whether it is known if a language model's head and its embedding are one: files hold a shared table once."""
    return _EMBEDDING not in shapes or isinstance(config.get("tie_word_embeddings"), bool)


def _shapes(folder: Path) -> dict[str, list[int]] | None:
    """Shapes of all tensors by name; None where one of them is no parameter."""
    files = [folder / _WEIGHTS]
    if not files[0].is_file():
        names = set(_read_json(folder / _INDEX)["weight_map"].values())
        if any(Path(name).name != name for name in names):
            return None
        files = [folder / name for name in sorted(names)]
    found: dict[str, list[int]] = {}
    for path in files:
        for name, tensor in _read_header(path).items():
            if tensor["dtype"] not in _FLOATS:
                return None
            found[name] = [int(size) for size in tensor["shape"]]
    return found


def _read_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LARGEST_HEADER_BYTES:
            raise ValueError(f"the header of {path} is too long to be one: {length} bytes")
        header = json.loads(file.read(length))
    return {name: tensor for name, tensor in header.items() if name != "__metadata__"}


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no mapping")
    return content
