"""Compiles calls for torch on the CPU: each whole, for one shape of its inputs, and never back to eager unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from workers.targets.compiler import compiler_obstacle
from workers.targets.device import KernelError

MIN_COSINE = 0.999
"""Between compiled and eager logits. An input on the edge between two int8 codes may fall to either side."""
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compile_call(function: FunctionT, *arguments: object) -> FunctionT:
    """Compile a function as one graph, for the shapes of arguments.

    torch keeps what it compiled with a function's code, looks through all of it at each call and gives up after eight.
    So the returned function has code of its own, and what was compiled is freed with it.

    Args:
        function: A plain function; it may be compiled many times for different arguments.
        arguments: What it is called with, here and later, but for the values of tensors.

    Returns:
        The function, compiled. It raises where torch would compile it for an eighth kind of arguments.

    Raises:
        KernelError: There is no compiler, or torch can't compile the function as one graph.
    """
    if (reason := compiler_obstacle()) is not None:
        raise KernelError(f"cpu-torch-compiled compiles what it runs; {reason}; or search for cpu-torch")
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    found = cast(FunctionT, torch.compile(own, fullgraph=True, dynamic=False))
    try:
        found(*arguments)
    except TorchDynamoException as error:
        raise KernelError(
            "cpu-torch-compiled takes models that torch.compile turns into one graph; it failed with: "
            f"{str(error).splitlines()[0]}; search for cpu-torch, which runs operator by operator"
        ) from error
    return found


def run_calls(functions: Sequence[Callable[..., object]], inputs: Sequence[tuple[Any, ...]]) -> list[object]:
    """Call each function with its inputs, and return all results, so that none is left out as unused."""
    return [function(*arguments) for function, arguments in zip(functions, inputs, strict=True)]


def add_one(number: Tensor) -> Tensor:
    """What is compiled to learn the cost of a call."""
    return number + 1


def logits_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Run a model."""
    found: Tensor = model(**inputs).logits
    return found


def compile_model(
    model: nn.Module, inputs: Mapping[str, Tensor]
) -> Callable[[nn.Module, Mapping[str, Tensor]], Tensor]:
    """Compile a model for the shapes of inputs, and compare its logits with those of the model as it is.

    Args:
        model: With real kernels that can be traced.
        inputs: By name.

    Raises:
        KernelError: It can't be compiled, or computes something else then.
    """
    run = compile_call(logits_of, model, inputs)
    found, expected = run(model, inputs).flatten(), logits_of(model, inputs).flatten()
    cosine = float(nn.functional.cosine_similarity(found, expected, dim=0))
    if not (cosine >= MIN_COSINE or torch.allclose(found, expected, rtol=1e-3, atol=1e-5)):
        raise KernelError(
            f"a compiled model computes what the model computes, to a cosine of {MIN_COSINE}; got {cosine:.6f} on one "
            "batch of the deployed shape; search for cpu-torch, and report the torch version and the model"
        )
    return run
