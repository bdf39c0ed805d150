"""The JSON Schema of table files is that of the record, and says what is stored."""

import json
from pathlib import Path

import jsonschema
import pytest

import evaluators.latency
from evaluators.latency.correction import Correction
from evaluators.latency.table import Entry, Fingerprint, LatencyTable, Provenance, table_schema
from evaluators.latency.workload import OperatorKind, Workload

FILE = Path(evaluators.latency.__file__).with_name("table.schema.json")


def test_the_file_is_generated_from_the_record():
    generated = json.dumps(table_schema(), indent=2) + "\n"
    assert FILE.read_text(encoding="utf-8") == generated, (
        "write it again: python -c 'import json; from evaluators.latency.table import table_schema; "
        f"print(json.dumps(table_schema(), indent=2))' > {FILE.name}"
    )


def test_every_field_is_described_and_no_other_allowed():
    schema = table_schema()
    records = [schema, *(d for d in schema["$defs"].values() if d["type"] == "object")]
    assert len(records) >= 6
    for record in records:
        assert record["additionalProperties"] is False
        for name, field in record["properties"].items():
            assert field.get("description") or "$ref" in field or "items" in field, (record.get("title"), name)
    assert "checksum" in schema["required"]
    assert "checksum" in schema["$defs"]["Entry"]["required"]


def test_what_is_written_is_valid_and_what_is_altered_is_not():
    fit = Correction(scale=1.1, overhead_ms=0.2, models=5, median_error_pct=1.5, max_error_pct=3.0)
    entry = Entry(
        kind=OperatorKind.QUANTIZE,
        axes={"tokens": 8, "features": 16},
        median_ms=0.5,
        spread_ms=None,
        repeats=None,
        working_set_bytes=0,
    )
    table = LatencyTable(
        target="t",
        fingerprint=Fingerprint(device="x", runtime="r", runtime_version="1", threads=1, os="Linux"),
        provenance=Provenance(measured_at=None),
        entries=(entry,),
    ).with_correction(Workload(batch=1, sequence_length=8), fit)
    content = json.loads(table.to_json())
    jsonschema.validate(content, table_schema())
    content["entries"][0]["median_ms"] = -1
    with pytest.raises(jsonschema.ValidationError, match="-1 is less than or equal to the minimum of 0"):
        jsonschema.validate(content, table_schema())
