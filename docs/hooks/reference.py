"""Writes pages while the site is built: job file, commands and formats from the code, results from the README."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from controller.cli.app import app
from controller.cli.exit_codes import ExitCode
from controller.job import job_schema
from search_spaces.formats import FORMATS
from workers.targets.base import TARGETS

_ROOT = Path(__file__).parents[2]
_NONE = "—"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those that were written."""
    pages = {"job-file": job_file_page, "commands": commands_page, "formats": formats_page}
    for name, page in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    files.append(File.generated(config, "results.md", content=results_page()))
    return files


def job_file_page() -> str:
    """Return the reference of the job file: a table of keys for each section."""
    schema = job_schema()
    definitions: Mapping[str, Any] = schema["$defs"]
    lines = ["# Job file", "", schema["description"], ""]
    lines += ["`paretrim schema` prints the JSON Schema that this page is made from.", ""]
    lines += _keys(schema, definitions)
    for name, path in _sections(schema, definitions, ""):
        definition = definitions[name]
        lines += [f"## {path}", "", *_paragraph(definition), *_keys(definition, definitions)]
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    """Return the reference of the commands: help, arguments and options of each, and what exit codes mean."""
    root = typer.main.get_command(app)
    context = root.context_class(root, info_name="paretrim")
    lines = ["# Commands", "", *_command(root, context)]
    for path, command, inner in _commands(root, context):
        lines += [f"## {path}", "", *_command(command, inner)]
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {_cell(code.meaning)} |" for code in ExitCode]
    return "\n".join(lines) + "\n"


def formats_page() -> str:
    """Return the reference of formats and targets."""
    lines = ["# Formats and targets", ""]
    lines += [
        "| format | weight bits | columns that share a scale | inputs | layers | targets |",
        "|---|---|---|---|---|---|",
    ]
    for name in FORMATS:
        found = FORMATS.get(name)
        group = str(found.group_size or "all of a row") if found.is_quantized else _NONE
        layers = ", ".join(found.layer_types)
        targets = ", ".join(f"`{target}`" for target in TARGETS if name in TARGETS.get(target).formats)
        inputs = found.activation.replace("_", " ")
        lines.append(f"| `{name}` | {found.weight_bits} | {group} | {inputs} | {layers} | {targets} |")
    lines += ["", "| target | what it is | widths are multiples of | exported as |", "|---|---|---|---|"]
    for name in TARGETS:
        target = TARGETS.get(name)
        lines.append(f"| `{name}` | {_cell(target.description)} | {target.channel_multiple} | {target.form} |")
    return "\n".join(lines) + "\n"


def results_page() -> str:
    """Return what the README says was measured, and the files that hold the whole results."""
    readme = (_ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^## What is measured\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError('the README has a section "What is measured"; it has none; name the section as it is now')
    lines = ["# Results", "", "Every figure stands beside the command that measures it.", "", found[1].strip(), ""]
    lines += ["## Whole results", "", "| file in `benchmarks/results` | device | date | command |", "|---|---|---|---|"]
    for path in sorted((_ROOT / "benchmarks" / "results").glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        module = str(body["benchmark"]).partition("-")[0]
        lines.append(f"| `{path.name}` | {body['device']} | {body['date']} | `python -m benchmarks.{module}` |")
    return "\n".join(lines) + "\n"


def _sections(node: Mapping[str, Any], definitions: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    """Name and path of all nested objects of a schema."""
    for key, field in node["properties"].items():
        name = _reference(field)
        if name is not None and "properties" in definitions[name]:
            inner = f"{path}{key}[]" if _is_list(field) else f"{path}{key}"
            yield name, inner
            yield from _sections(definitions[name], definitions, f"{inner}.")


def _keys(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[str]:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key, field in node["properties"].items():
        default = "required" if key in node.get("required", ()) else _default(field)
        meaning = _cell(field.get("description", ""))
        lines.append(f"| `{key}` | {_cell(_kind(field, definitions))} | {default} | {meaning} |")
    return [*lines, ""]


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None:
        return _NONE
    return "see its section" if isinstance(value, dict) else f"`{json.dumps(value)}`"


def _kind(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        kinds = [_kind(option, definitions) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(kinds)
    if "$ref" in field:
        definition = definitions[_name_of(field["$ref"])]
        return "section" if "properties" in definition else _kind(definition, definitions)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_kind(field['items'], definitions)}"
    return {"string": "text", "boolean": "true or false"}.get(field["type"], str(field["type"])) + _range(field)


def _range(field: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    bounds = [f"{word} {field[key]:,}" for key, word in words.items() if key in field]
    return f", {', '.join(bounds)}" if bounds else ""


def _reference(field: Mapping[str, Any]) -> str | None:
    """Name of the definition that a field, or an item of it, refers to."""
    for candidate in (field, field.get("items", {}), *field.get("anyOf", ()), *field.get("allOf", ())):
        if "$ref" in candidate:
            return _name_of(candidate["$ref"])
    return None


def _name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def _is_list(field: Mapping[str, Any]) -> bool:
    return field.get("type") == "array"


def _paragraph(definition: Mapping[str, Any]) -> list[str]:
    return [definition["description"], ""] if "description" in definition else []


def _commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """All commands of a group that do something, with the words that call them."""
    for name, command in getattr(group, "commands", {}).items():
        inner = command.context_class(command, info_name=name, parent=context)
        if getattr(command, "commands", None):
            yield from _commands(command, inner)
        else:
            yield inner.command_path, command, inner


def _command(command: Any, context: Any) -> list[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = ["```", usage, "```", "", (command.help or "").strip(), ""]
    rows = [row for parameter in command.get_params(context) if (row := _parameter(parameter))]
    if rows:
        lines += ["| argument or option | meaning | default |", "|---|---|---|", *rows, ""]
    return lines


def _parameter(parameter: Any) -> str | None:
    if parameter.hidden or "--help" in parameter.opts:
        return None
    is_option = parameter.param_type_name == "option"
    metavar = parameter.metavar or ("" if is_option else parameter.name.upper())
    names = f"`{', '.join(parameter.opts)} {metavar}`" if is_option else f"`{metavar}`"
    default = "required" if parameter.required else _shown_default(parameter)
    meaning = parameter.help or ""
    if parameter.envvar:
        meaning += f" Environment: `{parameter.envvar}`."
    return f"| {names.replace(' `', '`')} | {_cell(meaning)} | {default} |"


def _shown_default(parameter: Any) -> str:
    shown = parameter.show_default
    if isinstance(shown, str):
        return _cell(shown)
    value = parameter.default
    return _NONE if value in (None, False, "", ()) or callable(value) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
