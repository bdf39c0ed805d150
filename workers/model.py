"""The model that a job names: read safely, with its tokenizer or image processor."""

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator


class ModelConfig(BaseModel):
    """Which model is compressed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
