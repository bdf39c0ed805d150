"""What architectures of convolutional networks share: folding, channel groups by tracing, and sizes of feature maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.architectures.base import UnsupportedModelError
from search_spaces.channels import ChannelLayer, ChannelLayerKind, ChannelUnit, ResidualSum
from search_spaces.units import Branch

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that have to go together.

    Attributes:
        producers: Layers whose rows they are, in the order in which they run.
        consumers: Layers whose columns they are, likewise; a depthwise layer is a producer only.
        channels: How many there are.
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: int


def fold_normalization(model: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, in place; a model in evaluation mode stays equal.

    Args:
        model: Its layers hold a pair `convolution` and `normalization`, as those of transformers do.
    """
    import torch
    from torch import nn

    for module in list(model.modules()):
        convolution, norm = getattr(module, "convolution", None), getattr(module, "normalization", None)
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            gain_O = (norm.running_var.double() + norm.eps).rsqrt()
            shift_O = -norm.running_mean.double()
            if convolution.bias is not None:
                shift_O = shift_O + convolution.bias.double()
            if norm.affine:
                gain_O = gain_O * norm.weight.double()
            bias_O = shift_O * gain_O + (norm.bias.double() if norm.affine else 0)
            weight = (convolution.weight.double() * gain_O[:, None, None, None]).to(convolution.weight.dtype)
        trained = convolution.weight.requires_grad
        convolution.weight = nn.Parameter(weight, requires_grad=trained)
        convolution.bias = nn.Parameter(bias_O.to(weight.dtype), requires_grad=trained)
        module.normalization = nn.Identity()


def example_input(model: nn.Module) -> torch.Tensor:
    """One image of the size that the configuration names, on the model's device.

    Raises:
        UnsupportedModelError: The configuration names no size.
    """
    import torch

    config: Any = model.config
    size = getattr(config, "image_size", None)
    if size is None:
        raise UnsupportedModelError(
            "the sizes of feature maps follow from the image; the model's configuration has no image_size; "
            "set it to what the image processor makes (load_model does)"
        )
    height, width = (size, size) if isinstance(size, int) else size
    first = next(model.parameters())
    return torch.zeros(1, config.num_channels, height, width, device=first.device, dtype=first.dtype)


def channel_groups(model: nn.Module) -> tuple[ChannelGroup, ...]:
    """Find the groups of channels that residual sums and depthwise convolutions tie, in the order of the data.

    Args:
        model: A folded model; the meta device will do.

    Raises:
        UnsupportedModelError: A layer permutes channels between a producer and a consumer.

    Reference: Fang et al., DepGraph, 2301.12900.
    """
    import torch
    import torch_pruning
    from torch import nn

    order = list(_output_sizes(model))
    with torch.enable_grad(), _trained(model):
        graph = torch_pruning.DependencyGraph().build_dependency(
            model,
            example_inputs={"pixel_values": example_input(model)},
            forward_fn=lambda traced, inputs: traced(**inputs).logits,
            verbose=False,
        )
        found = []
        for group in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
            rows: set[str] = set()
            columns: set[str] = set()
            channels = 0
            for dependency, indices in group:
                module, name = dependency.target.module, dependency.target.name.split(" (")[0]
                if not isinstance(module, nn.Conv2d | nn.Linear):
                    continue
                if list(indices) != list(range(len(indices))):
                    raise UnsupportedModelError(f"channels of {name} are permuted or cut, which can't be pruned here")
                is_output = graph.is_out_channel_pruning_fn(dependency.handler)
                (rows if is_output else columns).add(name)
                channels = max(channels, len(indices) if is_output else 0)
            found.append((rows, columns - rows, channels))
    groups = [
        ChannelGroup(
            producers=tuple(sorted(rows, key=order.index)),
            consumers=tuple(sorted(columns, key=order.index)),
            channels=channels,
        )
        for rows, columns, channels in found
        if columns
    ]
    return tuple(sorted(groups, key=lambda group: order.index(group.producers[0])))


@contextmanager
def _trained(model: nn.Module) -> Iterator[None]:
    """Let all parameters take gradients, by which the dependencies are traced."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for parameter in before:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, trained in before.items():
            parameter.requires_grad_(trained)


def channel_units(
    model: nn.Module,
    *,
    name: Callable[[ChannelGroup], str],
    sums: Mapping[str, str | None],
    branches: Mapping[str, str],
) -> tuple[ChannelUnit, ...]:
    """Make a unit of each group of channels.

    Args:
        model: A folded model.
        name: Names a group.
        sums: For each residual sum, its last producing layer and the activation module behind it, if any.
        branches: For layers that alone produce all of a residual branch's inner channels, the module that is the
            branch.
    """
    groups = channel_groups(model)
    assert len({name(group) for group in groups}) == len(groups), [name(group) for group in groups]
    rows = {layer: name(group) for group in groups for layer in group.producers}
    columns = {layer: name(group) for group in groups for layer in group.consumers}
    sizes = _output_sizes(model)
    layers: dict[str, list[ChannelLayer]] = {}
    for layer_name in sizes:
        layer = _describe(model, layer_name, rows.get(layer_name), columns.get(layer_name), sizes[layer_name])
        if layer.rows is not None or layer.columns is not None:
            layers.setdefault(layer.rows or layer.home, []).append(layer)
    return tuple(
        ChannelUnit(
            name=name(group),
            groups=group.channels,
            channel_layers=tuple(layers[name(group)]),
            sums=_sums(group.producers, sums, sizes),
            branch=_branch(group.producers, branches),
        )
        for group in groups
    )


def _sums(
    producers: Sequence[str], sums: Mapping[str, str | None], sizes: Mapping[str, tuple[int, int]]
) -> tuple[ResidualSum, ...]:
    return tuple(
        ResidualSum(height=sizes[layer][0], width=sizes[layer][1], activation_module=sums[layer])
        for layer in producers
        if layer in sums
    )


def _branch(producers: Sequence[str], branches: Mapping[str, str]) -> Branch | None:
    return Branch(module=branches[producers[0]]) if len(producers) == 1 and producers[0] in branches else None


def _describe(
    model: nn.Module, name: str, rows: str | None, columns: str | None, size: tuple[int, int]
) -> ChannelLayer:
    from torch import nn

    module = model.get_submodule(name)
    if isinstance(module, nn.Linear):
        return ChannelLayer(
            layer=name,
            kind=ChannelLayerKind.LINEAR,
            rows=rows,
            columns=columns,
            out_channels=module.out_features,
            in_channels=module.in_features,
            kernel=1,
            stride=1,
            height=1,
            width=1,
            bias=module.bias is not None,
        )
    assert isinstance(module, nn.Conv2d), name
    depthwise = module.groups > 1
    if module.kernel_size[0] != module.kernel_size[1] or module.stride[0] != module.stride[1]:
        raise UnsupportedModelError(f"kernels and strides are square here; {name} has {module}")
    if depthwise and (module.groups != module.in_channels or module.in_channels != module.out_channels):
        raise UnsupportedModelError(f"a grouped convolution has one channel a group here; {name} has {module}")
    activation, activation_module = _clamp_behind(model, name)
    return ChannelLayer(
        layer=name,
        kind=ChannelLayerKind.DEPTHWISE if depthwise else ChannelLayerKind.CONVOLUTION,
        rows=rows,
        columns=rows if depthwise else columns,
        out_channels=module.out_channels,
        in_channels=1 if depthwise else module.in_channels,
        kernel=int(module.kernel_size[0]),
        stride=int(module.stride[0]),
        height=size[0],
        width=size[1],
        activation=activation,
        activation_module=activation_module,
        bias=module.bias is not None,
    )


def _clamp_behind(model: nn.Module, name: str) -> tuple[str | None, str | None]:
    from torch import nn

    owner = name.rpartition(".")[0]
    module: object = getattr(model.get_submodule(owner), "activation", None)
    functions: dict[type, str] = {nn.ReLU: "relu", nn.ReLU6: "relu6"}
    function = functions.get(type(module))
    return (function, f"{owner}.activation") if function else (None, None)


def _output_sizes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Height and width of the output of each convolution and linear layer, in the order in which they run."""
    import torch
    from torch import nn

    found: dict[str, tuple[int, int]] = {}
    handles = []

    def watch(name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            found[name] = (output.shape[2], output.shape[3]) if output.ndim == 4 else (1, 1)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(watch(name)))
    try:
        with torch.no_grad():
            model(pixel_values=example_input(model))
    finally:
        for handle in handles:
            handle.remove()
    return found
