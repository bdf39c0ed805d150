"""Image classification."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.tasks.base import TASKS, Example, TaskError, class_index
from evaluators.tasks.classification import ClassificationScore

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


class ImageClassification(ClassificationScore):
    """One image in, one class out."""

    auto_model = "AutoModelForImageClassification"
    auto_processor = "AutoImageProcessor"
    dynamic_axes: Mapping[str, Mapping[int, str]] = {"pixel_values": {0: "batch"}}

    def __init__(self, processor: Any, config: Any) -> None:
        self._processor, self._config = processor, config

    def encode(self, inputs: Sequence[Any], labels: Sequence[Any], *, max_length: int) -> list[Example]:
        """Read images and let the processor resize and normalise them; `max_length` has no meaning here."""
        images = [_read_image(value, row=row, channels=self._config.num_channels) for row, value in enumerate(inputs)]
        pixels_BCHW = self._processor(images, return_tensors="pt")["pixel_values"].float()
        return [
            Example(
                inputs={"pixel_values": pixels_BCHW[row]}, label=class_index(label, self._config, row=row), length=1
            )
            for row, label in enumerate(labels)
        ]

    def collate(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Stack pixels; shape (batch, channels, height, width)."""
        import torch

        return {"pixel_values": torch.stack([example.inputs["pixel_values"] for example in examples])}

    def random_inputs(self, batch: int, sequence_length: int, *, seed: int) -> dict[str, torch.Tensor]:
        """Random pixels; shape (batch, channels, height, width)."""
        import torch

        size = self._config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (batch, self._config.num_channels, height, width)
        return {"pixel_values": torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


def processed_size(processor: Any) -> tuple[int, int]:
    """Height and width of what an image processor makes of a square image.

    Raises:
        TaskError: It leaves images as large as they are, and names no size.
    """
    from PIL import Image

    if not getattr(processor, "do_resize", True):
        size = getattr(processor, "crop_size", None) or processor.size
        height, width = (getattr(size, side, None) for side in ("height", "width"))
        if not height or not width:
            raise TaskError(
                f"all images of a model have one size; its processor neither resizes nor names one: {processor.size}; "
                "set image_size in the model's config.json"
            )
        return int(height), int(width)
    mode = "L" if len(getattr(processor, "image_mean", None) or ()) == 1 else "RGB"
    pixels = processor(Image.new(mode, (512, 512)), return_tensors="pt")["pixel_values"]
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def _read_image(value: Any, *, row: int, channels: int) -> Image:
    """Open an image given as an object, a path, bytes, or rows of pixel values 0 to 255."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    mode = {1: "L", 3: "RGB"}.get(channels, "RGB")
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    try:
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = json.loads(value)
        if isinstance(value, str):
            return Image.open(Path(value)).convert(mode)
        if isinstance(value, bytes):
            return Image.open(io.BytesIO(value)).convert(mode)
        if isinstance(value, Image.Image):
            return value.convert(mode)
        pixels = np.asarray(value)
        whole = pixels.astype(np.uint8)
        if not np.array_equal(whole, pixels):
            raise ValueError("a pixel is no whole number from 0 to 255")
        return Image.fromarray(whole).convert(mode)
    except (OSError, UnidentifiedImageError, ValueError, TypeError, OverflowError) as error:
        raise TaskError(
            f"inputs are image paths, encoded images or rows of pixels from 0 to 255; got {str(value)[:60]!r} in row "
            f"{row} ({error})"
        ) from error


TASKS.register("image-classification")(ImageClassification)
