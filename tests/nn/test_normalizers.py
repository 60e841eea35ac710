"""Normalizers against sums over the visible keys."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from catalogue import VOCAB, attention, attention_layers, decoder, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.normalizers.base import Normalizer
from lightning_xt.nn.normalizers.entmax15 import Entmax15
from lightning_xt.nn.normalizers.gumbel_softmax import GumbelSoftmax
from lightning_xt.nn.normalizers.hard import Hard
from lightning_xt.nn.normalizers.inverted import Inverted
from lightning_xt.nn.normalizers.quiet_softmax import QuietSoftmax
from lightning_xt.nn.normalizers.sigmoid import Sigmoid
from lightning_xt.nn.normalizers.signed import Signed
from lightning_xt.nn.normalizers.sink_softmax import SinkSoftmax
from lightning_xt.nn.normalizers.softmax import Softmax
from lightning_xt.nn.normalizers.softpick import Softpick
from lightning_xt.nn.normalizers.sparsemax import Sparsemax
from lightning_xt.nn.normalizers.stick_breaking import StickBreaking
from lightning_xt.nn.normalizers.top_k_softmax import TopKSoftmax
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.combined import Combined
from lightning_xt.nn.positions.hard_alibi import HardALiBi
from lightning_xt.nn.positions.rotary import Rotary
from lightning_xt.nn.score_mods.selective import Selective
from lightning_xt.nn.scores.negative_distance import NegativeDistance

NORMALIZERS = [
    *(TopKSoftmax, Hard, GumbelSoftmax, Signed, Softpick, Sparsemax, Entmax15),
    *(SinkSoftmax, QuietSoftmax, StickBreaking),
]
SHAPE = AttentionShape(dim=13, heads=3, kv_heads=3, dim_head=6)


def problem() -> tuple[Tensor, Tensor]:
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    mask = torch.rand(2, 1, 4, 5) < 0.6
    mask[0, 0, 1] = False
    mask[0, 0, 2] = True
    return scores, mask


def visible(scores: Tensor, mask: Tensor, b: int, h: int, i: int) -> dict[int, float]:
    return {j: scores[b, h, i, j].item() for j in range(5) if mask[b, 0, i, j]}


def test_softmax_over_the_visible_keys() -> None:
    scores, mask = problem()
    weights = Softmax(SHAPE)(scores, mask)
    for b in range(2):
        for h in range(3):
            for i in range(4):
                seen = visible(scores, mask, b, h, i)
                total = sum(math.exp(score) for score in seen.values())
                expected = [math.exp(seen[j]) / total if j in seen else 0.0 for j in range(5)]
                assert weights[b, h, i].tolist() == pytest.approx(expected)


def test_softmax_gives_a_query_that_sees_nothing_no_weight() -> None:
    scores, mask = problem()
    assert Softmax(SHAPE)(scores, mask)[0, :, 1].tolist() == [[0.0] * 5] * 3


def test_softmax_sums_in_float32() -> None:
    """Softmax sums in float32: in bfloat16, 1 + 1 + ... stops at 256, because the next number is 258."""
    scores = torch.zeros(1, 1, 1, 1000, dtype=torch.bfloat16)
    weights = Softmax(SHAPE)(scores, torch.ones(1, 1, 1, 1000, dtype=torch.bool))
    assert weights.dtype == torch.bfloat16
    assert weights[0, 0, 0, 0].item() == torch.tensor(1 / 1000, dtype=torch.bfloat16).item()
    # exp(0.5): the score is rounded only once.
    pair = Softmax(SHAPE)(torch.tensor([[[[0.5, 0.0]]]], dtype=torch.bfloat16), torch.ones(1, 1, 1, 2) > 0)
    exact = math.exp(0.5) / (1 + math.exp(0.5))
    assert pair[0, 0, 0, 0].item() == torch.tensor(exact, dtype=torch.bfloat16).item()


def test_sigmoid_is_offset_by_the_log_of_the_keys_seen() -> None:
    scores, mask = problem()
    weights = Sigmoid(SHAPE)(scores, mask)
    for b in range(2):
        for h in range(3):
            for i in range(4):
                seen = visible(scores, mask, b, h, i)
                # sigmoid(s - log n) = 1 / (1 + n e^-s)
                expected = [1 / (1 + len(seen) * math.exp(-seen[j])) if j in seen else 0.0 for j in range(5)]
                assert weights[b, h, i].tolist() == pytest.approx(expected)


def test_sigmoid_with_a_given_offset() -> None:
    scores, mask = problem()
    weights = Sigmoid(SHAPE, offset=-2.5)(scores, mask)
    for i in range(4):
        seen = visible(scores, mask, 1, 2, i)
        expected = [1 / (1 + math.exp(2.5 - seen[j])) if j in seen else 0.0 for j in range(5)]
        assert weights[1, 2, i].tolist() == pytest.approx(expected)


def row(*scores: float) -> Tensor:
    return torch.tensor(scores, dtype=torch.float64).view(1, 1, 1, -1)


def weigh(normalizer: Normalizer, *scores: float) -> list[float]:
    """Return the weights of keys that a query sees, and check that a hidden key with the highest score changes none."""
    alone, seen = normalizer(row(*scores), row(*scores) < math.inf), row(*scores, 9999.0) < 9999
    assert normalizer(row(*scores, 9999.0), seen).flatten().tolist() == pytest.approx([*alone.flatten().tolist(), 0.0])
    return alone.flatten().tolist()


def find_gradient(normalizer: Normalizer, scores: list[float], key: int) -> list[float]:
    """Return the derivative of one key's weight with respect to each score."""
    given = row(*scores).requires_grad_()
    (gradient,) = torch.autograd.grad(normalizer(given, given < math.inf)[..., key].sum(), given)
    return gradient.flatten().tolist()


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_query_that_sees_nothing_weighs_nothing(normalizer: type[Normalizer], dtype: torch.dtype) -> None:
    scores, mask = (t.requires_grad_() if t.is_floating_point() else t for t in problem())
    weights = normalizer(SHAPE)(scores.to(dtype), mask)
    assert weights.dtype == dtype
    assert weights[0, :, 1].tolist() == [[0.0] * 5] * 3
    assert (weights.masked_select(~mask) == 0).all()
    weights.square().sum().backward()
    assert scores.grad.isfinite().all()


def test_top_k_softmax_weighs_the_highest_scores() -> None:
    total = math.exp(2) + math.exp(1)
    weights = weigh(TopKSoftmax(SHAPE, num_keys=2), 1.0, -3.0, 2.0, 0.5)
    assert weights == pytest.approx([math.exp(1) / total, 0.0, math.exp(2) / total, 0.0])
    assert weigh(TopKSoftmax(SHAPE), 0.0, 0.0, 0.0) == pytest.approx([1 / 3] * 3), "fewer keys than num_keys"
    assert weigh(TopKSoftmax(SHAPE, num_keys=1), 1.0, 1.0, 0.0) == [0.5, 0.5, 0.0], "a tie"


def test_top_k_softmax_gives_other_keys_a_gradient_straight_through() -> None:
    scores = [1.0, -3.0, 2.0]
    assert find_gradient(TopKSoftmax(SHAPE, num_keys=2), scores, 2)[1] == 0
    through = TopKSoftmax(SHAPE, num_keys=2, straight_through=True)
    assert weigh(through, *scores) == weigh(TopKSoftmax(SHAPE, num_keys=2), *scores)
    assert find_gradient(through, scores, 2) == pytest.approx(find_gradient(Softmax(SHAPE), scores, 2))


def test_hard_weighs_one_key_and_learns_as_a_softmax() -> None:
    assert weigh(Hard(SHAPE), 1.0, -3.0, 2.0) == [0.0, 0.0, 1.0]
    halved = find_gradient(Softmax(SHAPE), [0.5, -1.5, 1.0], 0)
    assert find_gradient(Hard(SHAPE, temperature=2.0), [1.0, -3.0, 2.0], 0) == pytest.approx([g / 2 for g in halved])


def test_gumbel_softmax_draws_in_training_only() -> None:
    drawn = GumbelSoftmax(SHAPE, temperature=0.5)
    assert weigh(drawn.eval(), 1.0, 0.0) == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))])
    hard = GumbelSoftmax(SHAPE, hard=True)
    scores = torch.tensor([1.0, 0.0, -1.0]).expand(1, 1, 9000, 3)
    # The highest noisy score is a draw from the softmax (Gumbel-max).
    found = hard(scores, scores < 9).mean(dim=-2).flatten().tolist()
    total = sum(math.exp(score) for score in (1, 0, -1))
    assert found == pytest.approx([math.exp(score) / total for score in (1, 0, -1)], abs=0.02)
    assert weigh(hard.eval(), 1.0, 0.0) == [1.0, 0.0]
    assert find_gradient(hard, [1.0, 0.0], 0) == pytest.approx(find_gradient(Softmax(SHAPE), [1.0, 0.0], 0))


def test_signed_keeps_the_signs_of_scores() -> None:
    total = math.exp(2) + math.exp(1) + 1
    assert weigh(Signed(SHAPE), -2.0, 1.0, 0.0) == pytest.approx([-math.exp(2) / total, math.exp(1) / total, 0.0])


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"position": HardALiBi}, "position: HardALiBi"),
        ({"position": partial(Combined, positions=[Rotary, ALiBi])}, "position: Combined"),
        ({"score_mods": [Selective]}, "score_mods: Selective"),
    ],
    ids=str,
)
def test_signed_refuses_scores_that_are_lowered_to_hide_a_key(options: dict[str, object], name: str) -> None:
    with pytest.raises(
        ValueError, match=f"{name} hides a key by a low score, but normalizer Signed weighs by the size"
    ):
        decoder(attention=attention(normalizer=Signed, **options))


def test_softpick_rectifies() -> None:
    up, down = math.exp(1) - 1, 1 - math.exp(-2)
    total = up + down
    assert weigh(Softpick(SHAPE), 1.0, -2.0) == pytest.approx([up / total, 0.0], abs=1e-6)
    assert weigh(Softpick(SHAPE), -1.0, -2.0) == [0.0, 0.0]
    assert weigh(Softpick(SHAPE), 2000.0, 2000.0, -3000.0) == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)


def test_top_k_weighs_keys_that_differ_by_rounding_alike() -> None:
    third = 1.0 + 2 * torch.finfo(torch.float64).eps
    weights = weigh(TopKSoftmax(SHAPE, num_keys=2), 2.0, third, 1.0, 0.5)
    assert weights[1] == pytest.approx(weights[2])
    assert weights[3] == 0
    assert weigh(TopKSoftmax(SHAPE, num_keys=2), 2.0, 1.001, 1.0)[2] == 0


def test_softpick_refuses_scores_that_are_all_negative() -> None:
    with pytest.raises(
        ValueError, match=r"normalizer: Softpick weighs only .*, but score NegativeDistance has none; om"
    ):
        decoder(attention=attention(normalizer=Softpick, score=NegativeDistance))


def bisect(scores: list[float], power: int) -> list[float]:
    """Return max(score - t, 0) ** power with the t at which they add up to 1, found by halving."""
    below, above = max(scores) - 1, max(scores)
    for _ in range(60):
        t = (below + above) / 2
        if sum(max(score - t, 0) ** power for score in scores) > 1:
            below = t
        else:
            above = t
    return [max(score - t, 0) ** power for score in scores]


SPARSE = [(Sparsemax, 1.0, 1), (Entmax15, 0.5, 2)]


@pytest.mark.parametrize(("normalizer", "factor", "power"), SPARSE)
def test_sparse_weights_add_up_to_one(normalizer: type[Normalizer], factor: float, power: int) -> None:
    for _ in range(7):
        scores = (3 * torch.randn(9)).tolist()
        expected = bisect([factor * score for score in scores], power)
        assert weigh(normalizer(SHAPE), *scores) == pytest.approx(expected, abs=1e-9)
    assert weigh(normalizer(SHAPE), 1.0, 1.0, 1.0, 1.0) == pytest.approx([0.25] * 4)
    assert weigh(normalizer(SHAPE), 900.0, 0.0, -900.0) == [1.0, 0.0, 0.0]


def test_sparsemax_by_hand() -> None:
    # Both get weight: the threshold is (1.2 + 0.8 - 1) / 2 = 0.5.
    assert weigh(Sparsemax(SHAPE), 1.2, 0.8, -0.1) == pytest.approx([0.7, 0.3, 0.0])


@pytest.mark.parametrize("normalizer", [Sparsemax, Entmax15])
def test_sparse_weights_have_the_gradient_of_their_projection(normalizer: type[Normalizer]) -> None:
    scores = (2 * torch.randn(1, 1, 3, 5, dtype=torch.float64)).requires_grad_()
    mask = torch.ones(1, 1, 3, 5, dtype=torch.bool)
    mask[..., 2, 3] = False
    assert torch.autograd.gradcheck(lambda t: normalizer(SHAPE)(t, mask), scores)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TopKSoftmax(SHAPE, num_keys=0), "normalizer: TopKSoftmax has num_keys 0, which must be at least 1"),
        (lambda: Hard(SHAPE, temperature=0.0), "normalizer: Hard has temperature 0.0, which must be above 0"),
        (
            lambda: GumbelSoftmax(SHAPE, temperature=-1.0),
            "normalizer: GumbelSoftmax has temperature -1.0, which must be above 0",
        ),
        (lambda: Softpick(SHAPE, eps=0.0), "normalizer: Softpick has eps 0.0, which must be above 0"),
    ],
)
def test_options_outside_their_range_are_refused(build: Callable[[], Normalizer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_quiet_softmax_adds_one_to_the_sum() -> None:
    total = math.exp(2) + math.exp(-1) + 1
    quiet = QuietSoftmax(AttentionShape(dim=13, heads=1, kv_heads=1, dim_head=6))
    assert weigh(quiet, 2.0, -1.0) == pytest.approx([math.exp(2) / total, math.exp(-1) / total])


def test_sink_softmax_gives_weight_to_a_score_per_head() -> None:
    normalizer, scores = SinkSoftmax(SHAPE), torch.tensor([2.0, -1.0]).expand(1, 3, 1, 2)
    with torch.no_grad():
        normalizer.sinks.copy_(torch.tensor([0.0, 3.0, -50.0]))
    for weights, sink in zip(normalizer(scores, scores < 9)[0, :, 0].tolist(), (0.0, 3.0, -50.0), strict=True):
        total = math.exp(2) + math.exp(-1) + math.exp(sink)
        assert weights == pytest.approx([math.exp(2) / total, math.exp(-1) / total])


@pytest.mark.parametrize("options", [{}, {"memory": 3, "kv_heads": 2}, {"window": 3}, {"position": ALiBi}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_sink_keeps_the_fused_kernel(options: dict[str, object], dtype: torch.dtype) -> None:
    """For rows and single queries; blocks and single queries in bfloat16 are plain products."""
    model = randomise(lambda: decoder(attention=attention(normalizer=SinkSoftmax, **options)), torch.float32).to(dtype)
    tokens = torch.randint(0, VOCAB, (2, 70))
    for n in (1, 70):
        found = []
        for backend in ("explicit", "fused"):
            for layer in attention_layers(model):
                layer.backend = backend
            with torch.no_grad():
                found.append(model(tokens[:, :n]).double())
        error = (found[1] - found[0]).norm() / found[0].norm()
        assert error < (1e-9 if dtype == torch.float64 else 0.02)


def test_stick_breaking_takes_what_later_keys_leave() -> None:
    normalizer = StickBreaking(AttentionShape(dim=13, heads=1, kv_heads=1, dim_head=6))
    kept = [1 / (1 + math.exp(-score)) for score in (1.0, -2.0, 0.5)]
    expected = [kept[0] * (1 - kept[1]) * (1 - kept[2]), kept[1] * (1 - kept[2]), kept[2]]
    assert weigh(normalizer, 1.0, -2.0, 0.5) == pytest.approx(expected)
    where = Where.from_sequence(3, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu"))
    scores = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).expand(1, 1, 3, 3)
    alone = normalizer.weigh(scores, where)
    assert alone[0, 0, 0].tolist() == [0.0, 0.0, 0.0]
    assert alone[0, 0, 2].tolist() == pytest.approx([kept[0] * (1 - kept[1]), kept[1], 0.0])
    itself = StickBreaking(SHAPE, sees_itself=True).weigh(scores, where)
    assert itself[0, 0, 2].tolist() == pytest.approx(expected)
    assert normalizer.weigh(scores[..., :1].expand(1, 1, 3, 5), where.add_memory(2))[0, 0, 0].sum().item() > 0


def test_inverted_lets_queries_compete_for_keys() -> None:
    normalizer = Inverted(AttentionShape(dim=13, heads=1, kv_heads=1, dim_head=6, causal=False))
    scores = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [9.0, 9.0]], dtype=torch.float64).view(1, 1, 3, 2)
    mask = torch.tensor([[True, True], [True, True], [False, False]]).view(1, 1, 3, 2)
    first = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))]
    second = [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))]
    expected = [[a / (a + b), b / (a + b)] for a, b in zip(first, second, strict=True)]
    weights = normalizer(scores, mask)[0, 0]
    assert weights[:2].flatten().tolist() == pytest.approx(expected[0] + expected[1])
    assert weights[2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("shape", [{"causal": True}, {"causal": False, "context_dim": 5}])
def test_inverted_serves_encoders_only(shape: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"normalizer: Inverted lets all queries compete, .*; choose another"):
        Inverted(AttentionShape(dim=13, heads=1, kv_heads=1, dim_head=6, **shape))
