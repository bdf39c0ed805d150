"""A store that never hands out another entry's tensors or half a file, whoever else writes to it."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from search_spaces.policy import Choice
from search_spaces.units import Producer, Unit, UnitKind
from workers import entry_folders
from workers.entry_folders import LocalFolder, UrlFolder, open_folder
from workers.variant_store import Variant, VariantStore, decode_entry, encode_entry, tensor_bytes

UNIT = Unit(
    name="layer.0.feed_forward",
    kind=UnitKind.FEED_FORWARD,
    groups=8,
    producers=(Producer(layer="up", rows_per_group=1),),
    consumer="down",
    columns_per_group=1,
    in_features=4,
    out_features=4,
)


class Source:
    """Makes tensors that tell which choice they belong to."""

    def __init__(self, model: str = "model", size: int = 100) -> None:
        self.model, self.size, self.made = model, size, list[Choice]()

    def key(self, unit: Unit, choice: Choice) -> str:
        return f"{self.model}-{choice.keep}-{choice.format}"

    def make(self, unit: Unit, choice: Choice) -> Variant:
        self.made.append(choice)
        value = choice.keep + 1000 * len(self.model)
        return {
            "down/weight": torch.full((self.size,), float(value)),
            "down/codes": torch.full((3, 2), choice.keep, dtype=torch.int8).T,
            "up/bias": torch.tensor(float(value), dtype=torch.bfloat16),
            "up/weight": torch.empty(4, 0),
        }


def _equal(one: Variant, other: Variant) -> bool:
    return one.keys() == other.keys() and all(one[n].equal(other[n]) and one[n].dtype == other[n].dtype for n in one)


@pytest.fixture(params=["path", "file", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    if request.param == "path":
        yield tmp_path / "a" / "store"
    elif request.param == "file":
        yield f"file://{tmp_path}/store"
    else:
        import fsspec

        yield f"memory://{tmp_path.name}/store"
        fsspec.filesystem("memory").store.clear()


class TestStore:
    def test_what_is_read_is_what_was_made(self, location: Path | str) -> None:
        source = Source()
        for keep in (8, 2, 0):
            choice = Choice(keep, "w8a8")
            assert not VariantStore(location).has(source, UNIT, choice)
            made = VariantStore(location).get_or_make(source, UNIT, choice)
            assert VariantStore(location).has(source, UNIT, choice)
            assert _equal(made, source.make(UNIT, choice))
            source.made.clear()
            assert _equal(VariantStore(location).get_or_make(source, UNIT, choice), made)
            assert not source.made

    def test_two_models_never_share(self, location: Path | str) -> None:
        one, other, store = Source("a"), Source("bb"), VariantStore(location)
        found = [store.get_or_make(source, UNIT, Choice(2, "fp32")) for source in (one, other)]
        assert not _equal(*found)

    def test_oldest_entries_are_dropped_at_the_budget(self, location: Path | str, monkeypatch: object) -> None:
        source, size = Source(size=10_000), 0
        now = [1e9]
        store = VariantStore(location, budget_bytes=220_000)
        _set_clock(store, now)
        for keep in range(1, 6):
            now[0] += 1e5
            store.get_or_make(source, UNIT, Choice(keep, "fp32"))
        assert store.size_bytes <= 220_000
        now[0] += 1e5
        store.get_or_make(source, UNIT, Choice(1, "fp32"))
        size = store.size_bytes
        now[0] += 1e5
        store.get_or_make(source, UNIT, Choice(6, "fp32"))
        assert store.size_bytes <= 220_000
        assert store.has(source, UNIT, Choice(1, "fp32"))
        assert store.has(source, UNIT, Choice(6, "fp32"))
        assert not store.has(source, UNIT, Choice(2, "fp32"))
        assert size > 0

    def test_the_entry_just_made_stays_even_over_the_budget(self, location: Path | str) -> None:
        source, store = Source(size=10_000), VariantStore(location, budget_bytes=1)
        for keep in (1, 2):
            made = store.get_or_make(source, UNIT, Choice(keep, "fp32"))
            assert float(made["down/weight"][0]) == 5000 + keep
            assert store.has(source, UNIT, Choice(keep, "fp32"))
        assert not store.has(source, UNIT, Choice(1, "fp32"))

    def test_a_budget_is_at_least_one_byte(self, location: Path | str) -> None:
        with pytest.raises(ValueError, match="budget_bytes=0"):
            VariantStore(location, budget_bytes=0)


def _set_clock(store: VariantStore, now: list[float]) -> None:
    """Let uses of entries happen at times that the test chooses."""
    folder = store._folder
    if isinstance(folder, UrlFolder):
        folder._clock = lambda: now[0]
        return
    assert isinstance(folder, LocalFolder)
    read, write = folder.read, folder.write

    def read_at(name: str) -> bytes | None:
        data = read(name)
        if data is not None:
            os.utime(folder._path / name, (now[0], now[0]))
        return data

    def write_at(name: str, data: bytes) -> None:
        write(name, data)
        os.utime(folder._path / name, (now[0], now[0]))

    folder.read, folder.write = read_at, write_at  # type: ignore[method-assign]


@pytest.mark.parametrize("damage", ["empty", "cut", "altered", "header", "zeros", "other", "another entry"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    source, store, choice = Source(), VariantStore(tmp_path), Choice(2, "w8a8")
    made = store.get_or_make(source, UNIT, choice)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    middle = len(data) - 100
    path.write_bytes(
        {
            "empty": b"",
            "cut": data[:middle],
            "altered": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "header": data.replace(b"down/codes", b"down/coded"),
            "zeros": bytes(len(data)),
            "other": save({"x": torch.zeros(3)}),
            "another entry": encode_entry("other", made),
        }[damage]
    )
    source.made.clear()
    assert _equal(store.get_or_make(source, UNIT, choice), made)
    assert source.made == [choice]
    assert path.read_bytes() == data


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_altered_byte_goes_unseen(data: st.DataObject) -> None:
    tensors = Source(size=5).make(UNIT, Choice(3, "fp32"))
    entry = encode_entry("key", {name: tensor.contiguous() for name, tensor in tensors.items()})
    place = data.draw(st.integers(0, len(entry) - 1))
    flipped = bytearray(entry)
    flipped[place] ^= data.draw(st.integers(1, 255))
    found = decode_entry("key", bytes(flipped))
    # Spaces that pad the header may change without a tensor doing so.
    assert found is None or _equal(found, tensors)


def test_an_entry_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    source = Source()
    VariantStore(tmp_path).get_or_make(source, UNIT, Choice(2, "fp32"))
    (path,) = tmp_path.glob("*.safetensors")
    assert _equal(load_file(path), source.make(UNIT, Choice(2, "fp32")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.int64])
def test_bytes_of_any_tensor(dtype: torch.dtype) -> None:
    values = torch.arange(6).view(2, 3).to(dtype)
    assert bytes(tensor_bytes(values.T)) == bytes(tensor_bytes(values.T.contiguous()))
    assert len(tensor_bytes(values)) == 6 * values.element_size()
    assert len(tensor_bytes(values[0, 0])) == values.element_size()
    assert len(tensor_bytes(values[:0])) == 0


class TestLocalFolder:
    def test_a_failed_write_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(entry_folders.Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            VariantStore(tmp_path).get_or_make(Source(), UNIT, Choice(2, "w8a8"))
        assert not list(tmp_path.iterdir())

    def test_what_an_ended_process_left_is_removed_after_a_while(self, tmp_path: Path) -> None:
        old, new = tmp_path / ".writing-old", tmp_path / ".writing-new"
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (time.time() - 7200, time.time() - 7200))
        folder = LocalFolder(tmp_path)
        assert not old.exists()
        assert new.exists()
        assert folder.entries() == []

    def test_a_folder_that_may_only_be_read_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = Source()
        made = VariantStore(tmp_path).get_or_make(source, UNIT, Choice(2, "fp32"))

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(entry_folders.os, "utime", refuse)
        source.made.clear()
        assert _equal(VariantStore(tmp_path).get_or_make(source, UNIT, Choice(2, "fp32")), made)
        assert not source.made

    def test_threads_may_share_a_folder(self, tmp_path: Path) -> None:
        def ask(number: int) -> Variant:
            return VariantStore(tmp_path).get_or_make(Source(), UNIT, Choice(number % 3, "w8a8"))

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(ask, range(12)))
        for number, variant in enumerate(found):
            assert _equal(variant, Source().make(UNIT, Choice(number % 3, "w8a8")))
        assert len(list(tmp_path.iterdir())) == 3


class TestUrlFolder:
    def test_a_use_is_noted_once_a_step_and_old_notes_go(self) -> None:
        now = [100.0]
        folder = UrlFolder("memory://notes", step_seconds=10, clock=lambda: now[0])
        folder.write("entry", b"data")
        folder.read("entry")
        assert sorted(folder._names()) == ["entry", "entry.used-10"]
        now[0] = 125.0
        assert folder.read("entry") == b"data"
        assert sorted(folder._names()) == ["entry", "entry.used-12"]
        (entry,) = folder.entries()
        assert (entry.size_bytes, entry.used_at) == (4, 120.0)
        folder.remove(["entry", "missing"])
        assert folder._names() == {}
        assert folder.read("entry") is None

    def test_the_latest_of_several_processes_notes_counts(self) -> None:
        now = [100.0]
        one, other = (UrlFolder("memory://shared", step_seconds=10, clock=lambda: now[0]) for _ in range(2))
        one.write("entry", b"data")
        now[0] = 205.0
        other.read("entry")
        (entry,) = one.entries()
        assert entry.used_at == 200.0

    def test_a_folder_that_is_not_there_is_empty(self) -> None:
        assert open_folder("memory://nowhere/at/all").entries() == []


def _write_for_ever(folder: Path) -> None:
    source, number = Source(size=300_000), 0
    while True:
        choice = Choice(number % 4, "fp32")
        (folder / f"{source.key(UNIT, choice)}.safetensors").unlink(missing_ok=True)
        VariantStore(folder).get_or_make(source, UNIT, choice)
        number += 1


def test_a_writer_that_is_killed_leaves_no_torn_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    source = Source(size=300_000)
    writer = context.Process(target=_write_for_ever, args=(tmp_path,))
    writer.start()
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.safetensors"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
    finally:
        writer.kill()
        writer.join(20)
    entries = list(tmp_path.glob("*.safetensors"))
    assert entries
    for path in entries:
        assert decode_entry(path.stem, path.read_bytes()) is not None
    for keep in range(4):
        found = VariantStore(tmp_path).get_or_make(source, UNIT, Choice(keep, "fp32"))
        assert _equal(found, source.make(UNIT, Choice(keep, "fp32")))
