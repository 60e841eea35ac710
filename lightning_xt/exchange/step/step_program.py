"""Programs of a model for other runtimes: names and shapes of their tensors, and their tracing."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from lightning_xt.exchange.step.decode_step import DecodeStep
from lightning_xt.exchange.step.source_encoder import SourceEncoder
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder_decoder import EncoderDecoder

Role = Literal["tokens", "lengths", "source", "source_mask", "context", "cache", "logits"]
Size = int | str


@dataclass(frozen=True, eq=False)
class Port:
    """Input or output of a program.

    Args:
        name: name of the tensor.
        role: meaning of the tensor.
        example: tensor of the right type and shape.
        axes: names of the axes whose size each call may choose, by number.
    """

    name: str
    role: Role
    example: Tensor
    axes: dict[int, str]

    @property
    def shape(self) -> list[Size]:
        """Sizes of the axes, or their names."""
        return [self.axes.get(axis, size) for axis, size in enumerate(self.example.shape)]

    @property
    def dtype(self) -> str:
        """Type of the numbers, by numpy's name."""
        return str(self.example.dtype).removeprefix("torch.")

    def describe(self) -> dict[str, Any]:
        """Return name, role, type and shape, for JSON."""
        return {"name": self.name, "role": self.role, "dtype": self.dtype, "shape": self.shape}


@dataclass(frozen=True, eq=False)
class StepProgram:
    """Module whose inputs and outputs are tensors with names.

    Args:
        name: name of the program.
        module: the module.
        inputs: inputs in order.
        outputs: outputs in order; those of the cache are in the order of the inputs with that role.
        limits: least and most size of each named axis. None = any.
    """

    name: str
    module: nn.Module
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    limits: dict[str, tuple[int, int | None]]

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """Inputs to trace with."""
        return tuple(port.example for port in self.inputs)

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """Named axes of the inputs, as torch.export wants them."""
        names = {name: Dim(name, min=least, max=most) for name, (least, most) in self.limits.items()}
        shapes = [{axis: names[name] for axis, name in port.axes.items()} for port in self.inputs]
        # All but the first two arguments of a decode step are variable ones.
        return (*shapes[:2], tuple(shapes[2:])) if isinstance(self.module, DecodeStep) else tuple(shapes)

    @torch.no_grad()
    def trace(self) -> ExportedProgram:
        """Trace the module; the program holds no paths of this machine."""
        with silence_libraries():
            made = export(self.module, self.examples, dynamic_shapes=self.dynamic_shapes, strict=False)
        for module in made.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)
        return made


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence warnings and logs of libraries about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def build_programs(network: Decoder | EncoderDecoder, capacity: int) -> list[StepProgram]:
    """Build the programs of a network: the decode step, for an encoder-decoder after the encoder."""
    network = network.eval()
    rows = 2
    if isinstance(network, Decoder):
        return [_build_step(DecodeStep(network, capacity), [], rows)]
    module, source = SourceEncoder(network), torch.zeros(rows, 5, dtype=torch.long)
    mask = torch.ones_like(source, dtype=torch.bool)
    with torch.no_grad():
        step = DecodeStep(network.decoder, capacity, network.encode(source[:1], mask[:1]))
        tensors = module(source, mask)
    names = {0: "batch", 1: "source"}
    inputs = [Port("source", "source", source, names), Port("source_mask", "source_mask", mask, names)]
    axes = [{0: "batch", tensor.dim() - 2: "source"} for tensor in tensors]
    outputs = [
        Port(name, "context", tensor, own) for name, tensor, own in zip(step.context_names, tensors, axes, strict=True)
    ]
    limits = {"batch": (1, None), "source": (1, network.encoder.max_length)}
    encoder = StepProgram("encoder", module, inputs, outputs, limits)
    return [encoder, _build_step(step, [inputs[1], *outputs], rows, source=limits["source"])]


def _build_step(step: DecodeStep, given: Sequence[Port], rows: int, **limits: tuple[int, int | None]) -> StepProgram:
    """Build the program of a decode step with given inputs of a context."""
    n = min(step.most, 3)
    axes = {0: "batch", 1: "tokens"} if n > 1 else {0: "batch"}
    tokens = Port("tokens", "tokens", torch.zeros(rows, n, dtype=torch.long), axes)
    lengths = Port("lengths", "lengths", torch.zeros(rows, dtype=torch.long), {0: "batch"})
    made = step.make_cache(rows)
    cache = [Port(name, "cache", tensor, {0: "batch"}) for name, tensor in zip(step.cache_names, made, strict=True)]
    inputs = [tokens, lengths, *given, *cache]
    with torch.no_grad():
        logits = step(*(port.example for port in inputs))[0]
    outputs = [
        Port("logits", "logits", logits, axes),
        *(Port(f"new_{port.name}", "cache", port.example, port.axes) for port in cache),
    ]
    if n > 1:
        limits["tokens"] = (1, step.most)
    return StepProgram("step", step, inputs, outputs, {"batch": (1, None), **limits})
