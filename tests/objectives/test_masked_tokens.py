"""Masks of a masked language model: how many, where, with what, and the loss of what they hide."""

import math

import pytest
import torch
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.content_draws import draw_by_content
from lightning_xt.objectives.masked_tokens import MaskedTokens

MASK = 11
SIZES = {"vocab_size": 11, "token_embedding": torch.nn.Embedding(12, 8), "head": torch.nn.Identity()}
SHAPE = ObjectiveShape(**SIZES, mask=MASK, special=(0, 3))


def corrupt(tokens: Tensor, **options: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is read, what must be predicted (-100 elsewhere), and how many are to be predicted."""
    objective = MaskedTokens(SHAPE, **options)
    read, places, targets = objective.corrupt(tokens, torch.ones_like(tokens, dtype=torch.bool))
    chosen = torch.full_like(tokens, -100).scatter(1, places, targets)
    return read, chosen, (targets != -100).sum(dim=1)


@pytest.mark.parametrize(("n", "fraction", "count"), [(40, 0.15, 6), (7, 0.15, 1), (3, 0.1, 1), (10, 1.0, 10)])
def test_a_row_has_a_fixed_number_of_targets(n: int, fraction: float, count: int) -> None:
    _, chosen, counts = corrupt(torch.randint(4, 11, (50, n)), fraction=fraction)
    assert counts.unique().tolist() == [count]
    # The place of each is random.
    assert (chosen != -100).any(dim=0).all()


def test_four_fifths_are_masked_a_tenth_is_random_and_a_tenth_stays() -> None:
    tokens = torch.randint(4, 11, (1000, 100))
    read, chosen, _ = corrupt(tokens)
    at = chosen != -100
    assert torch.equal(read[~at], tokens[~at]) and torch.equal(chosen[at], tokens[at])
    assert at.float().mean().item() == pytest.approx(0.15, abs=1e-6)
    seen = read[at]
    assert (seen == MASK).float().mean().item() == pytest.approx(0.8, abs=0.01)
    # A random token is one of the 9 plain ones, so that a ninth of them equals the target.
    assert (seen == tokens[at]).float().mean().item() == pytest.approx(0.1 + 0.1 / 9, abs=0.01)
    others = seen[(seen != MASK) & (seen != tokens[at])]
    assert others.unique().tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_special_tokens_are_never_chosen() -> None:
    tokens = torch.tensor([[0, 3, 5, 0, 3, 6, 3, 0, 7, 0]]).repeat(200, 1)
    read, chosen, counts = corrupt(tokens, fraction=0.5, mask_fraction=1.0, random_fraction=0.0)
    # Half of the three plain tokens, rounded to even.
    assert counts.unique().tolist() == [2]
    assert set(chosen.unique().tolist()) == {-100, 5, 6, 7}
    assert ((read == MASK) == (chosen != -100)).all()
    _, chosen, counts = corrupt(torch.zeros(2, 5, dtype=torch.long))
    assert counts.tolist() == [0, 0] and (chosen == -100).all()


def test_padding_is_never_chosen() -> None:
    objective, tokens = MaskedTokens(SHAPE, fraction=0.3), torch.randint(4, 11, (100, 10))
    real = torch.arange(10).expand(100, -1) < 5
    _, places, targets = objective.corrupt(tokens, real)
    assert (places[targets != -100] < 5).all()
    # 0.3 of 5 tokens is 1.5, rounded to even.
    assert (targets != -100).sum(dim=1).unique().tolist() == [2]


def test_each_step_draws_other_masks_by_the_seed_of_torch() -> None:
    tokens = torch.randint(4, 11, (4, 40))
    torch.manual_seed(5)
    first, second = corrupt(tokens)[0], corrupt(tokens)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(corrupt(tokens)[0], first)


def test_a_seed_of_the_step_makes_the_masks_of_a_row() -> None:
    """A row has the same masks in any batch of the step, so in any process; each step has others."""
    objective, tokens, real = MaskedTokens(SHAPE), torch.randint(4, 11, (6, 40)), torch.ones(6, 40, dtype=torch.bool)
    found = []
    for seed in (-3, 2**61, 0):
        objective.step_seed = seed
        whole, half = objective.corrupt(tokens, real), objective.corrupt(tokens[3:], real[3:])
        assert all(torch.equal(one[3:], other) for one, other in zip(whole, half, strict=True))
        found.append(whole.tokens)
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])
    # Evaluation does not depend on it.
    before = objective.eval().corrupt(tokens, real).tokens
    objective.step_seed = 5
    assert torch.equal(objective.corrupt(tokens, real).tokens, before)


def test_evaluation_chooses_by_the_tokens_of_the_row() -> None:
    objective, tokens = MaskedTokens(SHAPE).eval(), torch.randint(4, 11, (6, 40))
    real, state = torch.ones(6, 40, dtype=torch.bool), torch.get_rng_state()
    whole = objective.corrupt(tokens, real)
    for row in range(6):
        alone = objective.corrupt(tokens[row : row + 1], real[:1])
        for one, together in zip(alone, whole, strict=True):
            assert torch.equal(one[0], together[row])
    assert torch.equal(torch.get_rng_state(), state)
    # Rows differ, also by one token.
    other = tokens.clone()
    other[:, -1] = 4 + (tokens[:, -1] - 3) % 7
    assert (objective.corrupt(other, real).places.sort().values != whole.places.sort().values).any(dim=1).all()


def test_numbers_by_content_are_uniform_and_independent() -> None:
    draws = draw_by_content(torch.randint(0, 5, (2000, 11)), 3)
    assert draws.shape == (3, 2000, 11) and draws.dtype == torch.float32
    assert draws.min() >= 0 and draws.max() < 1
    shares = torch.histc(draws, bins=10) / draws.numel()
    assert (shares - 0.1).abs().max() < 5 * math.sqrt(0.09 / draws.numel())
    flat = draws.permute(1, 0, 2).flatten(1)
    correlations = torch.corrcoef(flat.T) - torch.eye(33)
    assert correlations.abs().max() < 5 / math.sqrt(2000)


def test_numbers_by_content_are_those_of_split_mix_64() -> None:
    """One token's numbers, by Python's integers."""

    def mix(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    row = mix(sum(mix((token + golden * place) % 2**64) for place, token in ((1, 7), (2, 4))) % 2**64)
    expected = [[mix((row + golden * (place + 2 * draw)) % 2**64) / 2**64 for place in (1, 2)] for draw in (0, 1)]
    torch.testing.assert_close(
        draw_by_content(torch.tensor([[7, 4]]), 2)[:, 0], torch.tensor(expected), atol=1e-7, rtol=0
    )


class Recorder:
    """Model that returns constant logits, and records its inputs."""

    def __init__(self) -> None:
        self.logits = torch.randn(2, 10, 11)

    def __call__(
        self, tokens: Tensor, *, places: Tensor, inputs: Inputs | None = None, trace: Trace
    ) -> tuple[Tensor, Trace]:
        self.tokens, self.places, self.inputs = tokens, places, inputs
        return self.logits.gather(1, places[..., None].expand(-1, -1, 11)), trace.add_loss(
            "balance", torch.ones(()), 0.5
        )


def surprise(logits: Tensor, target: int) -> float:
    return math.log(sum(math.exp(x) for x in logits.tolist())) - logits[target].item()


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_the_mean_over_what_is_chosen(training: bool) -> None:
    tokens, model = torch.randint(4, 11, (2, 11)), Recorder()
    loss = MaskedTokens(SHAPE, fraction=0.3).train(training)(model, tokens)
    assert model.tokens.shape == (2, 10) and model.inputs is None and model.places.shape == (2, 3)
    each = [
        surprise(model.logits[row, place], int(tokens[row, place + 1]))
        for row in range(2)
        for place in model.places[row].tolist()
    ]
    assert loss.mean.item() == pytest.approx(sum(each) / 6, rel=1e-6)
    assert loss.total.item() == pytest.approx(sum(each), rel=1e-6)
    assert loss.count.item() == 6
    assert loss.terms == {"balance": 0.5} and loss.minimised.item() == pytest.approx(sum(each) / 6 + 0.5, rel=1e-6)


def test_only_scored_tokens_count_and_padding_is_hidden() -> None:
    tokens, model = torch.randint(4, 11, (2, 11)), Recorder()
    # In the first row the first tokens are context; in the second the last ones are padding.
    scored = torch.tensor([[False] * 6 + [True] * 4, [True] * 7 + [False] * 3])
    loss = MaskedTokens(SHAPE, fraction=1.0, mask_fraction=1.0, random_fraction=0.0)(model, tokens, scored)
    assert model.inputs.hidden_tokens.tolist() == [[False] * 10, [False] * 7 + [True] * 3]
    # Context is hidden like all that training hides; padding is read as it is.
    assert ((model.tokens == MASK) == ~model.inputs.hidden_tokens).all()
    assert loss.count.item() == 4 + 7
    each = [
        surprise(model.logits[r, at], int(tokens[r, at + 1])) for r in range(2) for at in range(10) if scored[r, at]
    ]
    assert loss.total.item() == pytest.approx(sum(each), rel=1e-6)


def test_a_row_in_which_nothing_counts_adds_nothing() -> None:
    model, scored = Recorder(), torch.tensor([[False] * 10, [True] * 10])
    loss = MaskedTokens(SHAPE, fraction=0.3)(model, torch.randint(4, 11, (2, 11)), scored)
    assert loss.count.item() == 3
    assert model.inputs.hidden_tokens.sum(dim=1).tolist() == [9, 0]


def test_minus_one_hundred_is_not_chosen_and_is_read_as_zero() -> None:
    tokens, model = torch.randint(4, 11, (2, 11)), Recorder()
    tokens[0, 3:8] = -100
    loss = MaskedTokens(SHAPE, fraction=1.0)(model, tokens)
    assert loss.count.item() == 5 + 10
    assert model.tokens[0, 2:7].tolist() == [0] * 5 and tokens[0, 3] == -100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.0}, "has fraction 0.0, which must be above 0 and at most 1"),
        ({"fraction": 1.5}, "has fraction 1.5, which must be"),
        ({"mask_fraction": -0.1}, "has mask_fraction -0.1, which must be from 0 to 1"),
        ({"random_fraction": 2.0}, "has random_fraction 2.0, which must be from 0 to 1"),
        ({"mask_fraction": 0.8, "random_fraction": 0.3}, "0.8 and random_fraction 0.3, which add up to more than 1"),
    ],
)
def test_refuses_invalid_fractions(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^objective: MaskedTokens .*{message}"):
        MaskedTokens(SHAPE, **options)


def test_refuses_a_model_without_a_mask_token() -> None:
    with pytest.raises(
        ValueError, match=r"^objective: MaskedTokens needs a model with a mask token; set --model Masked"
    ):
        MaskedTokens(ObjectiveShape(**SIZES))
