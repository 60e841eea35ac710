"""Laws that need tracing, in a process without run-time checks of shapes; run by test_families.py.

Every variant compiles as one graph with the same result, and where flex_attention is claimed it agrees with plain
products. On a CPU flex_attention has no backward pass, so forward results are compared. Rows of other lengths are
compiled once more, not once each.
"""

import os
import sys
import warnings
from functools import partial

os.environ["LIGHTNING_XT_NO_SHAPE_CHECKS"] = "1"

import pytest
import torch

import lightning_xt
from lightning_xt.system.discovery import import_submodules

import_submodules(lightning_xt)

from catalogue import BUILDS, CASES, Build, attention, attention_layers, decoder, example, randomise
from sampled_laws import choose

from lightning_xt.core import block_masks
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.keys_values import KeysValues
from lightning_xt.core.where import Where
from lightning_xt.nn.adapters.lora import LoRA
from lightning_xt.nn.attention.kernels import flex, window_blocks
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.links.base import Link
from lightning_xt.nn.positions.base import PositionFactory
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.value_mods.value_residual import ValueResidual
from lightning_xt.nn.value_mods.weighted_value_residual import WeightedValueResidual

warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
torch.set_num_threads(1)
TOKENS, INPUTS = example(2, 7)


KEPT = {"window", "looped-value_residual", "memory-window-kv_heads-alibi", "checkpoint_layers-alibi-unet"}
"""Cases that are compiled by default; check_inductor compiles all."""
COMPILED = {name: build for name, build in BUILDS.items() if name not in CASES or name in KEPT}


def check_compilation(name: str, build: Build) -> None:
    torch._dynamo.reset()
    # A second layer takes as long again to trace; check_inductor compiles two.
    model = randomise(shrink(build))
    actual = torch.compile(model, fullgraph=True, backend="eager")(TOKENS, inputs=INPUTS)
    torch.testing.assert_close(actual, model(TOKENS, inputs=INPUTS), rtol=1e-9, atol=1e-10)


def shrink(build: Build) -> Build:
    """Return a build with a single layer, unless a part is refused there or does nothing."""
    if any(isinstance(module, ValueResidual | WeightedValueResidual | Link) for module in build().modules()):
        return build
    single = partial(build, depth=1)
    try:
        single()
    except ValueError:
        return build
    return single


def claims_flex(build: Build) -> bool:
    layers = attention_layers(build())
    return bool(layers) and all("flex" in layer.supported_backends for layer in layers)


def find_claiming() -> dict[str, Build]:
    """Find the builds that claim flex_attention."""
    return {name: build for name, build in BUILDS.items() if claims_flex(build)}


@torch.no_grad()
def check_flex(name: str, build: Build) -> None:
    model = randomise(build)
    results = []
    for backend in ("explicit", "flex"):
        for layer in attention_layers(model):
            layer.backend = backend
        results.append(model(TOKENS, inputs=INPUTS))
    torch.testing.assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def check_flex_access() -> None:
    """Check own masks and biases, persistent keys and keys of another model on flex_attention."""
    model = randomise(lambda: decoder(attention=attention(position=Forgetting, memory=3)))
    generator = torch.Generator().manual_seed(3)
    for rows, heads in ((1, 1), (2, 1), (1, 4), (2, 4)):
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        seen = draw(2, 5) > 0
        inputs = Inputs(
            mask=(draw(2, 7, 7) > 0) | torch.eye(7, dtype=torch.bool),
            bias=draw(rows, heads, 7, 7),
            keys_values=[KeysValues(draw(2, 4, 5, 6), draw(2, 4, 5, 6), seen), None],
        )
        results = []
        for backend in ("explicit", "fused", "flex"):
            for layer in attention_layers(model):
                layer.backend = backend
            results.append(model(TOKENS, inputs=inputs))
        torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(results[2], results[0], rtol=1e-6, atol=1e-6)


def check_shared_graph() -> None:
    """Check the graphs of bfloat16: blocks for the first length, then one of short rows, and one of all others."""
    torch._dynamo.reset()
    model, graphs = randomise(lambda: decoder(attention=attention())).bfloat16(), []

    def kept(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph.code)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=kept)
    for n in (7, 70, 90, 130, 150):
        tokens, _ = example(2, n)
        torch.testing.assert_close(compiled(tokens), model(tokens), rtol=0.05, atol=0.05)
    assert ["scaled_dot_product_attention" in code for code in graphs] == [False, False, True], len(graphs)


def check_window_blocks(position: PositionFactory) -> None:
    """Check that windows in blocks share a graph between all lengths but the first."""
    window_blocks.LEAST, window_blocks.MOST, window_blocks.UNIT, window_blocks.SKIPPED = 1, 2, 1, -100
    torch._dynamo.reset()
    model, graphs = randomise(partial(decoder, depth=1, attention=attention(window=3, position=position))), []
    compiled = torch.compile(model, fullgraph=True, backend=lambda graph, _: graphs.append(graph.code) or graph.forward)
    for n in (7, 10, 33, 40):
        tokens, _ = example(2, n)
        torch.testing.assert_close(compiled(tokens), model(tokens), rtol=1e-9, atol=1e-10)
    assert len(graphs) == 2, len(graphs)
    where = Where.from_sequence(7, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu"))
    assert window_blocks.find_window_blocks(where.limit_window(3)) is not None


@torch.no_grad()
def check_shared_flex_program(masks: bool) -> None:
    """Check that lengths and layers share one program, and multiples of a block one more, past torch's limit of 8."""
    programs, masks_made = [], []
    real = flex.flex_attention, block_masks.create_block_mask
    flex.flex_attention = flex.compile_flex(backend=lambda graph, _: programs.append(graph) or graph.forward)
    if masks:
        block_masks.create_block_mask = block_masks.compile_create_block_mask(
            backend=lambda graph, _: masks_made.append(graph) or graph.forward
        )
    model = randomise(lambda: decoder(attention=attention(position=Forgetting, window=33, memory=3, backend="flex")))
    for block in range(1, 3 if masks else 6):
        # The persistent keys come first.
        for n in (*(128 * block - less for less in (80, 40, 4)), 128 * block):
            tokens, _ = example(2, n)
            out = model(tokens)
            for layer in attention_layers(model):
                layer.backend = "explicit"
            torch.testing.assert_close(out, model(tokens), rtol=1e-6, atol=1e-6)
            for layer in attention_layers(model):
                layer.backend = "flex"
        assert len(programs) == 2 * block, (block, len(programs))
    # The first program is for one shape, the others are for any.
    assert len(masks_made) <= 4 * masks, len(masks_made)
    flex.flex_attention, block_masks.create_block_mask = real


def check_adapters() -> None:
    """Check that networks with LoRA on every linear map compile, to the same outputs and gradients."""
    # Parts of the last two read matrices.
    for name in ("plain", "position=DynamicBias", "embedding_dim-tied_head"):
        torch._dynamo.reset()
        model = randomise(shrink(BUILDS[name]))
        LoRA(rank=2, targets=["*"]).adapt(model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for parameter in trained:
                parameter.normal_(std=0.3)
        expected = model(TOKENS, inputs=INPUTS)
        actual = torch.compile(model, fullgraph=True, backend="eager")(TOKENS, inputs=INPUTS)
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)
        found = [torch.autograd.grad(each.square().sum(), trained, allow_unused=True) for each in (actual, expected)]
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-10)


@torch.no_grad()
def check_tables() -> None:
    """Check that documents may be longer together than a table of positions, but not alone."""
    torch._dynamo.reset()
    model = randomise(lambda: decoder(embeddings=[partial(LearnedPositions, max_length=4)]))
    packed, single = (Inputs(documents=torch.tensor([[0] * 4 + [later] * 3] * 2)) for later in (1, 0))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(TOKENS, inputs=packed), model(TOKENS, inputs=packed), rtol=1e-9, atol=1e-10)
    with pytest.raises(RuntimeError, match="LearnedPositions has max_length 4, so positions are 0 to 3"):
        compiled(TOKENS, inputs=single)


def select(part: str, builds: dict[str, Build]) -> dict[str, Build]:
    """Select the builds of the sample, or a third of the others, by its number."""
    sampled = choose("compiles", builds)
    rest = [name for name in builds if name not in sampled]
    return {name: builds[name] for name in (sampled if part == "sample" else rest[int(part) :: 3])}


def count(law: object, builds: dict[str, Build]) -> int:
    failures = 0
    for name, build in builds.items():
        try:
            law(name, build)
        except Exception as error:
            failures += 1
            print(f"{law.__name__}, {name}: {type(error).__name__}: {str(error)[:400]}", file=sys.stderr)
    return len(builds) - failures


def check_inductor(build: Build) -> None:
    model = randomise(build)
    expected = model(TOKENS, inputs=INPUTS)
    gradients = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    actual = torch.compile(model, fullgraph=True)(TOKENS, inputs=INPUTS)
    again = torch.autograd.grad(actual.square().sum(), list(model.parameters()))
    # Constants of positions are float32 in any model, and the code generator's functions are not the library's.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, gradients, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    if sys.argv[1:] == ["block masks"]:
        check_window_blocks(Forgetting)
        check_inductor(partial(decoder, depth=1, attention=attention(window=3)))
        sys.exit(check_shared_flex_program(masks=True))
    if sys.argv[1] == "shared":
        check_shared_graph()
        check_window_blocks(Rotary)
        check_adapters()
        check_tables()
        check_shared_flex_program(masks=False)
        sys.exit(check_flex_access())
    if sys.argv[1] != "part":
        sys.exit(check_inductor(BUILDS[sys.argv[1]]))
    flex, whole = select(sys.argv[2], find_claiming()), select(sys.argv[2], COMPILED)
    agreed, compiled = count(check_flex, flex), count(check_compilation, whole)
    print(f"{compiled} compiled, {agreed} of {len(flex)} agree with flex")
    sys.exit(agreed < len(flex) or compiled < len(whole))
