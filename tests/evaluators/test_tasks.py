"""Tasks: encoding, padding, labels, and the inputs that timing uses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluators.tasks import Task, TaskError
from evaluators.tasks.base import class_index
from workers.model import load_model


@pytest.fixture(scope="module")
def text(tiny_text: Any) -> Task:
    return load_model(tiny_text.model).task


@pytest.fixture(scope="module")
def image(tiny_image: Any) -> Task:
    return load_model(tiny_image.model).task


class _Config:
    num_labels = 3
    label2id = {"no": 0, "maybe": 1, "yes": 2}  # noqa: RUF012


class TestLabels:
    @pytest.mark.parametrize(
        ("label", "index"), [(0, 0), ("2", 2), (" yes ", 2), ("maybe", 1), (2.0, 2), (np.int64(1), 1)]
    )
    def test_index_or_name(self, label: object, index: int) -> None:
        assert class_index(label, _Config(), row=0) == index

    @pytest.mark.parametrize("label", [3, -1, "Yes", None, 0.5, float("nan"), "", [1]])
    def test_others_are_refused_with_the_row(self, label: object) -> None:
        with pytest.raises(TaskError, match=r"labels are 0 to 2 or one of \['maybe', 'no', 'yes'\]; got .* in row 7"):
            class_index(label, _Config(), row=7)

    def test_names_win_over_numbers(self) -> None:
        class Swapped:
            num_labels = 2
            label2id = {"1": 0, "0": 1}  # noqa: RUF012

        assert class_index("1", Swapped(), row=0) == 0


class TestText:
    def test_padding_on_the_right(self, text: Task) -> None:
        batch = text.collate(text.encode(["w1 w2 w3", "w4"], [0, 1], max_length=16))
        assert batch["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]
        assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]

    def test_long_texts_are_cut_at_what_the_job_and_the_model_take(self, text: Task) -> None:
        words = " ".join(["w1"] * 200)
        assert text.encode([words], [0], max_length=10)[0].length == 10
        assert text.encode([words], [0], max_length=128)[0].length == 64

    def test_random_inputs_are_whole(self, text: Task, tiny_text: Any) -> None:
        inputs = text.random_inputs(3, 12, seed=0)
        assert {name: tuple(t.shape) for name, t in inputs.items()} == dict.fromkeys(inputs, (3, 12))
        assert bool(inputs["attention_mask"].all())
        model = load_model(tiny_text.model).model
        assert model(**inputs).logits.shape == (3, 2)
        assert text.random_inputs(3, 12, seed=0)["input_ids"].equal(inputs["input_ids"])


class TestImages:
    def test_every_form_of_an_image_is_the_same(self, image: Task, tmp_path: Path) -> None:
        pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
        picture = Image.fromarray(pixels)
        path = tmp_path / "image.png"
        picture.save(path)
        forms = [pixels, pixels.tolist(), str(pixels.tolist()), picture, str(path), path.read_bytes()]
        forms += [{"bytes": path.read_bytes(), "path": None}, {"bytes": None, "path": str(path)}]
        encoded = image.encode(forms, [0] * len(forms), max_length=1)
        expected = torch.from_numpy(pixels / 255 * 2 - 1).float()[None]
        for example in encoded:
            torch.testing.assert_close(example.inputs["pixel_values"], expected)

    def test_colours_become_grey_for_a_model_of_one_channel(self, image: Task) -> None:
        picture = Image.new("RGB", (8, 8), (255, 255, 255))
        assert image.encode([picture], [0], max_length=1)[0].inputs["pixel_values"].shape == (1, 8, 8)

    def test_random_inputs_have_the_models_shape(self, image: Task) -> None:
        assert image.random_inputs(2, 17, seed=0)["pixel_values"].shape == (2, 1, 8, 8)
