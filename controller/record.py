"""The base of whatever the services hand to whoever shows it: frozen records that turn into JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1


def _plain(value: Any) -> Any:
    """Turn a record into what JSON knows; a number that is not finite becomes null."""
    if isinstance(value, Record) or (is_dataclass(value) and not isinstance(value, type)):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of all results."""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values, with the schema version of all results."""
        return {"schema_version": SCHEMA_VERSION, **_plain(self)}
