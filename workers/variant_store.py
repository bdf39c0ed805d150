"""The variant store: compressed units as safetensors files, each under the digest of all that it was made from.

Several processes and nodes may share one folder without locks. An entry is written whole or not at all, carries a
checksum over its key and its tensors, and is made again where it is missing, torn, altered or another entry's copy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from search_spaces.policy import Choice
from search_spaces.units import Unit
from workers.entry_folders import open_folder

Variant = Mapping[str, Tensor]
"""Tensors of a compressed unit, named "<layer>/<part>"; parts are weight, or codes, scale and zeros, and bias."""

_SUFFIX = ".safetensors"
_ROOM = 0.9
"""Share of the budget that is still in use after entries were dropped, so that not every write drops some."""


class VariantSource(Protocol):
    """What makes variants, and says under which key each belongs."""

    def key(self, unit: Unit, choice: Choice) -> str:
        """Digest of all that a variant depends on."""
        ...

    def make(self, unit: Unit, choice: Choice) -> Variant:
        """Make a variant."""
        ...


class VariantStore:
    """Variants on disk or at a URL, one safetensors file each.

    Args:
        location: Local folder, made where it does not exist, or any URL that fsspec opens ("s3://bucket/variants").
        budget_bytes: Entries used longest ago are dropped when all together are larger; None keeps all.
    """

    def __init__(self, location: Path | str, *, budget_bytes: int | None = None) -> None:
        if budget_bytes is not None and budget_bytes < 1:
            raise ValueError(f"a store's budget is at least one byte; got budget_bytes={budget_bytes}; None keeps all")
        self._budget_bytes = budget_bytes
        self._folder = open_folder(location)

    def has(self, source: VariantSource, unit: Unit, choice: Choice) -> bool:
        """Whether there is an entry for that variant; it may turn out to be damaged when it is read."""
        return self._folder.exists(source.key(unit, choice) + _SUFFIX)

    def get_or_make(self, source: VariantSource, unit: Unit, choice: Choice) -> Variant:
        """Read a variant, or make and store it. An entry that can't be read, or was altered, is made again."""
        key = source.key(unit, choice)
        data = self._folder.read(key + _SUFFIX)
        found = None if data is None else decode_entry(key, data)
        if found is None:
            found = {name: tensor.contiguous() for name, tensor in source.make(unit, choice).items()}
            self._folder.write(key + _SUFFIX, encode_entry(key, found))
            self._drop_oldest(spare=key + _SUFFIX)
        return found

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return sum(entry.size_bytes for entry in self._folder.entries())

    def _drop_oldest(self, *, spare: str) -> None:
        if self._budget_bytes is None:
            return
        entries = self._folder.entries()
        excess = sum(entry.size_bytes for entry in entries) - self._budget_bytes
        if excess <= 0:
            return
        excess += int((1 - _ROOM) * self._budget_bytes)
        dropped = set()
        for entry in sorted(entries, key=lambda entry: entry.used_at):
            if excess > 0 and entry.name != spare:
                dropped.add(entry.name)
                excess -= entry.size_bytes
        self._folder.remove(dropped)


def encode_entry(key: str, tensors: Variant) -> bytes:
    """Write an entry: a plain safetensors file with its checksum as metadata, alone, since their order varies."""
    return save(dict(tensors), metadata={"sha256": _checksum(key, tensors)})


def decode_entry(key: str, data: bytes) -> dict[str, Tensor] | None:
    """Read what `encode_entry` wrote, or None where the bytes are not a whole entry of that key."""
    try:
        tensors = load(data)
        metadata = _metadata(data)
    except (SafetensorError, ValueError):
        return None
    return tensors if metadata.get("sha256") == _checksum(key, tensors) else None


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor of any type, row by row."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _metadata(data: bytes) -> Mapping[str, Any]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return header.get("__metadata__") or {}


def _checksum(key: str, tensors: Variant) -> str:
    digest = hashlib.sha256(key.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
