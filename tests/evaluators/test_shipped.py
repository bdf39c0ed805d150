from pathlib import Path

import pytest

from evaluators.latency import shipped
from evaluators.latency.shipped import ShippedTableError, check_writable, shipped_names, table_file
from evaluators.latency.summary import find_oddities
from evaluators.latency.table import load_table


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    assert table_file(tmp_path / "t.json") == tmp_path / "t.json"
    check_writable(tmp_path / "t.json")


def test_a_name_is_a_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for name in ("b-1t.json", "a-1t.json", "README.md", "Odd Name.json"):
        (tmp_path / name).write_text("{}")
    assert shipped_names() == ("a-1t", "b-1t")
    assert table_file("shipped:a-1t") == tmp_path / "a-1t.json"


@pytest.mark.parametrize("name", ["shipped:none", "shipped:../secret", "shipped:", "shipped:/etc/passwd"])
def test_other_names_are_refused_with_those_that_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    (tmp_path / "a-1t.json").write_text("{}")
    with pytest.raises(ShippedTableError, match=r"comes with Paretrim; got .*has the names: a-1t"):
        load_table(Path(name))


def test_a_table_of_the_package_is_not_written_to() -> None:
    for path in (Path("shipped:a"), shipped.FOLDER / "a.json"):
        with pytest.raises(ShippedTableError, match=r"stay as they are; got .*copy the table first"):
            check_writable(path)


def test_tables_come_along() -> None:
    assert shipped_names()


@pytest.mark.parametrize("name", shipped_names())
def test_a_table_that_comes_along_is_sound_quiet_and_corrected(name: str) -> None:
    table = load_table(Path(f"shipped:{name}"))
    assert table.corrections
    # A profile's notes tell of noise, of clocks or a speed that changed, or of a time that was over; a merge's do not.
    assert not [note for note in table.provenance.notes if not note.startswith("joined")]
    # Hardware may like some widths; whatever else is odd does not come along.
    assert not [warning for warning in find_oddities(table) if "larger operators are faster" not in warning]


def test_every_file_beside_them_has_a_name_that_jobs_can_say() -> None:
    files = {path.stem for path in shipped.FOLDER.glob("*.json")}
    assert files
    assert files == set(shipped_names())
