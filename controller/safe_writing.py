"""Texts escaped for the programs that read them, and files that are written whole or not at all."""

import os
import re
import tempfile
from pathlib import Path

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]#+!|~$])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str) -> str:
    """Put spaces in the place of control characters and line ends."""
    return _CONTROL.sub(" ", text)


def markdown_text(text: str) -> str:
    """Escape a text for Markdown, HTML within it included; control characters become spaces."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN_SPECIAL.sub(r"\\\1", plain)


def csv_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: a quote goes before ``= + - @``, tab and carriage return."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by atomic rename; its folder exists."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
