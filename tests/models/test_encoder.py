"""The encoder: by hand, both directions, inputs besides the tokens, dropout, and its refusals."""

import re
from functools import partial

import pytest
import torch
from catalogue import CONDITION, DEPTH, attention, attention_layers, randomise
from encoder_catalogue import SOURCE_DIM, SOURCES, encoder, make_inputs, source
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.encoder import Encoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.embeddings.type_embedding import TypeEmbedding
from lightning_xt.nn.normalizers.sigmoid import Sigmoid
from lightning_xt.nn.norms.adaptive_rms_norm import AdaptiveRMSNorm
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.shifts.token_shift import TokenShift

ADAPTIVE = partial(AdaptiveRMSNorm, condition_dim=CONDITION)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@torch.no_grad()
def test_one_layer_by_hand() -> None:
    model = randomise(lambda: encoder(depth=1, attention=attention(heads=1, dim_head=6, position=None)))
    tokens, mask = source(2, 7)
    weights = model.state_dict()

    def normalize(x: Tensor, gain: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights[gain]

    for row in range(2):
        x = weights["token_embedding.weight"][tokens[row][mask[row]]]
        read = normalize(x, "stack.sublayers.0_attention.placement.norm_before.gain")
        q, k, v = (read @ w.T for w in weights["stack.sublayers.0_attention.branch.projection.to_qkv.weight"].split(6))
        scores = (q @ k.T / 6**0.5).exp()
        x = x + scores / scores.sum(1, keepdim=True) @ v @ weights["stack.sublayers.0_attention.branch.to_out.weight"].T
        read = normalize(x, "stack.sublayers.0_feedforward.placement.norm_before.gain")
        x = x + model.stack.sublayers["0_feedforward"].branch.feedforward(read[None])[0]
        close(model(tokens, mask)[row][mask[row]], normalize(x, "stack.output_norm.gain"))


@pytest.mark.parametrize("backend", ["fused", "explicit"])
@pytest.mark.parametrize("window", [1, 2, 3])
@torch.no_grad()
def test_a_window_looks_both_ways(window: int, backend: str) -> None:
    model = randomise(lambda: encoder(depth=1, attention=attention(window=window, backend=backend)))
    tokens, _ = source(1, 9)
    before = model(tokens)
    for changed in range(9):
        other = tokens.clone()
        other[:, changed] = (other[:, changed] + 1) % SOURCES
        moved = (model(other) - before).abs().amax(-1)[0] > 1e-9
        assert moved.tolist() == [abs(t - changed) < window for t in range(9)], changed


@pytest.mark.parametrize(
    "options", [{}, {"position": ALiBi}, {"normalizer": Sigmoid}, {"backend": "explicit"}], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_windows_of_padding_alone_are_finite(options: dict[str, object], dtype: torch.dtype) -> None:
    """Tokens far in the padding see no token; their results are finite, because NaN would spread backward."""
    model = randomise(lambda: encoder(attention=attention(window=2, **options)), dtype)
    tokens, mask = source(2, 11)
    hidden = model(tokens, mask)
    assert hidden.isfinite().all()
    hidden[mask].square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("options", [{}, {"attention": attention(window=3)}, {"shift": TokenShift}], ids=str)
@torch.no_grad()
def test_a_mask_of_true_equals_no_mask(options: dict[str, object]) -> None:
    model, (tokens, mask) = randomise(lambda: encoder(**options)), source(2, 7)
    close(model(tokens, torch.ones_like(mask)), model(tokens))
    assert (model(tokens, mask) - model(tokens))[1].abs().max() > 1e-3


@torch.no_grad()
def test_the_condition_reaches_every_norm() -> None:
    model, (tokens, mask), inputs = randomise(lambda: encoder(norm=ADAPTIVE)), source(2, 7), make_inputs(2, 7)
    other = make_inputs(2, 7).condition + torch.tensor([[0.0], [1.0]])
    before, after = model(tokens, mask, inputs=inputs), model(tokens, mask, inputs=Inputs(condition=other))
    close(after[0], before[0])
    assert (after[1] - before[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=re.escape("AdaptiveRMSNorm needs Inputs(condition=...)")):
        model(tokens, mask)


@torch.no_grad()
def test_types_are_read() -> None:
    model, (tokens, mask), inputs = (
        randomise(lambda: encoder(embeddings=[TypeEmbedding])),
        source(2, 7),
        make_inputs(2, 7),
    )
    other = Inputs(types=1 - inputs.types)
    assert (model(tokens, mask, inputs=other) - model(tokens, mask, inputs=inputs))[mask].abs().max() > 1e-3
    with pytest.raises(ValueError, match=re.escape("TypeEmbedding needs Inputs(types=...)")):
        model(tokens, mask)


@pytest.mark.parametrize(
    "options", [{"dropout": 0.5}, {"attention": attention(dropout=0.5)}], ids=["model", "attention"]
)
@torch.no_grad()
def test_dropout_in_training_only(options: dict[str, object]) -> None:
    model, (tokens, mask) = randomise(lambda: encoder(**options)), source(2, 7)
    plain = randomise(encoder)
    plain.load_state_dict(model.state_dict())
    close(model(tokens, mask), plain(tokens, mask))
    model.train()
    assert not torch.equal(model(tokens, mask), model(tokens, mask))


def test_the_longest_source() -> None:
    assert encoder().max_length is None
    sizes = [partial(LearnedPositions, max_length=size) for size in (9, 8)]
    model = encoder(embeddings=sizes)
    assert (model.max_length, model.vocab_size) == (8, SOURCES)
    assert model(torch.zeros(1, 8, dtype=torch.long)).shape == (1, 8, SOURCE_DIM)
    message = "embeddings: LearnedPositions has max_length 8, but the sequence is 9 tokens long"
    with pytest.raises(ValueError, match=re.escape(message)):
        model(torch.zeros(1, 9, dtype=torch.long))


def test_the_parts_are_built_bidirectional() -> None:
    for layer, part in enumerate(attention_layers(encoder())):
        shape = part.shape
        assert (shape.dim, shape.layer, shape.depth, shape.causal) == (SOURCE_DIM, layer, DEPTH, False)
        assert shape.context_dim is None


def test_weights_start_as_a_decoders() -> None:
    torch.manual_seed(1)
    model = Encoder(500, dim=64, depth=8)
    assert model.token_embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    out = torch.stack([layer.to_out.weight for layer in attention_layers(model)])
    # 16 sublayers write to the stream.
    assert out.std().item() == pytest.approx((64 * 16) ** -0.5, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 0}, "encoder has vocab_size 0, which must be at least 1"),
        ({"dim": 0}, "encoder has dim 0, which must be at least 1"),
        ({"depth": -1}, "encoder has depth -1, which must be at least 1"),
        ({"dropout": 1.0}, "encoder has dropout 1.0, which must be at least 0 and below 1"),
        ({"dropout": -0.5}, "encoder has dropout -0.5, which must be at least 0 and below 1"),
        (
            {"attention": Attention},
            "attention: dim (19) must be a multiple of heads (8), or dim_head must be given",
        ),
        (
            {"attention": attention(position=Forgetting)},
            "position: Forgetting sums over the past, so it serves causal self-attention only; choose another",
        ),
        (
            {"attention": attention(position=Contextual)},
            "position: Contextual counts back from each query, so it serves causal self-attention only; choose another",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Encoder(**{"vocab_size": SOURCES, "dim": SOURCE_DIM, "attention": attention(), **options})


def test_refuses_a_soft_prefix() -> None:
    model = encoder()
    with pytest.raises(ValueError, match=r"Inputs\(prefix=\.\.\.\) belongs to a decoder's tokens, not to a source"):
        model(torch.zeros(2, 3, dtype=torch.long), inputs=Inputs(prefix=torch.zeros(2, 1, 5)))


@pytest.mark.parametrize("mask", [torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 5, dtype=torch.long)])
def test_cases_p8_refuses_another_mask(mask: Tensor, no_shape_checks: None) -> None:
    message = (
        rf"^mask is a {mask.dtype} tensor of shape \(2, {mask.shape[1]}\); it must be boolean, of the tokens' shape"
    )
    with pytest.raises(ValueError, match=message):
        encoder()(torch.zeros(2, 5, dtype=torch.long), mask)
