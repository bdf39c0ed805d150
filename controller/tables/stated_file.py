"""Reads files in which people state figures: what columns mean, what an operation costs."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from controller.plain_file import FileKind, PlainFileError, read_plain, show_path
from controller.problems import JobError, describe_errors

R = TypeVar("R", bound=BaseModel)


def load_stated(path: Path, record: type[R], kind: FileKind, *, start: str) -> R:
    """Read and check a file that holds one record.

    Args:
        path: YAML, or JSON where the name ends in ".json"; UTF-8, at most 1 MB.
        record: What it holds.
        kind: What it is called in messages.
        start: First line of such a file, for messages.

    Raises:
        JobError: The file can't be read, or the record is not valid; lists all problems with line and column.
    """
    where = show_path(path)
    try:
        content, positions = read_plain(path, kind)
    except PlainFileError as error:
        raise JobError(where, [str(error)]) from None
    if not isinstance(content, dict):
        raise JobError(where, [f"{kind.holds} holds keys and values; got {type(content).__name__}; start with {start}"])
    try:
        # In JSON mode strict types still let lists be tuples and text be enums.
        return record.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        whole = f"the {kind.holds.split(maxsplit=1)[-1]}"
        raise JobError(where, describe_errors(errors, record, positions, whole=whole)) from None
