"""Memory across segments (Transformer-XL) is that of x-transformers, but for two rules."""

from typing import Any

import pytest
import torch
from parity.comparisons import compare_logits, compare_training
from parity.models import build_pair, compute
from parity.reference import in_float64, x_transformers
from parity.rows import VOCAB, Row, make_decoder
from torch import Tensor, nn
from torch.testing import assert_close

from lightning_xt import Decoder, Inputs, Trace, generate

pytestmark = pytest.mark.slow
SEGMENT, MEMORY = 5, 7
ROTARY = {"position": {"class_path": "Rotary", "init_args": {"rotary_dim": 4}}}
BUCKETS = {"num_buckets": 8, "max_distance": 10}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "no_positions": ("", {}),
    "rotary": ("rotary_pos_emb=True", ROTARY),
    "alibi": ("alibi_pos_bias=True", {"position": "ALiBi"}),
    "relative_bias": (
        "rel_pos_bias=True, rel_pos_num_buckets=8, rel_pos_max_distance=10",
        {"position": {"class_path": "SharedRelativeBias", "init_args": BUCKETS}},
    ),
    "grouped_heads_and_memory": ("attn_kv_heads=2, attn_num_mem_kv=2", {"kv_heads": 2, "memory": 2}),
}


def make_row(layers: str, attention: dict[str, Any], kind: str = "SegmentRecurrence", wrapper: str = "") -> Row:
    wrapper = f"max_seq_len={SEGMENT}, max_mem_len={MEMORY}" + wrapper
    segments = {"class_path": kind, "init_args": {"length": SEGMENT, "memory": MEMORY}}
    return make_decoder("", layers=layers, wrapper=wrapper, attention=attention, decoder={"segments": segments})


def draw_text(segments: float) -> Tensor:
    return torch.randint(VOCAB, (2, int(segments * SEGMENT)))


def read_segments(model: Decoder, tokens: Tensor) -> list[Tensor]:
    """Return the logits of each segment, with the memories of those before."""
    memories, logits = None, []
    for segment in tokens.split(SEGMENT, dim=1):
        found, trace = model(segment, inputs=Inputs(memories=memories), trace=Trace())
        memories = trace.memories
        logits.append(found)
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_segments_remember(kind: str):
    theirs, model, ledger = build_pair(make_row(*KINDS[kind]))
    tokens = draw_text(3)
    mems, expected = None, []
    for segment in tokens.split(SEGMENT, dim=1):
        logits, mems = compute(theirs, segment, mems=mems, return_mems=True)
        expected.append(logits)
    compare_logits(torch.cat(read_segments(model.decoder, tokens), dim=1), torch.cat(expected, dim=1))
    compare_logits(model.decoder(tokens), torch.cat(expected, dim=1))
    # The gradients of a row flow through all of its segments.
    tokens = torch.cat((tokens, tokens[:, :1]), dim=1)
    with in_float64():
        their_loss = x_transformers.XLAutoregressiveWrapper(theirs, tbptt_steps=9).train()(tokens)
    compare_training(their_loss, model.train().loss(tokens), ledger)


def test_enhanced_recurrence():
    theirs, model, _ = build_pair(make_row(*KINDS["rotary"], "EnhancedRecurrence", ", shift_mem_down=1"))
    tokens = draw_text(2)
    first, second = tokens.split(SEGMENT, dim=1)
    _, kept = compute(theirs, first, return_intermediates=True)
    own = read_segments(model.decoder, tokens)[1]
    assert not torch.allclose(own, compute(theirs, second, mems=list(kept.hiddens)), atol=1e-3)
    # In the paper the last layer reads its own output: the stream before the last norm.
    theirs.shift_mem_down = 0
    compare_logits(own, compute(theirs, second, mems=[kept.hiddens[1], kept.layer_hiddens[-1]]))


def continue_by_segments(net: nn.Module, tokens: Tensor, number: int) -> Tensor:
    """Continue a text by the most likely tokens, reading all segments again for each."""
    for _ in range(number):
        mems = None
        for segment in tokens.split(SEGMENT, dim=1):
            logits, mems = compute(net, segment, mems=mems, return_mems=True)
        tokens = torch.cat((tokens, logits[:, -1:].argmax(dim=-1)), dim=1)
    return tokens[:, -number:]


def test_generation_over_segments():
    theirs, model, _ = build_pair(make_row(*KINDS["rotary"]))
    tokens = draw_text(1.4)
    expected = continue_by_segments(theirs, tokens, 9)
    with in_float64():
        found = x_transformers.XLAutoregressiveWrapper(theirs).eval().generate(tokens, 9, temperature=0.0)
    assert found.tolist() != expected.tolist()
    assert generate(model.decoder, tokens, 9, temperature=0).tolist() == expected.tolist()
    assert_close(model.decoder(tokens)[:, -1].argmax(dim=-1), expected[:, 0])
