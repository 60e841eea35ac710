"""The outline against numbers computed by hand, and for every variant."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.models.outline import outline
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.heads.untied_head import UntiedHead
from lightning_xt.nn.layouts.looped import Looped
from lightning_xt.nn.layouts.parallel import Parallel
from lightning_xt.nn.passes.exit_loops import ExitLoops
from lightning_xt.nn.passes.recycling import Recycling
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.residuals.hyper_connection import HyperConnection
from lightning_xt.nn.scores.negative_distance import NegativeDistance
from lightning_xt.nn.segments.memory_tokens import MemoryTokens
from lightning_xt.nn.segments.segment_recurrence import SegmentRecurrence

CONFIGS = Path(__file__).parents[2] / "configs"
VARIANTS = sorted((CONFIGS / "variants").glob("*.yaml"))
WORDS, DIM, DEPTH, HEADS, TOKENS = 13, 12, 3, 3, 7
SOURCES, WIDTH = 19, 18  # of an encoder


def small(**options):
    with torch.device("meta"):
        return Decoder(WORDS, **{"dim": DIM, "depth": DEPTH, "attention": heads(), **options})


def both(width=None, encoder=None, shared_embedding=False, **options):
    read = {"dim": width or WIDTH, "depth": 2, "attention": heads(), **(encoder or {})}
    write = {"dim": DIM, "depth": DEPTH, "attention": heads(), "cross_attention": heads(position=None), **options}
    with torch.device("meta"):
        return EncoderDecoder(
            WORDS if shared_embedding else SOURCES,
            WORDS,
            encoder=lambda size: Encoder(size, **read),
            decoder=lambda size, context: Decoder(size, context, **write),
            shared_embedding=shared_embedding,
        )


def heads(**options):
    return lambda shape: Attention(shape, heads=HEADS, **options)


def every(stage):
    yield stage
    for each in stage.stages:
        yield from every(each)


def find(stage, path):
    for name in path.split("/"):
        stage = next(each for each in stage.stages if each.name == name)
    return stage


def linear(inputs, outputs):
    """Return the FLOPs of a linear map of one token: twice its parameters."""
    return 2 * inputs * outputs


def test_a_plain_decoder_by_hand():
    root = outline(small(), TOKENS)
    attention = linear(DIM, 3 * DIM) + linear(DIM, DIM) + 4 * TOKENS * DIM
    feedforward = 2 * linear(DIM, 4 * DIM)
    assert root.flops == TOKENS * (DEPTH * (attention + feedforward) + linear(DIM, WORDS))
    assert find(root, "head").flops == TOKENS * linear(DIM, WORDS)
    assert find(root, "stack/layers 0-2").flops == TOKENS * DEPTH * (attention + feedforward)
    layer = find(root, "stack/layers 0-2")
    assert layer.times == DEPTH
    assert find(layer, "attention").flops == TOKENS * attention
    assert find(layer, "attention/branch/kernel").flops == 4 * TOKENS * TOKENS * DIM
    assert find(layer, "attention/branch/projection").flops == TOKENS * linear(DIM, 3 * DIM)
    assert find(layer, "attention/branch/projection").parameters == 3 * DIM * DIM
    assert find(layer, "feedforward/branch/feedforward/to_hidden").flops == TOKENS * linear(DIM, 4 * DIM)
    # Gains of norms are not in a product.
    norms = DIM * (2 * DEPTH + 1)
    without_embeddings = root.parameters - find(root, "token_embedding").parameters
    assert root.flops == TOKENS * (2 * (without_embeddings - norms) + DEPTH * 4 * TOKENS * DIM)


def test_shapes_and_order():
    root = outline(small(), TOKENS)
    assert [stage.name for stage in root.stages] == ["token_embedding", "stack", "head"]
    layer = find(root, "stack/layers 0-2")
    assert [stage.name for stage in layer.stages] == ["attention", "feedforward"]
    attention = find(layer, "attention")
    assert [stage.name for stage in attention.stages] == ["placement", "branch", "residual"]
    names = ["projection", "position", "score", "normalizer", "kernel", "to_out"]
    assert [stage.name for stage in find(attention, "branch").stages] == names
    assert root.shape == f"b n {WORDS}"
    assert attention.shape == f"b n {DIM}"
    assert find(attention, "branch/projection/to_qkv").shape == f"b n {3 * DIM}"
    assert find(attention, "branch/kernel").shape == f"b {HEADS} n {DIM // HEADS}"
    assert find(attention, "branch/kernel").kind == "explicit/flex/fused"
    assert find(attention, "branch/position").kind == "Rotary"
    assert find(attention, "branch/position").shape == ""


@pytest.mark.parametrize("tokens", [1, 2, DIM, WORDS])
def test_tokens_are_distinguished_from_other_sizes(tokens):
    root = outline(small(), tokens)
    assert find(root, "token_embedding").shape == (f"b n {DIM}" if tokens > 1 else f"b 1 {DIM}")
    assert root.shape == (f"b n {WORDS}" if tokens > 1 else f"b 1 {WORDS}")


def test_memory_stands_next_to_the_tokens():
    root = outline(small(attention=heads(memory=5, score=NegativeDistance)), TOKENS)
    branch = find(root, "stack/layers 0-2/attention/branch")
    assert find(branch, "normalizer").shape == f"b {HEADS} n n+5"
    assert find(branch, "score").flops == find(branch, "kernel").flops == 2 * TOKENS * (TOKENS + 5) * DIM
    assert branch.parameters == 4 * DIM * DIM + 2 * 5 * DIM


def test_a_tied_table_counts_once():
    root = outline(small(head=TiedHead), TOKENS)
    assert find(root, "token_embedding").parameters == WORDS * DIM
    assert find(root, "head").parameters == 0
    assert find(root, "head").flops == TOKENS * linear(DIM, WORDS)


def test_an_encoder_decoder_by_hand():
    root = outline(both(), TOKENS)
    assert [stage.name for stage in root.stages] == ["encoder", "decoder"]
    assert (root.name, root.kind, root.shape) == ("encoder_decoder", "EncoderDecoder", f"b n {WORDS}")
    own = linear(DIM, 3 * DIM) + linear(DIM, DIM) + 4 * TOKENS * DIM
    read = linear(WIDTH, 3 * WIDTH) + linear(WIDTH, WIDTH) + 4 * TOKENS * WIDTH
    across = linear(DIM, DIM) + linear(WIDTH, 2 * DIM) + linear(DIM, DIM) + 4 * TOKENS * DIM
    assert find(root, "encoder").flops == TOKENS * (2 * (read + 2 * linear(WIDTH, 4 * WIDTH)))
    assert find(root, "encoder").shape == f"b n {WIDTH}"
    decoded = TOKENS * (DEPTH * (own + across + 2 * linear(DIM, 4 * DIM)) + linear(DIM, WORDS))
    assert find(root, "decoder").flops == decoded
    assert root.flops == decoded + find(root, "encoder").flops
    layer = find(root, "decoder/stack/layers 0-2")
    assert [stage.name for stage in layer.stages] == ["attention", "cross_attention", "feedforward"]
    assert find(layer, "cross_attention").flops == TOKENS * across


@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("head", [UntiedHead, TiedHead], ids=["untied", "tied"])
def test_an_encoder_decoder_counts_each_table_once(shared, head):
    options = {"width": DIM, "shared_embedding": True} if shared else {}
    network = both(head=head, **options)
    root = outline(network, TOKENS)
    assert root.parameters == sum(parameter.numel() for parameter in network.parameters())
    tables = [find(root, f"{side}/token_embedding").parameters for side in ("encoder", "decoder")]
    assert tables == ([WORDS * DIM, 0] if shared else [SOURCES * WIDTH, WORDS * DIM])
    assert find(root, "decoder/head").parameters == (0 if head is TiedHead else WORDS * DIM)
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        network(ids, ids)
    assert root.flops == counter.get_total_flops()


@pytest.mark.parametrize("tokens", [16, 17, 36])
def test_shapes_of_a_decoder_with_segments_are_those_of_a_segment(tokens):
    def build(segments):
        return small(segments=lambda shape: segments(shape, length=16, memory=2))

    for segments, width in ((SegmentRecurrence, "n"), (MemoryTokens, "n+2")):
        network = build(segments)
        root = outline(network, tokens)
        assert (root.shape, find(root, "token_embedding").shape) == (f"b n {WORDS}", f"b n {DIM}")
        assert find(root, "stack/layers 0-2/feedforward").shape == f"b {width} {DIM}"
        # FLOPs are those of all segments.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, tokens, dtype=torch.long, device="meta"))
        assert root.flops == counter.get_total_flops()


def test_an_encoder_decoder_reaches_as_far_as_the_shorter_side():
    positions = [lambda shape: LearnedPositions(shape, max_length=5)]
    network = both(encoder={"embeddings": positions})
    assert outline(network, 5).parameters == sum(parameter.numel() for parameter in network.parameters())
    with pytest.raises(ValueError, match=r"seq_len is 6, but the model's positions reach only 5 \(max_length\)"):
        outline(network, 6)


def test_loops_cost_without_parameters():
    once, twice = outline(small(), TOKENS), outline(small(layout=lambda depth: Looped(depth, loops=2)), TOKENS)
    assert twice.parameters == once.parameters
    assert find(twice, "stack").flops == 2 * find(once, "stack").flops
    assert [stage.calls for stage in find(twice, "stack/layers 0-2").stages] == [2, 2]
    assert [stage.calls for stage in find(once, "stack/layers 0-2").stages] == [1, 1]


def test_passes_cost_as_loops_do_and_parallel_branches_as_separate_ones():
    once = outline(small(), TOKENS)
    thrice = outline(small(passes=lambda shape, norm: ExitLoops(shape, norm, passes=3)), TOKENS)
    assert find(thrice, "stack/layers 0-2").flops == 3 * find(once, "stack/layers 0-2").flops
    assert [stage.calls for stage in find(thrice, "stack/layers 0-2").stages] == [3, 3]
    assert thrice.parameters == once.parameters == outline(small(passes=Recycling), TOKENS).parameters - DIM
    parallel = outline(small(layout=Parallel), TOKENS)
    assert (parallel.flops, parallel.parameters) == (once.flops, once.parameters - DEPTH * DIM)


def test_only_equal_layers_are_folded():
    def names(*recipes):
        decoder = small(depth=4, attention=lambda shape: Cycle(shape, recipes=recipes))
        return [stage.name for stage in find(outline(decoder, TOKENS), "stack").stages]

    assert names(heads()) == ["layers 0-3", "output_norm"]
    assert names(heads(window=3), heads()) == ["layers 0, 2", "layers 1, 3", "output_norm"]
    assert names(heads(), heads(), heads(kv_heads=1)) == ["layers 0-1, 3", "layer 2", "output_norm"]
    assert names(heads(), heads(dropout=0.5)) == ["layers 0, 2", "layers 1, 3", "output_norm"]


def test_a_window_is_shown():
    root = outline(small(attention=heads(window=3)), TOKENS)
    assert find(root, "stack/layers 0-2/attention/branch/kernel").kind == "explicit/flex/fused, window 3"


def test_what_methods_compute_is_counted():
    root = outline(small(residual=HyperConnection), TOKENS)
    sublayer = find(root, "stack/layers 0-2/attention")
    # Reading: a weight of each stream, and their sum; writing: the mix of the streams, made and applied; the depths.
    assert find(sublayer, "residual").flops == TOKENS * 2 * DIM * (4 + 4 + 4 * 4 + 4 * 4 + 4)
    assert sublayer.shape == f"b n 4 {DIM}"
    contextual = small(attention=heads(position=lambda shape: Contextual(shape, max_position=5)))
    kernel = find(outline(contextual, TOKENS), "stack/layers 0-2/attention/branch/kernel")
    assert kernel.flops == 2 * TOKENS * TOKENS * DIM + 2 * TOKENS * DIM * 5


def test_it_is_the_same_with_memory_and_changes_nothing():
    real = Decoder(WORDS, dim=DIM, depth=DEPTH, attention=heads(), dropout=0.5)
    before = {name: value.clone() for name, value in real.state_dict().items()}
    assert outline(real, TOKENS) == outline(small(dropout=0.5), TOKENS)
    assert real.training
    assert not any(module._forward_hooks for module in real.modules())
    assert all(torch.equal(before[name], value) for name, value in real.state_dict().items())
    real.head.eval()
    outline(real, TOKENS)
    assert real.training
    assert not real.head.training


def test_invalid_lengths():
    with pytest.raises(ValueError, match="seq_len is 0; it must be at least 1 token"):
        outline(small(), 0)
    learned = small(embeddings=[lambda shape: LearnedPositions(shape, max_length=5)])
    assert find(outline(learned, 5), "embeddings.0").parameters == 5 * DIM
    with pytest.raises(ValueError, match=r"seq_len is 6, but the model's positions reach only 5 \(max_length\)"):
        outline(learned, 6)


def merge(base, overlay):
    """Merge a config with an overlay, as the command line does."""
    if not isinstance(base, dict) or not isinstance(overlay, dict) or "class_path" in overlay:
        return overlay
    return {**base, **{name: merge(base.get(name), each) for name, each in overlay.items()}}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda file: file.stem)
def test_every_variant_has_an_outline(variant):
    base, overlay = (
        yaml.safe_load(file.read_text(encoding="utf-8"))["model"]["init_args"].get("decoder", {})
        for file in (CONFIGS / "language" / "quickstart.yaml", variant)
    )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--decoder", type=Callable[[int], Decoder])
    options = {"class_path": "Decoder", "init_args": merge({**base, "depth": 2}, overlay)}
    built = parser.instantiate_classes(parser.parse_object({"decoder": options}))
    with torch.device("meta"):
        decoder = built.decoder(256)
    root = outline(decoder, 96)
    assert root.parameters == sum(parameter.numel() for parameter in decoder.parameters())
    assert root.shape == "b n 256"
    # A network on distances has no rows.
    rowless = [id(part) for stage in every(root) if stage.kind == "DistanceMLP" for part in every(stage)]
    for stage in every(root):
        # A part may hold parameters besides its stages, such as a gain.
        assert stage.parameters >= stage.times * sum(part.parameters for part in stage.stages)
        assert stage.flops == stage.times * sum(part.flops for part in stage.stages) or not stage.stages
        assert stage.shape.split()[:1] in ([["n"]] * (id(stage) in rowless) + [["b"], ["1"], []])
