"""Reads a mapping file: what the columns of somebody else's file of times mean."""

from pathlib import Path

from controller.plain_file import FileKind
from controller.tables.stated_file import load_stated
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
    return load_stated(path, TableMapping, _MAPPING_FILE, start="target: NAME")
