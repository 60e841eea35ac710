"""Quantized weights: their rounding and its cost."""

import copy
from functools import partial
from unittest.mock import patch

import jaxtyping
import pytest
import torch
from catalogue import CONTEXT, DIM, VOCAB, attention, context_decoder, decoder, randomise
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.engine import generate
from lightning_xt.generation.models.int4_linear import Int4Linear
from lightning_xt.generation.models.int8_linear import MAX_KERNEL_ROWS, Int8Linear
from lightning_xt.generation.models.packed_products import pack_matrix
from lightning_xt.generation.models.quantized_weights import convert_weights, measure_loss
from lightning_xt.generation.models.row_linear import RowLinear
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.projections.latent import Latent

VARIANTS = {
    "plain": decoder,
    "latent": lambda: decoder(attention=attention(projection=partial(Latent, query_latent_dim=7))),
    "tied": lambda: decoder(head=TiedHead),
    "even": lambda: decoder(dim=32, attention=attention(dim_head=8, kv_heads=2)),
}
EACH = pytest.mark.parametrize("build", VARIANTS.values(), ids=VARIANTS)


def naive_rounding(weight: Tensor) -> tuple[list[list[int]], list[float]]:
    """Round row by row: a step is a bfloat16, and the largest number is about 127 steps and at most 127."""
    scales = [float(torch.tensor(max(abs(x) for x in row) / 127).bfloat16()) for row in weight.tolist()]
    rounded = [
        [max(-127, min(127, round(x / scale))) for x in row] for row, scale in zip(weight.tolist(), scales, strict=True)
    ]
    return rounded, scales


def text(n: int = 13) -> Tensor:
    return torch.randint(0, VOCAB, (1, n))


# A linear map ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wide", "high"), [(13, 7), (32, 5), (1, 3), (64, 1)])
def test_rounds_as_one_would_by_hand(wide: int, high: int) -> None:
    linear = nn.Linear(wide, high, bias=False)
    ours = Int8Linear(linear)
    rounded, scales = naive_rounding(linear.weight.detach().double())
    assert (ours.rounded - torch.tensor(rounded)).abs().max() == 0
    assert torch.equal(ours.scale, torch.tensor(scales).bfloat16())
    assert set(ours.rounded.abs().amax(dim=1).tolist()) <= {126, 127}
    torch.testing.assert_close(ours.weight, torch.tensor(rounded).bfloat16() * ours.scale[:, None], rtol=0, atol=0)
    error = (ours.weight.double() - linear.weight).abs().amax(dim=1)
    # Half a step, the largest a little more, and 8 bits of each product.
    assert bool((error <= torch.tensor(scales) * (0.5 + 127 * 2**-8)).all())


def test_a_row_of_zeros_stays_zero() -> None:
    linear = nn.Linear(32, 3)
    with torch.no_grad():
        linear.weight[1] = 0
    out = Int8Linear(linear)(torch.randn(2, 32).bfloat16())
    assert torch.equal(out[:, 1], linear.bias[1].bfloat16().expand(2))


def test_large_products_fit_into_float16() -> None:
    """Products of the whole numbers before their scale do not: 127 times 1,000."""
    linear = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        linear.weight.fill_(0.01)
    ours, x = Int8Linear(linear), torch.full((2, 3), 1000.0)
    ours.packed = None
    for made in (ours(x.half()), torch.autocast("cpu", torch.float16)(ours)(x)):
        torch.testing.assert_close(made.float(), torch.full((2, 2), 30.0), rtol=1e-2, atol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, MAX_KERNEL_ROWS, MAX_KERNEL_ROWS + 1, 50])
@pytest.mark.parametrize(("wide", "high"), [(13, 7), (32, 5), (64, 33), (1, 3), (96, 1)])
def test_multiplies_by_the_rounded_matrix(wide: int, high: int, rows: int, bias: bool) -> None:
    """The kernel multiplies few rows, a product many; sizes that the kernel cannot read use the product."""
    linear = nn.Linear(wide, high, bias=bias)
    ours, x = Int8Linear(linear), torch.randn(rows, wide).bfloat16()
    exact = x.double() @ (ours.rounded.double() * ours.scale.double()[:, None]).T
    expected = exact if not bias else exact + ours.bias.double()
    out = ours(x)
    assert out.dtype == torch.bfloat16 and out.shape == (rows, high)
    torch.testing.assert_close(out.double(), expected, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("shape", [(2, 3, 32), (1, 1, 32), (3, 5, 32), (32,)], ids=str)
def test_keeps_the_axes_before(shape: tuple[int, ...]) -> None:
    ours, x = Int8Linear(nn.Linear(32, 5)), torch.randn(shape).bfloat16()
    assert ours(x).shape == (*shape[:-1], 5)
    torch.testing.assert_close(ours(x).view(-1, 5)[-1], ours(x.view(-1, 32)[-1:])[0], rtol=2**-6, atol=2**-6)


def test_takes_a_view_whose_rows_are_not_one_after_the_other() -> None:
    ours, wide = Int8Linear(nn.Linear(32, 5)), torch.randn(3, 7, 64).bfloat16()
    for view in (wide[:, -1, ::2], wide[:, 2:3, 32:], wide[0, :, :32], wide[:1, :, 1::2], wide[0].T[:32].T):
        torch.testing.assert_close(ours(view), ours(view.contiguous()), rtol=0, atol=0)


PACKS_BFLOAT16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="a CPU without AVX512")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=PACKS_BFLOAT16)], ids=str)
@pytest.mark.parametrize("shape", [(13,), (1, 13), (2, 13), (3, 1, 13), (17, 13), (2, 0, 13), (130, 13)], ids=str)
@torch.no_grad()
def test_a_packed_matrix_gives_the_same_product(shape: tuple[int, ...], dtype: torch.dtype, bias: bool) -> None:
    linear, x = nn.Linear(13, 7, bias=bias).to(dtype), torch.randn(shape).to(dtype)
    ours, exact = RowLinear(linear), copy.deepcopy(linear).double()(x.double())
    with patch("torch.nn.functional.linear", side_effect=AssertionError("not packed")):
        out = ours(x)
    assert out.dtype == dtype and out.shape == (*shape[:-1], 7)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(out.double(), exact, rtol=tolerance, atol=tolerance)


def test_what_cannot_be_packed_is_multiplied_as_it_is() -> None:
    wide = nn.Linear(5, 3).double()
    assert pack_matrix(wide.weight) is None and pack_matrix(wide.weight.to("meta", torch.float32)) is None
    x = torch.randn(2, 5).double()
    assert torch.equal(RowLinear(wide)(x), wide(x))
    linear, x = nn.Linear(5, 3), torch.randn(2, 5, requires_grad=True)
    ours = RowLinear(linear)
    assert torch.equal(*(torch.autograd.grad(each(x).sum(), x)[0] for each in (ours, linear)))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x.detach()).dtype == torch.bfloat16


# A network ------------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_the_original_is_left_as_it_was(build: partial, weights: str) -> None:
    model = randomise(build, torch.float32).train()
    state, strides = copy.deepcopy(model.state_dict()), [p.stride() for p in model.parameters()]
    copied = convert_weights(model, weights)
    assert model.training and not copied.training
    assert all(p.requires_grad for p in model.parameters()) and not any(p.requires_grad for p in copied.parameters())
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [p.stride() for p in model.parameters()] == strides
    theirs = {tensor.data_ptr() for tensor in copied.state_dict().values()}
    assert theirs.isdisjoint(tensor.data_ptr() for tensor in model.state_dict().values())


@EACH
@torch.no_grad()
def test_float32_gives_the_same_logits(build: partial) -> None:
    model = randomise(build, torch.float32)
    copied, tokens = convert_weights(model, "float32"), text()
    torch.testing.assert_close(copied(tokens), model(tokens), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.Linear) for module in copied.modules())
    linears = [module for module in copied.modules() if isinstance(module, RowLinear)]
    assert linears and all(module.packed.is_mkldnn for module in linears)
    assert copied.state_dict().keys() == model.state_dict().keys()


@EACH
@pytest.mark.parametrize(
    ("weights", "most", "loss"), [("bfloat16", 0.06, 0.1), ("int8", 0.06, 0.1), ("int4", 0.35, 0.4)]
)
@torch.no_grad()
def test_low_precision_stays_close(build: partial, weights: str, most: float, loss: float) -> None:
    model, tokens = randomise(build, torch.float32), text()
    copied = convert_weights(model, weights)
    logits = copied(tokens)
    assert logits.dtype == torch.bfloat16
    error = (logits.float() - model(tokens)).norm() / model(tokens).norm()
    assert 0 < error < most, f"relative error {error:.3f}"
    assert abs(measure_loss(copied, tokens) - measure_loss(model, tokens)) < loss


@EACH
@pytest.mark.parametrize(("weights", "kind"), [("int8", Int8Linear), ("int4", Int4Linear)])
@pytest.mark.parametrize("group_size", [None, 3, "row"])
@torch.no_grad()
def test_rounded_layers_stand_for_every_linear_map(
    build: partial, weights: str, kind: type, group_size: int | str | None
) -> None:
    model = randomise(build, torch.float32)
    copied = convert_weights(model, weights, group_size)
    assert not any(isinstance(module, nn.Linear) for module in copied.modules())
    found = {name: module for name, module in copied.named_modules() if isinstance(module, kind)}
    wanted = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert found.keys() == wanted.keys() and found
    for name, module in found.items():
        rounded = kind(wanted[name], group_size)
        state = module.state_dict()
        for part, tensor in rounded.state_dict().items():
            assert torch.equal(state[part], tensor), (name, part)


def test_a_tied_head_and_its_embedding_stay_one_table() -> None:
    for weights in ("float32", "bfloat16", "int8", "int4"):
        copied = convert_weights(randomise(VARIANTS["tied"], torch.float32), weights)
        assert copied.head.weight is copied.token_embedding.weight


@EACH
@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_decodes(build: partial, weights: str) -> None:
    """Prompts of different lengths decode; single tokens use another kernel than prompts."""
    copied = convert_weights(randomise(build, torch.float32), weights)
    prompt, lengths = torch.randint(0, VOCAB, (3, 5)), torch.tensor([5, 1, 3])
    out = generate(copied, prompt, 7, lengths=lengths, temperature=0.0)
    assert out.shape == (3, 7)
    # Rounding differs with the shape of a product: each token is the most likely except for near-ties.
    for row, length in enumerate(lengths.tolist()):
        whole = torch.cat((prompt[row, :length], out[row]))[None]
        with torch.no_grad():
            logits = copied(whole[:, :-1])[0, length - 1 :].float()
        gap = logits.amax(dim=-1) - logits.gather(1, out[row][:, None])[:, 0]
        assert gap.max() <= 0.05 * logits.abs().max()


def test_an_unknown_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="weights is 'int3'; it must be one of float32, bfloat16, int8, int4"):
        convert_weights(decoder(), "int3")
    with pytest.raises(ValueError, match="group_size is 64, but weights is bfloat16, which has no groups; omit it, or"):
        convert_weights(decoder(), "bfloat16", 64)
    for wrong in (0, True, "column"):
        with pytest.raises(ValueError, match=f"group_size is {wrong!r}; it must be at least 1 number of a row, or row"):
            convert_weights(decoder(), "int4", wrong)


# Loss -----------------------------------------------------------------------------------------------------------------


def test_the_mean_loss_is_the_cross_entropy() -> None:
    model, tokens = randomise(decoder), text(7)
    with torch.no_grad():
        log_probs = model(tokens[:, :-1]).log_softmax(dim=-1)
    by_hand = -sum(float(log_probs[0, t, tokens[0, t + 1]]) for t in range(6)) / 6
    assert measure_loss(model, tokens) == pytest.approx(by_hand, rel=1e-5)
    reader = randomise(lambda: context_decoder(position=None))
    inputs = Inputs(context=torch.randn(1, 3, CONTEXT, dtype=torch.float64))
    with torch.no_grad():
        logits = reader(tokens[:, :-1], inputs=inputs)[0]
    expected = float(functional.cross_entropy(logits, tokens[0, 1:]))
    assert measure_loss(reader, tokens, inputs) == pytest.approx(expected, rel=1e-5)


def train() -> tuple[Decoder, Tensor]:
    """Train a model on a repetitive text, in a few steps."""
    torch.manual_seed(0)
    model = decoder(dim=32, attention=attention(dim_head=8))
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6] * 4])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
    return model.eval(), tokens


def test_what_rounding_costs_a_trained_model_is_little() -> None:
    model, tokens = train()
    exact = measure_loss(model, tokens)
    assert exact < 0.5, "it has learned something"
    assert measure_loss(convert_weights(model, "float32"), tokens) == pytest.approx(exact, abs=1e-5)
    costs = {}
    for weights, group_size in (("bfloat16", None), ("int8", None), ("int8", 16), ("int4", None), ("int4", 16)):
        cost = measure_loss(convert_weights(model, weights, group_size), tokens) - exact
        costs[weights, group_size] = abs(cost)
    assert max(costs.values()) < 0.03, costs
    assert DIM % 32 != 0, "the models above have a width that the kernel cannot read"
