"""How an encoder's outputs for tokens become one embedding, and where models say so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MODULES = "modules.json"
_POOLING_SUFFIX, _NORMALIZE_SUFFIX, _TRANSFORMER_SUFFIX = ".Pooling", ".Normalize", ".Transformer"
_PACKAGE = "sentence_transformers.models"
_WIDTH = "word_embedding_dimension"
_MODES = ("mean", "cls")
_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_FLAG_PREFIX = "pooling_mode_"
_MODE_KEY, _NORMALIZE_KEY = "sentence_pooling", "sentence_normalize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """What happens behind the encoder.

    Attributes:
        mode: "mean" over the tokens that are no padding, or "cls", the first token.
        normalize: Whether embeddings are brought to length 1.
    """

    mode: str = "mean"
    normalize: bool = False


class PoolingError(ValueError):
    """A model pools in a way that is not known here."""


def pooling_of(config: Any) -> Pooling:
    """What a configuration says; the mean, not normalised, where it says nothing.

    Raises:
        PoolingError: It names another mode.
    """
    mode = str(getattr(config, _MODE_KEY, "mean"))
    if mode not in _MODES:
        raise PoolingError(f"{_MODE_KEY} is one of {', '.join(_MODES)}; got {mode!r} in config.json; set one of these")
    return Pooling(mode=mode, normalize=bool(getattr(config, _NORMALIZE_KEY, False)))


def note_pooling(config: Any, pooling: Pooling | None) -> None:
    """Write pooling into a configuration, where files said something."""
    if pooling is not None:
        setattr(config, _MODE_KEY, pooling.mode)
        setattr(config, _NORMALIZE_KEY, pooling.normalize)


def read_pooling(name: str, *, revision: str | None = None) -> Pooling | None:
    """Read what sentence-transformers wrote beside a model; None where it wrote nothing.

    Args:
        name: Folder or hub id.
        revision: Commit or tag on the hub.

    Raises:
        PoolingError: There are other modules than an encoder, pooling and normalisation, or another mode.
    """
    modules = _read_json(name, _MODULES, revision)
    if modules is None:
        return None
    try:
        kinds = [(str(module["type"]), str(module["path"])) for module in modules]
    except (TypeError, KeyError) as error:
        raise PoolingError(f"{_MODULES} of {name!r} lists modules with type and path; got {modules!r}") from error
    if not kinds or not kinds[0][0].endswith(_TRANSFORMER_SUFFIX) or kinds[0][1]:
        raise PoolingError(
            f"the encoder is the first module and lies in the model's own folder; {_MODULES} of {name!r} has {kinds}; "
            "save it again with sentence-transformers, or give the encoder's folder"
        )
    pooling = Pooling()
    for kind, path in kinds[1:]:
        if kind.endswith(_POOLING_SUFFIX):
            mode = _mode_of(_read_json(name, f"{path}/config.json", revision), name)
            pooling = Pooling(mode=mode, normalize=pooling.normalize)
        elif kind.endswith(_NORMALIZE_SUFFIX):
            pooling = Pooling(mode=pooling.mode, normalize=True)
        else:
            raise PoolingError(
                f"behind an encoder there are pooling and normalisation; {_MODULES} of {name!r} has {kind}, which is "
                "not known here; take a model without it"
            )
    return pooling


def write_pooling(folder: Path, pooling: Pooling, *, width: int) -> None:
    """Write pooling as sentence-transformers read it, beside an encoder.

    Args:
        folder: The encoder's.
        pooling: What is behind it.
        width: Features of an embedding.
    """
    kinds = [(_TRANSFORMER_SUFFIX, ""), (_POOLING_SUFFIX, "1_Pooling")]
    if pooling.normalize:
        kinds.append((_NORMALIZE_SUFFIX, "2_Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_PACKAGE}{suffix}"}
        for number, (suffix, path) in enumerate(kinds)
    ]
    flags = {flag: mode == pooling.mode for flag, mode in _FLAGS.items()}
    for _, path in kinds[1:]:
        (folder / path).mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({_WIDTH: width, **flags}, indent=2) + "\n")
    (folder / _MODULES).write_text(json.dumps(modules, indent=2) + "\n")


def _mode_of(content: Any, name: str) -> str:
    """The mode of a pooling module's configuration, of either form that sentence-transformers writes."""
    content = content if isinstance(content, dict) else {}
    if isinstance(content.get("pooling_mode"), str):
        named = [content["pooling_mode"]]
    else:
        flags = [key for key, value in content.items() if key.startswith(_FLAG_PREFIX) and value is True]
        named = [_FLAGS.get(flag, flag) for flag in flags]
    if len(named) != 1 or named[0] not in _MODES:
        raise PoolingError(
            f"tokens are pooled by one of {', '.join(_MODES)}; the pooling module of {name!r} names {named}; take a "
            "model that pools so"
        )
    return str(named[0])


def _read_json(name: str, path: str, revision: str | None) -> Any:
    """Content of a file beside a model; None where there is none."""
    from transformers.utils import cached_file

    found = Path(name) / path if Path(name).is_dir() else None
    if found is None:
        cached = cached_file(
            name,
            path,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
        )
        if cached is None:
            return None
        found = Path(cached)
    try:
        return json.loads(found.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise PoolingError(f"{path} of {name!r} is no JSON that can be read: {error}") from error
