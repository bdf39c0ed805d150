"""What `cuda-torch` knows without a GPU, and the numbers it gives with one."""

import pytest
import torch

from evaluators.latency.workload import Operator, OperatorKind
from workers.targets import torch_cuda
from workers.targets.base import TARGETS
from workers.targets.device import KernelError
from workers.targets.torch_cuda import (
    LEAST_CAPABILITY,
    NO_DEVICE,
    TorchCuda,
    check_format,
    copies_on_gpu,
    cuda_obstacle,
    formats_of,
)

LINEAR = Operator.of(OperatorKind.LINEAR, format="bf16", tokens=4, in_features=64, out_features=64)
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def test_formats_follow_the_compute_capability() -> None:
    assert formats_of((7, 5)) == ("fp16", "fp32", "w8")
    assert formats_of((8, 0)) == ("bf16", "fp16", "fp32", "w4a16", "w8", "w8a8r")
    assert formats_of((8, 6)) == formats_of((8, 0))
    assert formats_of((8, 9)) == formats_of((9, 0)) == formats_of((10, 0)) == tuple(sorted(LEAST_CAPABILITY))
    assert set(LEAST_CAPABILITY) == set(TARGETS.get("cuda-torch").formats)


def test_a_format_that_the_gpu_lacks_is_refused_by_name() -> None:
    check_format(LINEAR, (8, 0))
    with pytest.raises(KernelError, match=r"capability 7.5 has kernels for fp16, fp32, w8; got linear bf16"):
        check_format(LINEAR, (7, 5))
    check_format(Operator.of(OperatorKind.LAYER_NORM, tokens=4, features=64), (5, 0))


def test_large_weights_have_few_copies() -> None:
    assert copies_on_gpu(LINEAR) == 16
    huge = Operator.of(OperatorKind.LINEAR, format="fp32", tokens=4, in_features=8192, out_features=28_672)
    assert copies_on_gpu(huge) == 2
    long = Operator.of(OperatorKind.ATTENTION_CORE, batch=8, sequence=4096, heads=32, queries=1, head_dim=128)
    assert copies_on_gpu(long) == 2


def test_a_build_without_cuda_and_a_machine_without_a_gpu_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in str(cuda_obstacle())
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "finds no CUDA device" in str(cuda_obstacle())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda_obstacle() is None


def test_the_fingerprint_names_gpu_capability_driver_and_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(
        torch_cuda, "_query", lambda fields: "570.86" if fields == "driver_version" else "1980 MHz, 2619 MHz"
    )
    here = TorchCuda(threads=1).fingerprint()
    assert (here.device, here.flags, here.driver) == ("NVIDIA H100 80GB HBM3", ("sm_90",), "570.86")
    assert (here.runtime, here.runtime_version) == ("torch cuda 12.8", torch.__version__)
    assert TorchCuda(threads=1).clocks() == "SM 1980 MHz, memory 2619 MHz"


@without_gpu
def test_without_a_gpu_no_table_matches_and_nothing_is_timed() -> None:
    device = TorchCuda(threads=1)
    assert device.fingerprint().device == NO_DEVICE
    with pytest.raises(KernelError, match="cuda-torch needs a GPU"):
        device.sample(LINEAR, runs=3, seed=0, working_set_bytes=0)


@with_gpu
@pytest.mark.parametrize("name", sorted(LEAST_CAPABILITY))
def test_every_format_of_the_gpu_has_a_time(name: str) -> None:
    if name not in formats_of(torch.cuda.get_device_capability(0)):
        pytest.skip("this GPU has no kernel for the format")
    kind = OperatorKind.EMBEDDING if name == "w8" else OperatorKind.LINEAR
    axes = {"rows": 100, "features": 64} if name == "w8" else {"in_features": 256, "out_features": 128}
    operator = Operator.of(kind, format=name, tokens=8, **axes)
    assert all(ms > 0 for ms in TorchCuda(threads=1).sample(operator, runs=5, seed=0, working_set_bytes=10**6))
