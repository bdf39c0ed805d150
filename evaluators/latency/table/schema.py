"""JSON Schema of table files, for whoever writes or reads them with other programs."""

from typing import Any

from evaluators.latency.table.record import ROW_DIGITS, SCHEMA_VERSION, LatencyTable

SCHEMA_ID = f"urn:paretrim:latency-table:{SCHEMA_VERSION}"


def table_schema() -> dict[str, Any]:
    """Return the JSON Schema of a table file: the record, with the checksums of the file and of each row."""
    body = LatencyTable.model_json_schema()
    _add_checksum(body, 64, "SHA-256 of the canonical JSON of the table without all checksums, in hexadecimal.")
    _add_checksum(
        body["$defs"]["Entry"],
        ROW_DIGITS,
        f"First {ROW_DIGITS} hexadecimal digits of the SHA-256 of the canonical JSON of the row without this key.",
    )
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Paretrim latency table",
    }
    return {**head, **{key: value for key, value in body.items() if key not in head}}


def _add_checksum(definition: dict[str, Any], digits: int, description: str) -> None:
    field = {"type": "string", "pattern": f"^[0-9a-f]{{{digits}}}$", "description": description}
    definition["properties"]["checksum"] = field
    definition["required"] = [*definition["required"], "checksum"]
