"""What all parts of a stored table have in common: strict fields, and a digest over canonical JSON."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class StoredRecord(BaseModel):
    """A frozen part of a stored table: unknown fields, other types and numbers that are not finite are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def digest_of(content: Any) -> str:
    """Return the SHA-256 of the canonical JSON of plain values, in hexadecimal."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
