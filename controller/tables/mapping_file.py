"""Reads a mapping file: what the columns of somebody else's file of times mean."""

import json
from pathlib import Path

from pydantic import ValidationError

from controller.plain_file import FileKind, PlainFileError, read_plain, show_path
from controller.problems import JobError, describe_errors
from evaluators.latency.mapping import TableMapping

_MAPPING_FILE = FileKind(
    name="a mapping file", holds="a mapping", hint="evaluators/latency/README.md says what it can hold"
)


def load_mapping(path: Path) -> TableMapping:
    """Read and check a mapping file.

    Args:
        path: YAML, or JSON where the name ends in ".json"; UTF-8, at most 1 MB.

    Raises:
        JobError: The file can't be read, or the mapping is not valid; lists all problems with line and column.
    """
    where = show_path(path)
    try:
        content, positions = read_plain(path, _MAPPING_FILE)
    except PlainFileError as error:
        raise JobError(where, [str(error)]) from None
    if not isinstance(content, dict):
        raise JobError(
            where, [f"a mapping holds keys and values; got {type(content).__name__}; start with target: NAME"]
        )
    try:
        # In JSON mode strict types still let lists be tuples and text be enums.
        return TableMapping.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise JobError(where, describe_errors(errors, TableMapping, positions, whole="the mapping")) from None
