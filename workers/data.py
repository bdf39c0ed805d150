"""The data that a job names: rows from files or a hub, split into calibration, search and holdout."""

from pydantic import BaseModel, ConfigDict, Field


class Columns(BaseModel):
    """Which columns hold what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str = "text"
    """Text, or image (path, bytes or nested list of pixels)."""
    label: str = "label"
    """Integer class, or the class's name as the model knows it."""


class DataConfig(BaseModel):
    """Examples, and how many go to each split. Splits never share a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1)
    """Local csv, tsv, jsonl, parquet or text file, or a hub id ("org/name")."""
    config: str | None = None
    """Configuration of a hub data set."""
    hub_split: str = "train"
    """Split of a hub data set that rows are taken from."""
    revision: str | None = None
    """Commit of a hub data set."""
    columns: Columns = Columns()
    """Names of the columns."""
    calibration_source: str | None = None
    """Another source for the calibration examples, of the same kind and columns."""
    calibration: int = Field(default=128, ge=1)
    """Examples that compression looks at."""
    search: int = Field(default=512, ge=1)
    """Examples that trials are scored on."""
    holdout: int = Field(default=512, ge=1)
    """Examples that only the finished front and the artifact are scored on."""
    max_length: int = Field(default=128, ge=2)
    """Longest input in tokens; longer ones are cut."""
    shuffle: bool = True
    """Whether rows are drawn at random (seeded) or in the file's order."""
