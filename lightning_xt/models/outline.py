"""Outline of a network: its stages in the order of computation, with shapes, parameters and FLOPs.

A FLOP is one floating-point operation of a matrix product, forward: a multiplication and an addition are two. All
pairs of tokens count, masked ones included; operations on single elements do not.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.models.encoder_with_head import EncoderWithHead
from lightning_xt.models.stack import Stack
from lightning_xt.models.sublayer import Sublayer
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.passes.base import Passes


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Part of a model.

    Args:
        name: attribute name in the parent module.
        kind: class of the part. Empty for a layer.
        shape: shape of the output, for b rows of n tokens; n are those of one segment if the decoder has `segments`.
            Empty if the part is not called by `forward`.
        parameters: number of trained numbers; shared ones count in the first part.
        flops: FLOPs of one forward of one row.
        times: number of layers of equal classes, sizes and settings that this one represents; parameters and FLOPs are
            those of all, `stages` those of one.
        calls: number of calls in a forward.
        stages: stages of the part.
    """

    name: str
    kind: str = ""
    shape: str = ""
    parameters: int = 0
    flops: int = 0
    times: int = 1
    calls: int = 1
    stages: tuple["Stage", ...] = ()


Network = Decoder | EncoderDecoder | EncoderWithHead


def outline(network: Network, seq_len: int) -> Stage:
    """Outline a network, from tokens to logits.

    Args:
        network: network on torch.device("meta"), where nothing is allocated or computed, or on the CPU.
        seq_len: number of tokens in a row; for an encoder-decoder, in the source and in the target.

    Raises:
        ValueError: seq_len is below 1, or above the number of positions.
    """
    if seq_len < 1:
        raise ValueError(f"seq_len is {seq_len}; it must be at least 1 token")
    if network.max_length is not None and seq_len > network.max_length:
        raise ValueError(
            f"seq_len is {seq_len}, but the model's positions reach only {network.max_length} (max_length); give at "
            "most that"
        )
    shapes, flops = _measure(network, 1, seq_len)
    # Parts of a decoder with segments are called once for each; the last one may be shorter.
    n = min(seq_len, _find_segment_length(network) or seq_len)
    if n < seq_len:
        shapes, _ = _measure(network, 1, n)
    others, _ = _measure(network, 2, max(1, n - 1))
    named = {path: _format_shape(shape, others.get(path, shape), n) for path, shape in shapes.items()}
    name = re.sub(r"(?<=.)([A-Z])", r"_\1", type(network).__name__).lower()
    return _Reader(named, flops).build_stage(name, "", network)


def _find_segment_length(network: Network) -> int | None:
    decoder = network.decoder if isinstance(network, EncoderDecoder) else network
    return None if not isinstance(decoder, Decoder) or decoder.segments is None else decoder.segments.length


def _measure(network: Network, rows: int, seq_len: int) -> tuple[dict[str, torch.Size], dict[str, int]]:
    """Measure the output shape of each module, and its FLOPs and those of its parts, by path."""
    shapes: dict[str, torch.Size] = {}
    outside: dict[str, set[str]] = defaultdict(set)
    hooks = _watch(network, shapes, outside)
    tokens = torch.zeros(rows, seq_len, dtype=torch.long, device=next(network.parameters()).device)
    read = (tokens, tokens) if isinstance(network, EncoderDecoder) else (tokens,)
    modes = [(module, module.training) for module in network.modules()]
    counter = FlopCounterMode(display=False)
    try:
        # The counter does not know fused attention on a CPU, but the products of the math kernel. Its hooks need
        # gradients: without them they fail at expanded parameters.
        with sdpa_kernel(SDPBackend.MATH), counter:
            network.eval()(*read)
    finally:
        for module, training in modes:
            module.training = training
        for each in hooks:
            each.remove()
    root = type(network).__name__
    flops = {
        name.removeprefix(root).removeprefix("."): sum(n.values()) for name, n in counter.get_flop_counts().items()
    }
    more = {holder: sum(flops.get(part, 0) for part in parts) for holder, parts in outside.items()}
    return shapes, {path: flops.get(path, 0) + more.get(path, 0) for path in flops.keys() | more.keys()}


def _watch(network: Network, shapes: dict[str, torch.Size], outside: dict[str, set[str]]) -> list[RemovableHandle]:
    """Note output shapes by path, and for each part the paths of its parts that are called outside its forward."""
    active: list[str] = []

    def begin(path: str) -> Callable[[nn.Module, Any], None]:
        holders = list(accumulate(path.split(".")[:-1], lambda above, name: f"{above}.{name}"))

        def hook(module: nn.Module, args: Any) -> None:
            # Some parts are called outside the forward of the part that holds them, or this has no forward.
            for holder in holders:
                if not any(f"{each}.".startswith(f"{holder}.") for each in active):
                    outside[holder].add(path)
            active.append(path)

        return hook

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            active.pop()
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor):
                shapes[path] = first.shape

        return hook

    hooks = [module.register_forward_hook(note(path)) for path, module in network.named_modules()]
    return hooks + [module.register_forward_pre_hook(begin(path)) for path, module in network.named_modules()]


def _format_shape(shape: torch.Size, other: torch.Size, seq_len: int) -> str:
    """Format a shape with letters for the sizes that differ with another number of rows and one token less."""

    def symbol(size: int, there: int) -> str:
        if (size, there) == (1, 2):
            return "b"
        if size - there == 1:
            return "n" if size == seq_len else f"n{size - seq_len:+}"
        return str(size)

    return " ".join(symbol(size, there) for size, there in zip(shape, other, strict=True))


class _Reader:
    """Conversion of modules into stages, with the output shape and the FLOPs of each module by path."""

    def __init__(self, shapes: dict[str, str], flops: dict[str, int]) -> None:
        self.shapes, self.flops = shapes, flops
        self.counted: set[int] = set()

    def build_stage(self, name: str, path: str, module: nn.Module) -> Stage:
        own = self._count_new_parameters(module.parameters(recurse=False))
        if isinstance(module, Stack):
            stages = list(self._read_stack(path, module))
        else:
            stages = [self.build_stage(*child) for child in _list_children(path, module)]
        inside = sum(stage.flops for stage in stages)
        # Passes run the layers, whose FLOPs are those of the layers' own stages.
        flops = inside if isinstance(module, Passes) else self.flops.get(path, 0) or inside
        if isinstance(module, Attention):
            after = [stage.name for stage in stages].index("normalizer") + 1
            stages.insert(after, _describe_kernel(module, flops - inside))
        elif isinstance(module, Sublayer):
            # The residual has no forward: its methods are counted here.
            stages[-1] = replace(stages[-1], flops=stages[-1].flops + flops - inside)
        elif stages and flops > inside:
            # Products with parameters of the part; of a stack, the last residual and the links of the output.
            stages.append(Stage(name="output" if isinstance(module, Stack) else "products", flops=flops - inside))
        return Stage(
            name=name,
            kind=type(module).__name__,
            shape=self.shapes.get(path, ""),
            parameters=own + sum(stage.parameters for stage in stages),
            flops=flops,
            stages=tuple(stages),
        )

    def _read_stack(self, path: str, stack: Stack) -> Iterator[Stage]:
        if stack.embedding_norm is not None:
            yield self.build_stage("embedding_norm", f"{path}.embedding_norm", stack.embedding_norm)
        layers: dict[int, list[Stage]] = {}
        settings: dict[int, list[Any]] = {}
        for step in dict.fromkeys(stack.steps):
            module = stack.sublayers[step.name]
            name = step.name.partition("_")[2]
            made = self.build_stage(name, f"{path}.sublayers.{step.name}", module)
            calls = stack.steps.count(step) * stack.calls // len(stack.steps)
            layers.setdefault(step.layer, []).append(replace(made, calls=calls))
            settings.setdefault(step.layer, []).extend(_list_settings(module))
        yield from _fold_layers(layers, settings)
        if len(stack.links):
            kinds = dict.fromkeys(type(link).__name__ for link in cast(nn.ModuleList, stack.links[0]))
            yield Stage(
                name="links", kind=", ".join(kinds), parameters=self._count_new_parameters(stack.links.parameters())
            )
        if stack.passes is not None:
            yield self.build_stage("passes", f"{path}.passes", stack.passes)
        if stack.output_norm is not None:
            yield self.build_stage("output_norm", f"{path}.output_norm", stack.output_norm)

    def _count_new_parameters(self, parameters: Iterable[nn.Parameter]) -> int:
        new = [parameter for parameter in parameters if id(parameter) not in self.counted]
        self.counted.update(map(id, new))
        return sum(parameter.numel() for parameter in new)


def _list_children(path: str, module: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """List name, path and module of each part, without containers and parts that change nothing."""
    parts = dict(module.named_children())
    if isinstance(module, Sublayer):
        order = ("placement", "shift", "branch", "scale", "residual")
        parts = {name: parts[name] for name in order if name in parts}
    for name, part in parts.items():
        below = f"{path}.{name}" if path else name
        if isinstance(part, nn.ModuleList):
            yield from ((f"{name}.{child}", at, each) for child, at, each in _list_children(below, part))
        elif not isinstance(part, (nn.Dropout, nn.Identity)):
            yield name, below, part


def _list_settings(module: nn.Module) -> list[dict[str, Any]]:
    """List the plain attributes of a module's parts, which parts of the same class and size may differ in."""
    plain = (bool, int, float, str, type(None))
    return [{name: each for name, each in vars(part).items() if isinstance(each, plain)} for part in module.modules()]


def _fold_layers(layers: dict[int, list[Stage]], settings: dict[int, list[Any]]) -> Iterator[Stage]:
    """Yield a stage for each group of equal layers, in the order of their first ones."""
    groups: list[list[int]] = []
    for layer in layers:
        equal = (
            group for group in groups if (layers[group[0]], settings[group[0]]) == (layers[layer], settings[layer])
        )
        group = next(equal, [])
        if not group:
            groups.append(group)
        group.append(layer)
    for numbers in groups:
        stages, times = layers[numbers[0]], len(numbers)
        yield Stage(
            name=f"layer{'s' if times > 1 else ''} {_format_ranges(numbers)}",
            parameters=times * sum(stage.parameters for stage in stages),
            flops=times * sum(stage.flops for stage in stages),
            times=times,
            stages=tuple(stages),
        )


def _format_ranges(numbers: list[int]) -> str:
    """Format numbers as ranges, such as 0-2, 4."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def _describe_kernel(attention: Attention, flops: int) -> Stage:
    """Describe scores, weights and gathered values, which have no module."""
    backends = attention.supported_backends if attention.backend == "auto" else {attention.backend}
    shape = f"b {attention.shape.heads} n {attention.shape.dim_head}"
    window = "" if attention.window is None else f", window {attention.window}"
    return Stage(name="kernel", kind="/".join(sorted(backends)) + window, shape=shape, flops=flops)
