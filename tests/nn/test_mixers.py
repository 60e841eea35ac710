"""Recurrences: chunks against a loop over tokens, numbers by hand, states in a cache, and refusals; hybrids."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from catalogue import DIM, VOCAB, attention, decoder, delta_net, randomise
from torch import Tensor
from torch.nn import functional as F

from lightning_xt.core.cache import Cache
from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs, KeysValues
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.generation.models.prefix_reuse import PrefixReuse
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.nn.attention.base import Mixer
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.mixers.base import Carry
from lightning_xt.nn.mixers.chunked_rule import run_rule
from lightning_xt.nn.mixers.delta_net import DeltaNet
from lightning_xt.nn.mixers.gated_delta_net import GatedDeltaNet
from lightning_xt.nn.mixers.hybrid import Hybrid
from lightning_xt.nn.mixers.mamba2 import Mamba2
from lightning_xt.nn.mixers.short_convolution import ShortConvolution
from lightning_xt.nn.mixers.step_decay import StepDecay
from lightning_xt.nn.value_mods.value_residual import ValueResidual
from lightning_xt.training.optim.parameter_groups import parameter_groups

SMALL = {"heads": 4, "dim_head": 6, "chunk": 3}
RECIPES: dict[str, Any] = {
    "GatedDeltaNet": partial(GatedDeltaNet, **SMALL, value_dim=7),
    "DeltaNet": partial(DeltaNet, **SMALL, max_beta=2.0),
    "Mamba2": partial(Mamba2, **SMALL, state_dim=5, groups=2),
}
EACH = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def sample_tokens(rows: int, n: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, n), generator=torch.Generator().manual_seed(3))


def where(n: int, **inputs: Tensor) -> Where:
    return Where.from_sequence(n, causal=True, inputs=Inputs(**inputs), lengths=None, device=torch.device("cpu"))


# Rules ----------------------------------------------------------------------------------------------------------------


def run_tokens(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor | None, state: Tensor, documents: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run a rule token by token, as in the papers."""
    read = []
    for t in range(v.shape[-2]):
        if documents is not None and t > 0:
            state = state * (documents[:, t] == documents[:, t - 1]).view(-1, 1, 1, 1, 1)
        state = log_decay[..., t, None, None].exp() * state
        key, value = k[..., t, :, None], v[..., t, None, :]
        if beta is not None:
            value = beta[..., t, None, None] * (value - (key * state).sum(dim=-2, keepdim=True))
        state = state + key * value
        read.append((q[..., t, :, None] * state).sum(dim=-2))
    return torch.stack(read, dim=-2), state


@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("delta", [False, True], ids=["linear", "delta"])
@pytest.mark.parametrize(("n", "chunk"), [(1, 4), (7, 3), (13, 4), (8, 4), (13, 64), (5, 1)])
def test_chunks_equal_a_loop_over_tokens(n: int, chunk: int, delta: bool, packed: bool) -> None:
    torch.manual_seed(n)
    # Two rows, two groups of three heads that share queries and keys.
    q, k = (torch.randn(2, 2, 1, n, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    v = torch.randn(2, 2, 3, n, 4, dtype=torch.float64, requires_grad=True)
    log_decay, beta = -3 * torch.rand(2, 2, 3, n).double(), 2 * torch.rand(2, 2, 3, n).double() if delta else None
    state = torch.zeros(2, 2, 3, 5, 4).double() if packed else torch.randn(2, 2, 3, 5, 4).double()
    documents = torch.randint(0, 2, (2, n)).cumsum(dim=1) if packed else None
    actual = run_rule(q, k, v, log_decay, beta, state, documents, chunk)
    expected = run_tokens(q, k, v, log_decay, beta, state, documents)
    for one, other in zip(actual, expected, strict=True):
        close(one, other)
    found, known = (torch.autograd.grad(o[0].sin().sum() + o[1].sin().sum(), (q, k, v)) for o in (actual, expected))
    for one, other in zip(found, known, strict=True):
        close(one, other)


def test_equal_keys_stay_exact() -> None:
    """With one key for all tokens and beta 1, each token replaces the value: an inverse by powers would overflow."""
    k = F.normalize(torch.ones(1, 1, 1, 64, 4), dim=-1)
    v = torch.randn(1, 1, 1, 64, 3)
    out, _ = run_rule(k, k, v, torch.zeros(1, 1, 1, 64), torch.ones(1, 1, 1, 64), None, None, 64)
    torch.testing.assert_close(out, v, rtol=1e-4, atol=1e-4)


def test_strong_decays_have_finite_gradients() -> None:
    log_decay = torch.full((1, 1, 1, 7), -200.0, requires_grad=True)
    q, k, v = torch.randn(3, 1, 1, 1, 7, 4)
    out, _ = run_rule(q, k, v, log_decay, torch.ones(1, 1, 1, 7), None, None, 4)
    out.sum().backward()
    assert out.isfinite().all() and log_decay.grad.isfinite().all()


def test_numbers_by_hand() -> None:
    """Keys (1, 0) and (1, 0): the second token replaces half of what has decayed to half, 2 / 2 = 1, by half of 5."""
    k = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(1, 1, 1, 2, 2)
    v, beta = torch.tensor([2.0, 5.0]).view(1, 1, 1, 2, 1), torch.tensor([1.0, 0.5]).view(1, 1, 1, 2)
    log_decay = torch.tensor([0.0, math.log(0.5)]).view(1, 1, 1, 2)
    for rule, second in ((beta, 1 + 0.5 * (5 - 1)), (None, 1 + 5)):
        out, state = run_rule(k, k, v, log_decay, rule, None, None, 64)
        assert out.flatten().tolist() == pytest.approx([2.0, second])
        assert state.flatten().tolist() == pytest.approx([second, 0.0])


def test_a_decay_by_hand() -> None:
    decay = StepDecay(2)
    rates, first = decay.log_rate.exp(), F.softplus(decay.bias)
    assert ((rates >= 1) & (rates <= 16)).all() and ((first > 9e-4) & (first < 0.11)).all()
    with torch.no_grad():
        decay.log_rate.copy_(torch.tensor([0.0, math.log(3.0)]))
        decay.bias.zero_()
    steps, log_decay = decay(torch.zeros(1, 1, 2, dtype=torch.bfloat16))
    assert steps.dtype == log_decay.dtype == torch.float32
    assert log_decay.exp().flatten().tolist() == pytest.approx([0.5, 0.125])


def test_a_convolution_sums_over_the_last_tokens_of_a_document() -> None:
    convolution = ShortConvolution(1, 3)
    with torch.no_grad():
        convolution.kernel.copy_(torch.tensor([[100.0], [10.0], [1.0]]))
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)
    assert convolution(x, Carry(None, None, None)).flatten().tolist() == [1, 12, 123, 234]
    documents = torch.tensor([[0, 1, 1, 1]])
    assert convolution(x, Carry(None, documents, None)).flatten().tolist() == [1, 2, 23, 234]
    hidden = torch.tensor([[True, False, True, True]])
    assert convolution(x, Carry(hidden, None, None)).flatten().tolist() == [1, 10, 103, 34]


# Layers ---------------------------------------------------------------------------------------------------------------


def test_a_gated_delta_net_is_its_formula() -> None:
    """One head of one token: o = beta (q . k) v, normed and gated."""
    layer = GatedDeltaNet(LayerShape(dim=3), heads=1, dim_head=2, conv_width=1).double()
    x = torch.randn(1, 1, 3).double()
    q, k, v, gate = layer.to_inputs(x).split(layer.sizes, dim=-1)
    beta, _ = layer.to_rates(x).unbind(dim=-1)
    q, k, v = (F.silu(t * w) for t, w in zip((q, k, v), layer.convolution.kernel.split(2, dim=-1), strict=True))
    o = beta.sigmoid() * (F.normalize(q, dim=-1) * F.normalize(k, dim=-1)).sum() * v
    expected = layer.to_out(o / (o.square().mean() + 1e-6).sqrt() * F.silu(gate))
    torch.testing.assert_close(layer(x, where(1), Inputs(), Trace(), None)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_mamba_is_its_formula() -> None:
    """One token: y = (step (B . C) + D) x, gated, then normed."""
    layer = Mamba2(LayerShape(dim=3), heads=2, dim_head=2, state_dim=3, conv_width=1).double()
    with torch.no_grad():
        layer.skip.copy_(torch.tensor([0.5, 2.0]))
    u = torch.randn(1, 1, 3).double()
    inner, gate = layer.to_inputs(u).split((10, 4), dim=-1)
    x, b, c = F.silu(inner * layer.convolution.kernel).split((4, 3, 3), dim=-1)
    step = F.softplus(layer.to_steps(u) + layer.decay.bias)
    y = x * (step * (b * c).sum() + layer.skip).repeat_interleave(2, dim=-1) * F.silu(gate)
    expected = layer.to_out(y / (y.square().mean() + 1e-6).sqrt())
    close(layer(u, where(1), Inputs(), Trace(), None)[0], expected)


@EACH
@torch.no_grad()
def test_the_size_of_chunks_changes_nothing(recipe: Any) -> None:
    layers = [recipe(LayerShape(dim=DIM), chunk=chunk).double() for chunk in (1, 5, 64)]
    x = torch.randn(2, 11, DIM).double()
    for layer in layers[1:]:
        layer.load_state_dict(layers[0].state_dict())
    first, *others = (layer(x, where(11), Inputs(), Trace(), None)[0] for layer in layers)
    for other in others:
        close(other, first)


@EACH
def test_states_are_in_float32_or_better(recipe: Any) -> None:
    for dtype, autocast, expected in (
        (torch.bfloat16, False, torch.float32),
        (torch.float32, True, torch.float32),
        (torch.float64, False, torch.float64),
    ):
        model = decoder(attention=recipe).to(dtype).eval()
        cache = model.new_cache(2, 9)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(sample_tokens(2, 5), cache=cache)
            model(sample_tokens(2, 1), cache=cache)
        assert {call.running["state"].dtype for call in mixing(cache)} == {expected}


def mixing(cache: Cache) -> list[CallCache]:
    """Return the calls with a state."""
    return [cache[call] for call in range(len(cache)) if "state" in cache[call].running]


@EACH
@torch.no_grad()
def test_products_of_a_state_are_not_rounded_by_autocast(recipe: Any) -> None:
    layer, x = recipe(LayerShape(dim=DIM)), torch.randn(2, 7, DIM)
    for name in ("to_inputs", "to_out", *layer.gate_maps):
        setattr(layer, name, Unrounded(getattr(layer, name)))
    results = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            results.append(layer(x, where(7), Inputs(), Trace(), None)[0])
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)


class Unrounded(torch.nn.Module):
    """Linear map without autocast."""

    def __init__(self, linear: torch.nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.linear(x)


# Decoding -------------------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_pieces_of_any_lengths_decode_as_each_row_alone(recipe: Any, seed: int) -> None:
    """Each row takes from none to four tokens of a piece; the rest of the piece is padding."""
    model, generator = randomise(lambda: decoder(attention=recipe)), torch.Generator().manual_seed(seed)
    tokens, taken = sample_tokens(3, 40), [0, 0, 0]
    cache, found = model.new_cache(3, 40), [[], [], []]
    for _ in range(6):
        lengths = torch.randint(0, 5, (3,), generator=generator)
        piece = torch.full((3, 4), 7)
        for row, length in enumerate(lengths.tolist()):
            piece[row, :length] = tokens[row, taken[row] : taken[row] + length]
        logits = model(piece, lengths=lengths, cache=cache)
        for row, length in enumerate(lengths.tolist()):
            taken[row] += length
            found[row].append(logits[row, :length])
    for row in range(3):
        close(torch.cat(found[row]), model(tokens[[row], : taken[row]])[0])


@EACH
@torch.no_grad()
def test_states_follow_the_rows_of_a_cache(recipe: Any) -> None:
    """Rows are cleared, repeated, reordered, retired and overwritten; each continues as if alone."""
    model, tokens = randomise(lambda: decoder(attention=recipe)), sample_tokens(5, 12)
    alone = model(tokens)

    def step(*rows: int, at: int) -> None:
        close(model(tokens[list(rows), at : at + 1], cache=cache)[:, 0], alone[list(rows), at])

    cache = model.new_cache(3, 12)
    model(tokens[:3, :4], cache=cache)
    cache.repeat(2)
    step(0, 0, 1, 1, 2, 2, at=4)
    cache.reorder(torch.tensor([1, 0, 2, 3, 5, 4]))
    cache.select(torch.tensor([4, 0, 2]))
    step(2, 0, 1, at=5)
    cache.retire([(2, 0)], 2)
    cache.set_lengths([6, 6])
    step(1, 0, at=6)
    other = model.new_cache(1, 7)
    model(tokens[3:4, :7], cache=other)
    cache.overwrite(torch.tensor([0]), other)
    cache.set_lengths([7, 7])
    step(3, 0, at=7)
    # A finished row that runs on as padding, and then begins again.
    cache.clear(torch.tensor([1]))
    cache.set_lengths([8, 0])
    both = model(torch.stack((tokens[3, 8], tokens[4, 0]))[:, None], cache=cache)[:, 0]
    close(both, torch.stack((alone[3, 8], alone[4, 0])))


@EACH
@torch.no_grad()
def test_a_hidden_token_leaves_the_state_alone(recipe: Any) -> None:
    model, tokens = randomise(lambda: decoder(attention=recipe)), sample_tokens(2, 9)
    hidden = torch.zeros(2, 9, dtype=torch.bool)
    hidden[0, 2], hidden[1, 5:7] = True, True
    before = model(tokens, inputs=Inputs(hidden_tokens=hidden))
    after = model(torch.where(hidden, (tokens + 1) % VOCAB, tokens), inputs=Inputs(hidden_tokens=hidden))
    close(after[~hidden], before[~hidden])
    assert (before - model(tokens))[~hidden].abs().max() > 1e-6


@EACH
@torch.no_grad()
def test_a_static_cache_keeps_its_states_in_place(recipe: Any) -> None:
    model, tokens = randomise(lambda: decoder(attention=recipe)), sample_tokens(2, 6)
    cache = model.new_cache(2, 6, static=True)
    model(tokens[:, :4], cache=cache)
    states = [state for call in mixing(cache) for state in call.running.values()]
    places = [state.data_ptr() for state in states]
    cache.mark_for_compiler()
    assert len(states) == 4 and all(hasattr(state, "_dynamo_static_input_type") for state in states)
    for at in (4, 5):
        model(tokens[:, at : at + 1], cache=cache)
    assert [state.data_ptr() for call in mixing(cache) for state in call.running.values()] == places


# Hybrids --------------------------------------------------------------------------------------------------------------


class Scaled(Mixer):
    """Mixer that multiplies its input, and writes to its cache."""

    def __init__(self, shape: LayerShape, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(
        self, x: Tensor, where: Where, inputs: Inputs, trace: Trace, cache: CallCache | None
    ) -> tuple[Tensor, Trace]:
        if cache is not None:
            cache.append("x", self.factor * x)
        return self.factor * x, trace


def test_a_hybrid_averages_normed_outputs() -> None:
    hybrid = Hybrid(LayerShape(dim=2), recipes=[partial(Scaled, factor=1.0), partial(Scaled, factor=-5.0)])
    with torch.no_grad():
        hybrid.weights.copy_(torch.tensor([[3.0, 1.0], [1.0, 2.0]]))
        hybrid.to_out.weight.copy_(torch.eye(2))
    # The root mean square of (7, 1) is 5, and the second mixer's sign is the other.
    cache = Cache(1, 4, calls=1)
    cache.begin(1)
    out, _ = hybrid(torch.tensor([[[7.0, 1.0]]]), where(1), Inputs(), Trace(), cache[0])
    assert out.flatten().tolist() == pytest.approx([0.5 * (3 - 1) * 1.4, 0.5 * (1 - 2) * 0.2])
    assert [cache[0].branch(name).append("x", torch.zeros(1, 1, 2)).shape[-2] for name in "01"] == [1, 1]


def test_branches_of_a_cache_change_with_its_rows() -> None:
    cache, other = Cache(2, 4, calls=1), Cache(1, 4, calls=1)
    cache[0].branch("a").set_running("s", torch.tensor([[1.0], [2.0]]))
    other[0].branch("b").set_running("s", torch.tensor([[9.0]]))
    cache.select(torch.tensor([1, 0, 0]))
    cache.overwrite(torch.tensor([1]), other)
    assert [cache[0].branch(name).running["s"].flatten().tolist() for name in "ab"] == [[2, 1, 1], [0, 9, 0]]
    cache.clear(torch.tensor([0]))
    cache.retire([(2, 1)], 2)
    assert [cache[0].branch(name).running["s"].flatten().tolist() for name in "ab"] == [[0, 1], [0, 0]]
    with pytest.raises(ValueError, match="cannot remove tokens: s is a running state without a past"):
        cache.truncate(1)


def test_value_residuals_of_a_hybrid() -> None:
    def build(kv_heads: int) -> Decoder:
        first = attention(value_mods=[ValueResidual], kv_heads=kv_heads)
        recipes = [delta_net(), first]
        return decoder(attention=partial(Hybrid, recipes=recipes), depth=2)

    assert build(2).stack.sublayers["1_attention"].branch.value_shape == (2, 6)
    two = partial(Hybrid, recipes=[attention(kv_heads=2), attention(value_mods=[ValueResidual])])
    with pytest.raises(ValueError, match="value_mods: ValueResidual mixes in the first layer's values, 2 heads"):
        decoder(attention=two)


@torch.no_grad()
def test_value_residuals_across_recurrences() -> None:
    """The values of the first attention are mixed into later ones, whatever layer it is in."""
    recipe = partial(Cycle, recipes=[delta_net(), attention(value_mods=[ValueResidual])])
    model, tokens = randomise(lambda: decoder(depth=4, attention=recipe)), sample_tokens(2, 7)
    mods = [module for module in model.modules() if isinstance(module, ValueResidual)]
    assert [mod.to_share is None for mod in mods] == [True, False]
    expected = model(tokens)
    mods[1].to_share.bias.fill_(50.0)
    assert (model(tokens) - expected).abs().max() > 1e-6, "the first values are not mixed in"


# Refusals -------------------------------------------------------------------------------------------------------------

ONE_SHAPE = LayerShape(dim=8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GatedDeltaNet(ONE_SHAPE, value_dim=0), "attention has value_dim 0, which must be at least 1"),
        (lambda: DeltaNet(ONE_SHAPE, conv_width=0), "attention: DeltaNet has conv_width 0, which must be at least 1"),
        (lambda: DeltaNet(ONE_SHAPE, chunk=0), "attention: DeltaNet has chunk 0, which must be at least 1"),
        (lambda: DeltaNet(ONE_SHAPE, max_beta=0.0), "attention: DeltaNet has max_beta 0.0, which must be above 0 and"),
        (lambda: DeltaNet(ONE_SHAPE, max_beta=2.1), "at most 2"),
        (lambda: DeltaNet(ONE_SHAPE, heads=3), "attention: dim (8) must be a multiple of heads (3), or dim_head must"),
        (lambda: Mamba2(ONE_SHAPE, state_dim=0), "attention: Mamba2 has state_dim 0, which must be at least 1"),
        (lambda: Mamba2(ONE_SHAPE, groups=3), "attention: Mamba2 has heads 8, which must be a multiple of groups (3)"),
        (lambda: Mamba2(LayerShape(dim=8, causal=False)), "attention: Mamba2 carries a state forward, so it serves"),
        (lambda: DeltaNet(LayerShape(dim=8, causal=False, context_dim=5)), "causal self-attention only; choose"),
        (lambda: Encoder(9, dim=8, depth=1, attention=GatedDeltaNet), "attention: GatedDeltaNet carries a state"),
        (lambda: Hybrid(ONE_SHAPE, recipes=[DeltaNet]), "attention: Hybrid has 1 recipe(s) to average; give at least"),
    ],
)
def test_refuses(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@EACH
def test_refuses_inputs_about_pairs_of_tokens(recipe: Any) -> None:
    model, tokens = decoder(attention=recipe), sample_tokens(2, 5)
    shared = KeysValues(torch.zeros(2, 4, 3, 6), torch.zeros(2, 4, 3, 6))
    model(tokens, inputs=Inputs(positions=torch.arange(5).expand(2, -1)))
    for name, value in (
        ("mask", torch.ones(2, 5, 5, dtype=torch.bool)),
        ("bias", torch.zeros(1, 1, 5, 5)),
        ("keys_values", [None, shared]),
    ):
        said = f"has no scores of pairs of tokens, which Inputs({name}=...) is about; choose another mixer, or omit"
        with pytest.raises(ValueError, match=re.escape(said)):
            model(tokens, inputs=Inputs(**{name: value}))


@EACH
def test_matrices_are_split_for_their_optimizer(recipe: Any) -> None:
    layer = recipe(LayerShape(dim=DIM))
    matrix, other = parameter_groups(layer)
    assert [name for name, _ in matrix["params"]] == ["to_inputs.weight", "to_out.weight"]
    assert matrix["parts"] == {"to_inputs.weight": layer.sizes}
    assert {"convolution.kernel", "gain", *(f"{name}.weight" for name in layer.gate_maps)} <= {
        name for name, _ in other["params"]
    }


@EACH
@torch.no_grad()
def test_a_growing_sequence_is_run_once_and_another_one_from_its_start(recipe: Any) -> None:
    """Prefix reuse continues from a state, and begins again where it would have to remove tokens."""
    model = randomise(lambda: decoder(attention=recipe))
    reusing, tokens = PrefixReuse(model), sample_tokens(1, 12)
    for ids, run in ((tokens[:, :5], 5), (tokens[:, :9], 4), (tokens[:, 1:8], 7)):
        before = reusing.tokens_run
        reusing.expect(ids[0].tolist())
        close(reusing(ids, cache=reusing.new_cache(1, 12), last_only=True), model(ids, last_only=True))
        assert reusing.tokens_run - before == run
