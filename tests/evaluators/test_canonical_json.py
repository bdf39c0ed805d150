"""What the page on tables tells other programs about digests holds."""

import json
import re
from pathlib import Path

from evaluators.latency.table import Entry, LatencyTable
from evaluators.latency.table.base import digest_of

PAGE = (Path(__file__).parents[2] / "evaluators" / "latency" / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_test_vector_of_the_page_has_its_digest() -> None:
    value = json.loads(next(block for block in blocks("json") if "Gerät" in block))
    canonical, digest = blocks("text")[0].splitlines()
    assert digest_of(value) == digest
    assert json.loads(canonical) == value
    assert canonical.isascii()
    for written in ('"Z":true,"a":null', "[2.0,0.1,1e-05,1.2345678901234567e+19,7]", r"Ger\u00e4t", r"\ud83d\ude42"):
        assert written in canonical


def test_the_row_of_the_page_has_its_checksum() -> None:
    content = json.loads(next(block for block in blocks("json") if "median_ms" in block))
    checksum = content.pop("checksum")
    assert digest_of(content)[:8] == checksum
    assert Entry.model_validate(content).model_dump(mode="json") == content


def test_a_whole_number_of_milliseconds_has_a_fraction_in_the_digest() -> None:
    assert digest_of({"median_ms": 2.0}) != digest_of({"median_ms": 2})


def test_modules_of_the_folder_are_on_the_page() -> None:
    folder = Path(LatencyTable.__module__.replace(".", "/")).parent.parent
    modules = {path.name for path in (Path(__file__).parents[2] / folder).glob("*.py")} - {"__init__.py"}
    assert modules <= set(re.findall(r"`(\w+\.py)`", PAGE))
