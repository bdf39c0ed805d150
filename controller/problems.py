"""Says what is wrong with a job: pydantic's errors as lines of where, what was expected, what came, and the way out."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]

_IN_URL = re.compile(r"(://[^/@\s:]*):\S*@")
_IN_QUERY = re.compile(r"((?:password|token|secret|key)=)[^&\s'\"]+", re.IGNORECASE)
_IN_BROKEN_URL = re.compile(r"(?<!://):(?!//|\*\*\*@)\S+@")
_QUOTED = re.compile(r"'([^']*)'")
_MOST_SHOWN = 80


class JobError(ValueError):
    """A job can't be run as it stands.

    Attributes:
        problems: One line for each thing that is wrong.
    """

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        head = f"{where} has a problem:" if len(self.problems) == 1 else f"{where} has {len(self.problems)} problems:"
        super().__init__("\n  ".join([head, *self.problems]))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (str(self), self.problems))


class MisplacedError(ValueError):
    """A check of several fields found one of them wrong.

    Attributes:
        location: That field.
    """

    def __init__(self, location: Location, message: str) -> None:
        self.location = location
        super().__init__(message)


def _rebuild(text: str, problems: tuple[str, ...]) -> JobError:
    error = JobError("", problems)
    error.args = (text,)
    return error


def mask_passwords(text: str) -> str:
    """Replace the password in every URL of the text by three stars; a broken URL loses its user's name too."""
    return _IN_BROKEN_URL.sub(":***@", _IN_QUERY.sub(r"\1***", _IN_URL.sub(r"\1:***@", text)))


def show(value: Any) -> str:
    """Return a value for a message: short, on one line, without passwords."""
    try:
        text = mask_passwords(repr(value))
    except ValueError:  # an integer with more digits than Python prints
        return f"a number of {value.bit_length()} bits"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def suggest(got: str, valid: Iterable[str], *, noun: str = "choose from") -> str:
    """Return "did you mean ...?", or the valid names where none is close."""
    names = list(valid)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"{noun} {', '.join(names)}"


def describe_errors(
    errors: Sequence[ErrorDetails],
    model: type[BaseModel],
    positions: Mapping[Location, tuple[int, int]] | None = None,
    *,
    whole: str = "the job",
) -> tuple[str, ...]:
    """Return one line for each error.

    Args:
        errors: What `ValidationError.errors` returned for the model.
        model: The model that was validated.
        positions: Line and column (from 1) of the entries of the file, where known.
        whole: What the model is called where an error concerns all of it.
    """
    return tuple(_describe(error, model, positions or {}, whole) for error in errors)


def _describe(
    error: ErrorDetails, model: type[BaseModel], positions: Mapping[Location, tuple[int, int]], whole: str
) -> str:
    found = error.get("ctx", {}).get("error")
    location = found.location if isinstance(found, MisplacedError) else error["loc"]
    line, column = next((positions[p] for p in _parents(location) if p in positions), (0, 0))
    place = f"line {line}, column {column}: " if line else ""
    name = ".".join(str(part) for part in location) or whole
    return f"{place}{show_name(name)}: {_expectation(error, model)}"


def show_name(name: str) -> str:
    """Return a key's path for a message, printable and short."""
    text = name if name.isprintable() else repr(name)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def _parents(location: Location) -> Iterable[Location]:
    return (location[:end] for end in range(len(location), -1, -1))


def _expectation(error: ErrorDetails, model: type[BaseModel]) -> str:
    location, kind, got = error["loc"], error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"unknown key; {suggest(str(location[-1]), _keys_at(location[:-1], model), noun='the keys here are')}"
    meaning = f" ({text})" if (text := _meaning_of(location, model)) else ""
    if kind == "missing":
        return f"required, and missing{meaning}"
    message = error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return mask_passwords(message)
    message = re.sub(r"^(Input|String|Tuple|Value|List) should ", "must ", message)
    if kind in ("enum", "literal_error") and isinstance(got, str):
        return f"{message}; got {show(got)}; {suggest(got, _QUOTED.findall(message))}"
    remedy = f"; {text}" if (text := _remedy(kind, got)) else ""
    return f"{message}; got {show(got)}{remedy}{meaning}"


def _remedy(kind: str, got: Any) -> str:
    if kind == "string_type" and isinstance(got, (int, float)):
        return "put it in quotes"
    if kind == "bool_type":
        return "write true or false"
    if kind in ("tuple_type", "list_type"):
        return "write a list: [a, b]"
    if kind in ("float_type", "int_type") and isinstance(got, str):
        return "write a plain decimal number without quotes, units or separators"
    return ""


def _meaning_of(location: Location, model: type[BaseModel]) -> str:
    """Return the documentation of the field at a location on one line."""
    keys = [part for part in location if isinstance(part, str)]
    found: type[BaseModel] | None = model
    description = ""
    for key in keys:
        if found is None or key not in found.model_fields:
            return description
        field = found.model_fields[key]
        description, found = field.description or "", _nested(field.annotation)
    return " ".join(description.split()).rstrip(".")


def _keys_at(location: Location, model: type[BaseModel]) -> list[str]:
    """Return the keys that are valid at a location."""
    found: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, str) and found is not None and part in found.model_fields:
            found = _nested(found.model_fields[part].annotation)
    return list(found.model_fields) if found is not None else []


def _nested(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `Model`, `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _nested(part)) is not None), None)
