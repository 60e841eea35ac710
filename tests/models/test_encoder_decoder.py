"""The encoder-decoder: cross-attention by hand, sizes of either side, dropped positions, and refusals."""

import re
from dataclasses import replace
from functools import partial

import jaxtyping
import pytest
import torch
from catalogue import CONDITION, DIM, VOCAB, attention, randomise
from encoder_catalogue import SOURCE_DIM, SOURCES, make_inputs, pair, sized_decoder, sized_encoder, source
from torch import Tensor
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.embeddings.type_embedding import TypeEmbedding
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.positions.rotary import Rotary

TARGETS = torch.tensor([[1, 4, 2, 5, 3], [2, 7, 1, 8, 2]])


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("position", [None, Rotary])
def test_cross_attention_of_one_head_by_hand(position: type[Rotary] | None) -> None:
    one = attention(heads=1, dim_head=6, position=position)
    model, (src, mask) = randomise(lambda: pair(decoder={"depth": 1, "cross_attention": one})), source(2, 7)
    layer = model.decoder.stack.sublayers["0_cross_attention"].branch
    seen: list[tuple[Tensor, Tensor]] = []
    layer.register_forward_hook(lambda module, args, out: seen.append((args[0], out[0])))
    model(src, TARGETS, mask)
    x, out = seen[0]
    to_k, to_v = layer.projection.to_kv.weight.split(6)
    for row, length in enumerate((7, 4)):
        context = model.encoder(src[row : row + 1, :length])[0]
        q, k = x[row] @ layer.projection.to_q.weight.T, context @ to_k.T
        scores = (q @ k.T if position is None else rotate_and_multiply(q, k)) / 6**0.5
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        close(out[row], weights @ (context @ to_v.T) @ layer.to_out.weight.T)


def rotate_and_multiply(q: Tensor, k: Tensor) -> Tensor:
    """Return the product of each query i and key j, pairs of features as complex numbers that turn by i - j."""
    # Rotary keeps them in float32.
    frequencies = torch.tensor([1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)], dtype=torch.float32).double()
    queries, keys = (torch.complex(*x.split(3, dim=-1)) for x in (q, k))
    distance = torch.arange(len(q))[:, None] - torch.arange(len(k))
    turn = torch.exp(1j * distance[..., None] * frequencies)
    return (queries[:, None] * keys.conj() * turn).real.sum(-1)


@torch.no_grad()
def test_sides_of_different_width_depth_and_vocabulary() -> None:
    model = EncoderDecoder(
        SOURCES,
        VOCAB,
        encoder=partial(Encoder, dim=8, depth=3, attention=partial(Attention, heads=2)),
        decoder=partial(
            Decoder,
            dim=12,
            depth=1,
            attention=partial(Attention, heads=3),
            cross_attention=partial(Attention, heads=4, position=None),
        ),
    )
    assert (model.encoder.vocab_size, model.decoder.vocab_size) == (SOURCES, VOCAB)
    across = model.decoder.stack.sublayers["0_cross_attention"].branch
    assert (across.shape.dim, across.shape.context_dim, across.shape.heads) == (12, 8, 4)
    assert [len(part.stack.steps) for part in (model.encoder, model.decoder)] == [6, 3]
    src, mask = source(2, 7)
    assert model(src, TARGETS, mask).shape == (2, 5, VOCAB)


def test_cross_attention_knows_positions_by_default() -> None:
    model = EncoderDecoder(SOURCES, VOCAB, encoder=partial(Encoder, dim=16), decoder=partial(Decoder, dim=24))
    layer = model.decoder.stack.sublayers["0_cross_attention"].branch
    assert type(layer.position) is Rotary and layer.shape.heads == 8


@torch.no_grad()
def test_a_mask_of_true_equals_no_mask() -> None:
    model, (src, mask) = randomise(pair), source(2, 7)
    close(model(src, TARGETS, torch.ones_like(mask)), model(src, TARGETS))


@torch.no_grad()
def test_a_source_that_is_all_padding_gives_cross_attention_nothing() -> None:
    model, (src, mask) = randomise(pair), source(2, 7)
    empty = mask & torch.tensor([[True], [False]])
    logits = model(src, TARGETS, empty)
    assert logits.isfinite().all()
    close(model((src + 1) % SOURCES, TARGETS, empty)[1], logits[1])


@torch.no_grad()
def test_the_condition_reaches_both_sides() -> None:
    """The condition changes both sides, each by its own gains."""
    src, mask = source(2, 7)
    inputs, adaptive = make_inputs(2, 5), partial(AdaptiveRMSNorm, condition_dim=CONDITION)
    other = Inputs(condition=inputs.condition + torch.tensor([[0.0], [1.0]]))
    for side in ("encoder", "decoder"):
        model = pair({"norm": adaptive}, {"norm": adaptive}).double().eval()
        torch.nn.init.normal_(model.decoder.head.to_logits.weight)
        for name, parameter in model.named_parameters():
            if name.startswith(side) and "to_gain" in name:
                torch.nn.init.normal_(parameter)
        before, after = (model(src, TARGETS, mask, inputs=given) for given in (inputs, other))
        close(after[0], before[0])
        assert (after[1] - before[1]).abs().max() > 1e-3, side
    with pytest.raises(ValueError, match=re.escape("AdaptiveRMSNorm needs Inputs(condition=...)")):
        model(src, TARGETS, mask)


def test_what_the_decoder_is_given_is_kept() -> None:
    model, (src, mask) = pair(), source(2, 7)
    inputs = Inputs(types=TARGETS, condition=torch.zeros(2, CONDITION), prefix=torch.zeros(2, 3, DIM))
    given = model.encode(src, mask, inputs=inputs)
    assert given.types is inputs.types and given.condition is inputs.condition and given.prefix is inputs.prefix
    assert given.context.shape == (2, 7, SOURCE_DIM) and given.context_mask is mask
    assert model.encode(src).context_mask is None


@pytest.mark.parametrize(("ours", "theirs", "expected"), [(None, None, None), (9, None, 9), (None, 8, 8), (9, 6, 6)])
def test_the_longest_row_of_either_side(ours: int | None, theirs: int | None, expected: int | None) -> None:
    def make_limits(size: int | None) -> dict[str, object]:
        return {} if size is None else {"embeddings": [partial(LearnedPositions, max_length=size)]}

    model = pair(make_limits(ours), make_limits(theirs))
    assert (model.encoder.max_length, model.decoder.max_length, model.max_length) == (ours, theirs, expected)


# A shared table -------------------------------------------------------------------------------------------------------


def build_shared(**options: object) -> EncoderDecoder:
    encode = partial(sized_encoder, dim=DIM)
    return EncoderDecoder(
        VOCAB, VOCAB, encoder=encode, decoder=partial(sized_decoder, **options), shared_embedding=True
    )


def test_both_sides_learn_a_shared_table() -> None:
    for options in ({}, {"head": TiedHead}):
        model, (src, mask) = build_shared(**options).double(), source(2, 7)
        torch.nn.init.normal_(model.decoder.head.weight if options else model.decoder.head.to_logits.weight)
        table = model.encoder.token_embedding.weight
        assert table is model.decoder.token_embedding.weight
        assert (table is model.decoder.head.weight) if options else True
        # Sources of only 9 and targets of only 1: each row's gradient can come from one side only, or from the head.
        model(torch.full_like(src, 9), torch.ones_like(TARGETS), mask)[..., 0].square().sum().backward()
        learned = table.grad.abs().amax(1) > 0
        assert learned.tolist() == [word in ((0, 1, 9) if options else (1, 9)) for word in range(VOCAB)]


def test_tables_are_separate_by_default() -> None:
    model = EncoderDecoder(VOCAB, VOCAB, encoder=partial(sized_encoder, dim=DIM), decoder=sized_decoder)
    assert model.encoder.token_embedding.weight is not model.decoder.token_embedding.weight


# Dropped positions ----------------------------------------------------------------------------------------------------


def read_mask(model: EncoderDecoder, mask: Tensor | None, rows: int, m: int) -> Tensor:
    """Return the mask of cross-attention in training."""
    src = torch.zeros(rows, m, dtype=torch.long)
    thinned = model.train().encode(src, mask).context_mask
    assert thinned.dtype == torch.bool and thinned.shape == (rows, m)
    return thinned


def test_positions_are_dropped_in_training_only() -> None:
    model, (src, mask) = randomise(lambda: pair(context_dropout=0.5)), source(2, 7)
    plain = randomise(pair)
    with torch.no_grad():
        close(model(src, TARGETS, mask), plain(src, TARGETS, mask))
        assert model.encode(src, mask).context_mask is mask
        model.train()
        assert not torch.equal(model(src, TARGETS, mask), model(src, TARGETS, mask))
        # The encoder reads the full source.
        close(model.encode(src, mask).context, plain.encode(src, mask).context)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_fraction_of_the_positions_is_dropped(share: float) -> None:
    rows, m = 400, 50
    lasting = read_mask(pair(encoder={"depth": 1}, context_dropout=share), None, rows, m)
    for counted, n in ((lasting.float().mean(), rows * m), (lasting[:, 0].float().mean(), rows)):
        assert counted.item() == pytest.approx(1 - share, abs=4 * (share * (1 - share) / n) ** 0.5)
    assert not (lasting == lasting[0]).all(), "each row drops its own"


def test_what_is_dropped_is_seen_by_no_token() -> None:
    model, (src, _) = randomise(lambda: pair(context_dropout=0.5)).train(), source(2, 7)
    context: list[Tensor] = []
    masks: list[Tensor] = []

    def watch(module: object, args: tuple[object, ...], out: tuple[Tensor, Tensor]) -> None:
        context.append(out[0])
        masks.append(out[1])

    model.decoder.context.register_forward_hook(watch)
    logits = model(src, TARGETS)
    (gradient,) = torch.autograd.grad(logits.square().sum(), context)
    assert 0 < masks[0].sum() < 14
    assert torch.equal(gradient.abs().amax(-1) > 0, masks[0])


def test_each_row_keeps_a_position() -> None:
    """A row keeps a position: at 0.99, 96 of 100 rows with four real positions would lose all."""
    rows, m = 500, 9
    real = torch.zeros(rows, m, dtype=torch.bool)
    real[:, 3:7] = True
    lasting = read_mask(pair(encoder={"depth": 1}, context_dropout=0.99), real, rows, m)
    assert not lasting[:, :3].any() and not lasting[:, 7:].any()
    assert (lasting.sum(dim=1) >= 1).all()
    assert lasting.sum() < 600
    # Any of the four may be kept.
    assert (lasting.sum(dim=0)[3:7] > 70).all()


def test_a_row_without_a_real_position_keeps_none() -> None:
    real = torch.tensor([[True, False, False], [False, False, False]])
    assert torch.equal(read_mask(pair(context_dropout=0.9), real, 2, 3), real)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1.0, -0.1, 2.0])
def test_refuses_an_invalid_fraction_of_positions(share: float) -> None:
    message = f"model has context_dropout {share}, which must be at least 0 and below 1"
    with pytest.raises(ValueError, match=re.escape(message)):
        pair(context_dropout=share)


@pytest.mark.parametrize(
    ("tokens", "dim", "counts"),
    [
        (SOURCES, DIM, "the encoder embeds 23 tokens in 13 numbers and the decoder 11 in 13"),
        (VOCAB, SOURCE_DIM, "the encoder embeds 11 tokens in 19 numbers and the decoder 11 in 13"),
    ],
)
def test_refuses_to_share_tables_of_different_sizes(tokens: int, dim: int, counts: str) -> None:
    message = (
        f"model.shared_embedding is on, but {counts}; give both the same vocabulary, dim and embedding_dim, or set "
        "--model.shared_embedding false"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        EncoderDecoder(
            tokens, VOCAB, encoder=partial(sized_encoder, dim=dim), decoder=sized_decoder, shared_embedding=True
        )


@pytest.mark.parametrize(
    ("mask", "given"),
    [
        (torch.ones(2, 6, dtype=torch.bool), "a torch.bool tensor of shape (2, 6)"),
        (torch.ones(1, 7, dtype=torch.bool), "a torch.bool tensor of shape (1, 7)"),
        (torch.ones(2, 7, 1, dtype=torch.bool), "a torch.bool tensor of shape (2, 7, 1)"),
        (torch.ones(2, 7), "a torch.float32 tensor of shape (2, 7)"),
        (torch.ones(2, 7, dtype=torch.long), "a torch.int64 tensor of shape (2, 7)"),
    ],
    ids=["short", "one row", "dimensions", "float", "long"],
)
def test_refuses_an_invalid_mask(mask: Tensor, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Users run the package without the shape checks that would raise first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    rule = "it must be boolean, True for source ids and False for padding, and of the sources' shape (2, 7)"
    message = f"src_mask is {given}; {rule}"
    model, (src, _) = pair(), source(2, 7)
    for refused in (lambda: model(src, TARGETS, mask), lambda: model.encode(src, mask)):
        with pytest.raises(ValueError, match=re.escape(message)):
            refused()


def test_refuses_more_tokens_than_a_side_has_positions() -> None:
    model, (src, mask) = pair({"embeddings": [partial(LearnedPositions, max_length=6)]}), source(2, 7)
    with pytest.raises(ValueError, match="LearnedPositions has max_length 6, but the sequence is 7 tokens long"):
        model(src, TARGETS, mask)


@torch.no_grad()
def test_the_source_may_have_separate_inputs() -> None:
    model = randomise(lambda: pair({"embeddings": [partial(TypeEmbedding, num_types=2)]}))
    (src, mask), types = source(2, 7), torch.tensor([[0, 1, 0, 1, 1, 0, 1]] * 2)
    one, other = (model(src, TARGETS, mask, source_inputs=Inputs(types=each)) for each in (types, 1 - types))
    assert (one - other).norm() > 0.1
    hidden = torch.arange(7).expand(2, -1) == 2
    read = model.encoder(src, mask, inputs=Inputs(types=types, hidden_tokens=hidden))
    close(read, model.encoder(src, mask & ~hidden, inputs=Inputs(types=types)))
    assert (read - model.encoder(src, mask, inputs=Inputs(types=types))).norm() > 0.1


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "padded"])
@torch.no_grad()
def test_cases_p4_no_layer_reads_a_hidden_token_of_the_source(masked: bool) -> None:
    model, (src, mask) = randomise(pair), source(2, 7)
    hidden = torch.arange(7).expand(2, -1) % 3 == 2
    inputs, given = Inputs(hidden_tokens=hidden), mask if masked else None
    found = model(src, TARGETS, given, source_inputs=inputs)
    close(found, model(src, TARGETS, mask & ~hidden if masked else ~hidden))
    close(found, model(torch.where(hidden, (src + 1) % SOURCES, src), TARGETS, given, source_inputs=inputs))
    assert (found - model(src, TARGETS, given)).norm() > 0.1


@torch.no_grad()
def test_cases_p5_refuses_another_context_in_the_middle_of_decoding() -> None:
    """Accept the same context again, for the rows that are there, with other padding too."""
    model, (src, mask) = randomise(pair), source(2, 7)
    cache, given = model.decoder.new_cache(2, 5), model.encode(src, mask)
    expected = model(src, TARGETS, mask)
    model.decoder(TARGETS[:, :1], inputs=given, cache=cache)
    for context in (given.context.flip(0), given.context + 0.1 * torch.randn_like(given.context)):
        with pytest.raises(ValueError, match=r"^the cached rows began with another context, .* with an empty cache$"):
            model.decoder(TARGETS[:, 1:2], inputs=replace(given, context=context), cache=cache)
    with pytest.raises(ValueError, match="another context"):
        model.decoder(TARGETS[:, 1:2], inputs=replace(given, context_mask=None), cache=cache)
    close(model.decoder(TARGETS[:, 1:2], inputs=given, cache=cache), expected[:, 1:2])
    cache.select(torch.tensor([1, 1, 0]))
    rows = model.encode(src[[1, 1, 0]], mask[[1, 1, 0]])
    close(model.decoder(TARGETS[[1, 1, 0], 2:3], inputs=rows, cache=cache), expected[[1, 1, 0], 2:3])
    cache.retire([(2, 0)], 1)
    cache.set_lengths([3])
    wide = replace(
        given, context=functional.pad(given.context[:1], (0, 0, 0, 2)), context_mask=torch.arange(9)[None] < 7
    )
    close(model.decoder(TARGETS[:1, 3:4], inputs=wide, cache=cache), expected[:1, 3:4])


@torch.no_grad()
def test_an_emptied_cache_reads_its_next_context() -> None:
    model, (src, mask) = randomise(pair), source(2, 7)
    cache = model.decoder.new_cache(2, 5)
    model.decoder(TARGETS, inputs=model.encode(src.flip(1)), cache=cache)
    cache.truncate(0)
    close(model.decoder(TARGETS, inputs=model.encode(src, mask), cache=cache), model(src, TARGETS, mask))
