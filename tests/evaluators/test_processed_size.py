import pytest
import transformers

from evaluators.tasks.base import TaskError
from evaluators.tasks.image_classification import processed_size


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (transformers.ViTImageProcessorPil(size={"height": 16, "width": 24}), (16, 24)),
        (transformers.ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5]), (8, 8)),
        (transformers.ViTImageProcessorPil(size={"height": 12, "width": 9}, do_resize=False), (12, 9)),
        (transformers.ConvNextImageProcessorPil(size={"shortest_edge": 224}), (224, 224)),
        (transformers.MobileNetV2ImageProcessorPil(), (224, 224)),
    ],
)
def test_the_size_is_that_of_what_the_processor_makes(processor, expected):
    assert processed_size(processor) == expected


def test_a_processor_that_names_no_size_is_refused():
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": 224}, do_resize=False)
    with pytest.raises(TaskError, match=r"set image_size in the model.s config\.json"):
        processed_size(processor)
