"""The file that a job was read from, for the commands that messages name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from controller.plain_file import show_path
from controller.problems import Location
from workers.model import ModelConfig
from workers.targets.base import TargetConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrigin:
    """A job file and what it names. It is no part of a job's content: any two are equal.

    Attributes:
        file: The job file, as its user wrote the path; None for a job from elsewhere, as a study's in the database.
        model: The model that it names.
        target: The target that it names.
        positions: Line and column of its entries, where they are known.
    """

    file: Path | None = field(default=None, compare=False)
    model: ModelConfig | None = field(default=None, compare=False)
    target: TargetConfig | None = field(default=None, compare=False)
    positions: Mapping[Location, tuple[int, int]] = field(default_factory=dict, compare=False)

    def place_of(self, key: str, target: TargetConfig) -> str:
        """Return where the file gives the target this value, for the start of a message; empty where it does not."""
        if self.file is None or getattr(self.target, key) != getattr(target, key):
            return ""
        line, column = self.positions.get(("target", key), (0, 0))
        return f"{show_path(self.file)}: " + (f"line {line}, column {column}: " if line else "")

    def profile_words(self, model: ModelConfig, target: TargetConfig) -> tuple[str, ...]:
        """Return the command line that measures what the job's space needs, for what became of model and target.

        There is none without a file, nor for a target of another name, as the file's formats may have no kernels there.
        """
        if self.model is None or self.target is None or target.name != self.target.name:
            return ()
        words = ["paretrim", "profile", "--space", str(self.file)]
        for option, value, written in (
            ("--model", model.id, self.model.id),
            ("--task", model.task, self.model.task),
            ("--revision", model.revision, self.model.revision),
            ("--batch", target.batch, self.target.batch),
            ("--sequence-length", target.sequence_length, self.target.sequence_length),
            ("--threads", target.threads, self.target.threads),
        ):
            if value != written and value is not None:
                words += [option, str(value)]
        return tuple(words)

    def names_table(self, table: Path | None) -> bool:
        """Whether there is a file and it names this table, or none where this is None."""
        if self.target is None:
            return False
        named = self.target.table
        return named == table if named is None or table is None else named.resolve() == table.resolve()
