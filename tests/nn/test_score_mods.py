"""Score mods on small tables of scores."""

import math
from functools import partial

import pytest
import torch
from catalogue import VOCAB, attention, decoder, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.keys_values import KeysValues
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.nn.attention.cycle import Cycle
from lightning_xt.nn.contexts.given_context import GivenContext
from lightning_xt.nn.mixers.hybrid import Hybrid
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.nn.score_mods.base import Scored
from lightning_xt.nn.score_mods.dynamic_heads import DynamicHeads
from lightning_xt.nn.score_mods.multi_token import MultiToken
from lightning_xt.nn.score_mods.residual_scores import ResidualScores
from lightning_xt.nn.score_mods.selective import Selective
from lightning_xt.nn.score_mods.soft_cap import SoftCap
from lightning_xt.nn.score_mods.talking_heads import TalkingHeads

SHAPE = AttentionShape(dim=13, heads=2, kv_heads=2, dim_head=6)


def test_soft_cap() -> None:
    scores = torch.tensor([-1000.0, -3.0, 0.0, 0.1, 6.0])
    expected = [-3.0, -3 * math.tanh(1), 0.0, 3 * math.tanh(0.1 / 3), 3 * math.tanh(2)]
    assert SoftCap(SHAPE, cap=3.0)(scores).tolist() == pytest.approx(expected)


def test_soft_cap_is_fifty_by_default() -> None:
    assert SoftCap(SHAPE)(torch.tensor(1e6)).item() == 50


@pytest.mark.parametrize("cap", [0.0, -2.0])
def test_soft_cap_refuses_an_invalid_cap(cap: float) -> None:
    with pytest.raises(ValueError, match=f"score_mods: SoftCap has cap {cap}, which must be above 0"):
        SoftCap(SHAPE, cap=cap)


def test_talking_heads_starts_as_no_mixing() -> None:
    talking, scores = TalkingHeads(SHAPE), torch.randn(2, 2, 3, 5)
    assert torch.equal(talking(scores), scores)
    assert torch.equal(talking.modify_weights(scores, None), scores)


def test_talking_heads_mixes_scores_and_weights_by_a_matrix_each() -> None:
    talking = TalkingHeads(SHAPE)
    with torch.no_grad():
        talking.score_mix.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        talking.weight_mix.copy_(torch.tensor([[0.0, 1.0], [-1.0, 0.5]]))
    scores = torch.tensor([10.0, 1.0]).view(1, 2, 1, 1)
    # From head h (row) to head k (column): 10 * 1 + 1 * 3 and 10 * 2 + 1 * 4.
    assert talking(scores).flatten().tolist() == [13.0, 24.0]
    assert talking.modify_weights(scores, None).flatten().tolist() == [-1.0, 10.5]


def test_talking_heads_mixes_one_of_both_or_is_refused() -> None:
    scores = torch.tensor([10.0, 1.0]).view(1, 2, 1, 1)
    for options, names in (({"mix_weights": False}, ["score_mix"]), ({"mix_scores": False}, ["weight_mix"])):
        talking = TalkingHeads(SHAPE, **options)
        assert [name for name, _ in talking.named_parameters()] == names
        with torch.no_grad():
            next(talking.parameters()).copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        found = talking(scores, None).flatten().tolist(), talking.modify_weights(scores, None).flatten().tolist()
        assert sorted(found) == [[1.0, 10.0], [10.0, 1.0]]
    with pytest.raises(ValueError, match="score_mods: TalkingHeads has mix_scores and mix_weights false, so it mixes"):
        TalkingHeads(SHAPE, mix_scores=False, mix_weights=False)


def call(x: Tensor, q: Tensor, k: Tensor, **inputs: Tensor) -> Scored:
    """Return a call of causal self-attention over whole rows, without a cache."""
    device = torch.device("cpu")
    where = Where.from_sequence(q.shape[-2], causal=True, inputs=Inputs(**inputs), lengths=None, device=device)
    return Scored(x, q, k, where, Trace(), None, None, q.shape[-1] ** -0.5)


def test_selective_subtracts_what_earlier_tokens_have_deselected() -> None:
    q, k = torch.randn(1, 2, 5, 6, dtype=torch.float64), torch.randn(1, 2, 5, 6, dtype=torch.float64)
    mod, scores = Selective(SHAPE), torch.randn(1, 2, 5, 5, dtype=torch.float64)
    out = mod(scores, mod.prepare(call(torch.zeros(1, 5, 13), q, k)))
    for i in range(5):
        for j in range(i + 1):
            # Of the tokens after the key and before the query; the first token stays.
            deselected = [(q[0, 0, t] @ k[0, 0, j]).item() / math.sqrt(6) for t in range(j + 1, i)] if j > 0 else []
            expected = scores[0, 1, i, j].item() - sum(max(score, 0.0) for score in deselected)
            assert out[0, 1, i, j].item() == pytest.approx(expected)


def test_selective_counts_no_masked_token_and_no_other_document_and_places_by_index() -> None:
    q, k, x = torch.ones(1, 2, 5, 6), torch.ones(1, 2, 5, 6), torch.zeros(1, 5, 13)
    mod, score = Selective(SHAPE), math.sqrt(6)
    hidden = mod.prepare(call(x, q, k, hidden_tokens=torch.tensor([[False, False, True, False, False]])))
    assert hidden[0, 0, 4].tolist() == pytest.approx([0.0, score, 0.0, 0.0, 0.0])
    documents = mod.prepare(call(x, q, k, documents=torch.tensor([[0, 0, 1, 1, 1]])))
    assert documents[0, 0, 4].tolist() == pytest.approx([0.0] * 5)
    later = mod.prepare(call(x, q, k, positions=torch.arange(9, 14)[None]))
    assert torch.equal(later, mod.prepare(call(x, q, k)))
    documents = torch.tensor([[0, 1, 1, 1, 1]])
    both = mod.prepare(call(x, q, k, documents=documents, positions=torch.tensor([[0, 0, 1, 2, 3]])))
    assert torch.equal(both, mod.prepare(call(x, q, k, documents=documents)))
    assert both[0, 0, 4].tolist() == pytest.approx([0.0, 0.0, score, 0.0, 0.0])


def test_selective_refuses_a_projection_without_keys_per_head() -> None:
    with pytest.raises(ValueError, match=r"projection Latent .* cannot be combined with score_mods Selective"):
        decoder(attention=attention(projection=Latent, score_mods=[Selective]))


def test_residual_scores_hand_on_sums_without_biases() -> None:
    recipe = attention(position=ALiBi, score_mods=[ResidualScores])
    model = randomise(lambda: decoder(depth=3, attention=recipe))
    tokens = torch.randint(0, VOCAB, (2, 7))
    maps = model(tokens, trace=Trace(keeps_maps=True))[1].maps
    bias = next(layer.position for layer in model.modules() if hasattr(layer, "position"))
    at = torch.arange(7)
    slopes = bias.bias(*(torch.zeros(1).long(), torch.arange(4).view(4, 1, 1), at.view(7, 1), at), sequence(7))
    own = [made.scores - slopes for made in maps]
    # What a layer without the mod would score is the difference to the layer before.
    queries: list[Tensor] = []
    for layer in model.modules():
        if hasattr(layer, "score_mods"):
            layer.score.register_forward_hook(lambda module, args, out: queries.append(out))
    model(tokens)
    torch.testing.assert_close(own[0], queries[0])
    torch.testing.assert_close(own[1], queries[0] + queries[1])
    torch.testing.assert_close(own[2], queries[0] + queries[1] + queries[2])


def sequence(n: int) -> Where:
    return Where.from_sequence(n, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu"))


def test_residual_scores_refuse_a_single_layer_and_other_keys() -> None:
    with pytest.raises(ValueError, match="ResidualScores adds the scores of the layer before, but there is one layer"):
        decoder(depth=1, attention=attention(score_mods=[ResidualScores]))
    for options, theirs in (({"memory": 2}, "window null and memory 2"), ({"window": 3}, "window 3 and memory 0")):
        mods = {"score_mods": [ResidualScores]}
        recipes = partial(Cycle, recipes=[attention(**mods), attention(**mods, **options)])
        with pytest.raises(ValueError, match=f"score_mods: ResidualScores hands .* in one and heads 4, {theirs} in"):
            decoder(attention=recipes)
        with pytest.raises(ValueError, match=f"score_mods: ResidualScores hands .* in one and heads 4, {theirs} in"):
            decoder(attention=partial(Hybrid, recipes=recipes.keywords["recipes"]))
    given = KeysValues(torch.zeros(1, 4, 2, 6), torch.zeros(1, 4, 2, 6))
    model = decoder(attention=attention(score_mods=[ResidualScores]))
    with pytest.raises(ValueError, match="4 heads over 7 keys, but this layer has 4 heads over 9; give both the same"):
        model(torch.zeros(1, 7, dtype=torch.long), inputs=Inputs(keys_values=[None, given]))
    recipe = attention(score_mods=[ResidualScores])
    with pytest.raises(ValueError, match="score_mods: ResidualScores serves self-attention only"):
        decoder(cross_attention=recipe, context=partial(GivenContext, dim=5))


def test_dynamic_heads_adds_mixes_of_query_and_key() -> None:
    mod = DynamicHeads(SHAPE, rank=1).double()
    x, scores = torch.randn(1, 3, 13, dtype=torch.float64), torch.randn(1, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(mod(scores, mod.prepare(call(x, scores, scores))), scores)
    with torch.no_grad():
        mod.to_mixes.normal_()
    q, k = mod.prepare(call(x, scores, scores))
    out, weights = mod(scores, (q, k)), mod.modify_weights(scores, (q, k))
    for found, at in ((out, 0), (weights, 1)):
        for i in range(3):
            for j in range(3):
                expected = scores[0, :, i, j].clone()
                for mixes in (q[0, at, i], k[0, at, j]):
                    down, up, gate = mixes.split((2, 2, 2))
                    down = down / down.square().mean().sqrt()
                    expected += (scores[0, :, i, j] @ down) * up + scores[0, :, i, j] * gate.tanh()
                torch.testing.assert_close(found[0, :, i, j], expected)


def test_dynamic_heads_refuses_an_invalid_rank() -> None:
    with pytest.raises(ValueError, match="score_mods: DynamicHeads has rank 0, which must be at least 1"):
        DynamicHeads(SHAPE, rank=0)


def test_multi_token_convolves_over_queries_and_keys() -> None:
    mod = MultiToken(SHAPE, num_queries=2, num_keys=4).double()
    q, k = torch.randn(1, 2, 5, 6, dtype=torch.float64), torch.randn(1, 2, 5, 6, dtype=torch.float64)
    scores = q @ k.mT / math.sqrt(6)
    torch.testing.assert_close(mod(scores, mod.prepare(call(torch.zeros(1, 5, 13), q, k))), scores)
    with torch.no_grad():
        mod.kernel.normal_()
    out = mod(scores, mod.prepare(call(torch.zeros(1, 5, 13), q, k)))
    for i in range(5):
        for j in range(i + 1):
            expected = 0.0
            for back in range(2):
                for at, key in enumerate(range(j - 2, j + 2)):
                    if 0 <= key <= i - back:
                        expected += (mod.kernel[1, back, at] * scores[0, 1, i - back, key]).item()
            assert out[0, 1, i, j].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["num_queries", "num_keys"])
def test_multi_token_refuses_an_empty_kernel(name: str) -> None:
    with pytest.raises(ValueError, match=f"score_mods: MultiToken has {name} 0, which must be at least 1"):
        MultiToken(SHAPE, **{name: 0})


@pytest.mark.parametrize("mod", [Selective, MultiToken])
def test_mods_of_earlier_queries_refuse_an_encoder(mod: type) -> None:
    shape = AttentionShape(dim=13, heads=2, kv_heads=2, dim_head=6, causal=False)
    with pytest.raises(ValueError, match=f"score_mods: {mod.__name__} .*, so it serves causal self-attention only"):
        mod(shape)
