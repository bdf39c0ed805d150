"""What an architecture module provides, and how a model finds its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from search_spaces.outline import read_config, read_outline
from search_spaces.registry import Registry
from search_spaces.units import FixedPart, ModelStructure, Unit

if TYPE_CHECKING:
    from torch import nn

BYTES_PER_FP32 = 4


class UnsupportedModelError(ValueError):
    """No architecture module describes the model."""


class Architecture(Protocol):
    """Declares the units of one family of models.

    A module under `search_spaces/architectures/` derives from this and registers an instance under the
    `model_type` of its transformers configuration.
    """

    normalizes_first: bool = True
    """Whether a branch normalises its input, and not its sum with the residual stream."""
    reads_shapes_only: bool = False
    """Whether names, shapes and configuration tell all that it declares, so that a `search_spaces.outline` will do."""
    file_renames: Mapping[str, str] = MappingProxyType({})
    """Parts of names in files to what the model calls them, where these differ, in the order of replacement."""

    def prepare(self, model: nn.Module) -> None:
        """Rewire a model, in place and without changing what it computes, where its parts can't be cut as they are.

        Called before anything is read from the model; a second call changes nothing.
        """
        return

    def units(self, model: nn.Module) -> tuple[Unit, ...]:
        """All units in the order in which data flows; the model may be on the meta device."""
        ...

    def fixed_parts(self, model: nn.Module) -> tuple[FixedPart, ...]:
        """Work outside units."""
        ...

    def stacks(self, model: nn.Module) -> tuple[tuple[str, ...], ...]:
        """Blocks, as `ModelStructure` has them; without any, trials share no work."""
        return ()

    def tokens(self, config: Any) -> int | None:
        """Tokens of one example where the model fixes them; None where the data does."""
        return None

    def max_tokens(self, config: Any) -> int | None:
        """Longest sequence that the model takes; None where it is not bounded."""
        return None


ARCHITECTURES: Registry[Architecture] = Registry("architecture", entry_point_group="paretrim.architectures")


def structure_of(model: nn.Module) -> ModelStructure:
    """Describe a model by its architecture module, which may rewire it first (`Architecture.prepare`).

    Args:
        model: A transformers model; the meta device will do, as no weight is read.

    Raises:
        UnsupportedModelError: No module for the model's type, or the model is not built as the module expects.
    """
    config: Any = model.config
    name = str(config.model_type)
    if name not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"models of type {name!r} are not supported; supported: {', '.join(ARCHITECTURES)}; "
            "an own architecture registers itself through the entry point group paretrim.architectures"
        )
    architecture = ARCHITECTURES.get(name)
    try:
        architecture.prepare(model)
        units = architecture.units(model)
        fixed = architecture.fixed_parts(model)
        fixed_bytes = _bytes_outside(model, _modules_of(units))
    except AttributeError as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} is not built as the architecture {name!r} expects ({error})"
        ) from error
    return ModelStructure(
        architecture=name,
        units=units,
        fixed=fixed,
        fixed_bytes=fixed_bytes,
        tokens=architecture.tokens(config),
        max_tokens=architecture.max_tokens(config),
        stacks=architecture.stacks(model),
        normalizes_first=architecture.normalizes_first,
    )


def outlined_structure(folder: Path, *, ending: str) -> ModelStructure | None:
    """Describe the model in a folder without torch; None where its files or its architecture do not allow that.

    Args:
        folder: Holds `config.json` and safetensors files.
        ending: How the name of the model's class ends ("ForCausalLM").

    Returns:
        What `structure_of` says of the model.
    """
    config = read_config(folder)
    name = "" if config is None else str(config.get("model_type"))
    if config is None or name not in ARCHITECTURES or not ARCHITECTURES.get(name).reads_shapes_only:
        return None
    outline = read_outline(folder, config, ending=ending, renames=ARCHITECTURES.get(name).file_renames)
    if outline is None:
        return None
    try:
        return structure_of(cast("nn.Module", outline))
    except (AttributeError, TypeError, UnsupportedModelError):
        return None


def _modules_of(units: Iterable[Unit]) -> Iterator[str]:
    for unit in units:
        yield from unit.layers
        if unit.branch is not None:
            yield unit.branch.module


def _bytes_outside(model: nn.Module, modules: Iterable[str]) -> int:
    """Bytes of all parameters outside the modules; one that several of them share counts once."""
    inside = {id(p) for name in modules for p in model.get_submodule(name).parameters()}
    return sum(p.numel() * BYTES_PER_FP32 for p in model.parameters() if id(p) not in inside)
