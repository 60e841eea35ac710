"""Losses by hand, and the tokens that forgetful masking hides."""

import math

import pytest
import torch
from catalogue import VOCAB, decoder, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.objectives.base import LanguageModelLike, Objective
from lightning_xt.objectives.cross_entropy import cross_entropy
from lightning_xt.objectives.forgetful_next_token import ForgetfulNextToken
from lightning_xt.objectives.next_token import NextToken


class Recorder:
    """Model that returns constant logits, and records its inputs."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        self.calls: list[tuple[Tensor, Inputs | None]] = []

    def __call__(self, tokens: Tensor, *, inputs: Inputs | None = None, trace: Trace) -> tuple[Tensor, Trace]:
        self.calls.append((tokens, inputs))
        return self.logits[: tokens.shape[0], : tokens.shape[1]], trace


def surprise(logits: Tensor, target: int) -> float:
    return math.log(sum(math.exp(x) for x in logits.tolist())) - logits[target].item()


SHAPE = ObjectiveShape(vocab_size=VOCAB, token_embedding=torch.nn.Embedding(VOCAB, 8), head=torch.nn.Linear(8, VOCAB))
TOKENS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
LOGITS = torch.randn(2, 3, VOCAB, generator=torch.Generator().manual_seed(3))


def test_next_token_by_hand() -> None:
    model = Recorder(LOGITS)
    assert isinstance(model, LanguageModelLike)
    loss = NextToken(SHAPE)(model, TOKENS)
    read, inputs = model.calls[0]
    assert read.tolist() == [[3, 1, 4], [5, 9, 2]] and inputs.scored.all()
    each = [surprise(LOGITS[b, t], int(TOKENS[b, t + 1])) for b in range(2) for t in range(3)]
    assert loss.total.item() == pytest.approx(sum(each), rel=1e-6)
    assert loss.mean.item() == pytest.approx(sum(each) / 6, rel=1e-6)
    assert loss.count.item() == 6


def test_only_scored_targets_count() -> None:
    scored = torch.tensor([[False, True, True], [False, False, True]])
    loss = NextToken(SHAPE)(Recorder(LOGITS), TOKENS, scored)
    each = [surprise(LOGITS[b, t], int(TOKENS[b, t + 1])) for b, t in [(0, 1), (0, 2), (1, 2)]]
    assert loss.total.item() == pytest.approx(sum(each), rel=1e-6)
    assert loss.mean.item() == pytest.approx(sum(each) / 3, rel=1e-6)
    assert loss.count.item() == 3


def test_targets_of_minus_one_hundred_never_count() -> None:
    tokens = TOKENS.clone()
    tokens[:, 3] = -100
    loss = NextToken(SHAPE)(Recorder(LOGITS), tokens, torch.tensor([[True, True, True], [True, False, True]]))
    each = [surprise(LOGITS[b, t], int(TOKENS[b, t + 1])) for b, t in [(0, 0), (0, 1), (1, 0)]]
    assert loss.mean.item() == pytest.approx(sum(each) / 3, rel=1e-6)
    assert loss.count.item() == 3


@pytest.mark.parametrize(
    "objective", [NextToken(SHAPE), ForgetfulNextToken(SHAPE, max_fraction=0.0).train()], ids=["next", "fcm"]
)
def test_minus_one_hundred_inside_a_row_is_not_a_target_and_is_read_as_zero(objective: Objective) -> None:
    tokens, model = TOKENS.clone(), Recorder(LOGITS)
    tokens[0, 1:3] = tokens[1, 0] = -100
    loss = objective(model, tokens)
    each = [surprise(LOGITS[b, t], int(TOKENS[b, t + 1])) for b, t in [(0, 2), (1, 0), (1, 1), (1, 2)]]
    assert loss.total.item() == pytest.approx(sum(each), rel=1e-6)
    assert loss.mean.item() == pytest.approx(sum(each) / 4, rel=1e-6)
    assert loss.count.item() == 4
    assert model.calls[0][0].tolist() == [[3, 0, 0], [0, 9, 2]] and tokens[0, 1] == -100


def test_where_nothing_counts_the_loss_is_zero() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = NextToken(SHAPE)(Recorder(logits), TOKENS, torch.zeros(2, 3, dtype=torch.bool))
    assert (loss.mean.item(), loss.total.item(), loss.count.item()) == (0, 0, 0)
    loss.mean.backward()
    assert logits.grad.abs().max() == 0


def test_the_gradient_is_that_of_the_mean() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = NextToken(SHAPE)(Recorder(logits), TOKENS)
    assert not loss.total.requires_grad
    loss.mean.backward()
    one_hot = torch.nn.functional.one_hot(TOKENS[:, 1:], VOCAB)
    torch.testing.assert_close(logits.grad, (LOGITS.softmax(-1) - one_hot) / 6)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    """Losses are summed in float32: a bfloat16 total of 2000 times log 11 would be a multiple of 32."""
    loss = cross_entropy(torch.zeros(1, 2000, 11, dtype=torch.bfloat16), torch.zeros(1, 2000, dtype=torch.long))
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(2000 * math.log(11), rel=1e-5)
    exact = cross_entropy(torch.zeros(1, 1, 11, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.long))
    assert exact.mean.dtype == torch.float64 and exact.mean.item() == pytest.approx(math.log(11), rel=1e-14)


@pytest.mark.parametrize("smoothing", [0.1, 0.75])
def test_label_smoothing_by_hand(smoothing: float) -> None:
    """The target is 1 - s at the right token, plus s / vocabulary everywhere, the right token included."""
    scored = torch.tensor([[False, True, True], [True, False, True]])
    loss = NextToken(SHAPE, label_smoothing=smoothing).train()(Recorder(LOGITS), TOKENS, scored)
    each = [
        (1 - smoothing) * surprise(LOGITS[b, t], int(TOKENS[b, t + 1]))
        + smoothing / VOCAB * sum(surprise(LOGITS[b, t], word) for word in range(VOCAB))
        for b, t in [(0, 1), (0, 2), (1, 0), (1, 2)]
    ]
    assert loss.total.item() == pytest.approx(sum(each), rel=1e-6)
    assert loss.mean.item() == pytest.approx(sum(each) / 4, rel=1e-6)
    assert loss.count.item() == 4


def test_targets_that_do_not_count_are_not_smoothed_either() -> None:
    tokens, logits = TOKENS.clone(), LOGITS.clone().requires_grad_()
    tokens[:, 3] = -100
    NextToken(SHAPE, label_smoothing=0.3).train()(
        Recorder(logits), tokens, torch.tensor([[True] * 3, [False] * 3])
    ).mean.backward()
    assert (logits.grad.abs().amax(-1) > 0).tolist() == [[True, True, False], [False] * 3]
    smooth = 0.7 * torch.nn.functional.one_hot(TOKENS[0, 1:3], VOCAB) + 0.3 / VOCAB
    torch.testing.assert_close(logits.grad[0, :2], (LOGITS[0, :2].softmax(-1) - smooth) / 2)


def test_evaluation_is_not_smoothed() -> None:
    model = Recorder(LOGITS)
    plain, smooth = NextToken(SHAPE)(model, TOKENS), NextToken(SHAPE, label_smoothing=0.4).eval()(model, TOKENS)
    assert torch.equal(smooth.mean, plain.mean) and torch.equal(smooth.total, plain.total)
    none = NextToken(SHAPE, label_smoothing=0.0).train()(model, TOKENS)
    assert torch.equal(none.mean, plain.mean)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_refuses_invalid_smoothing(smoothing: float) -> None:
    message = f"objective: NextToken has label_smoothing {smoothing}, which must be at least 0 and below 1"
    with pytest.raises(ValueError, match=message):
        NextToken(SHAPE, label_smoothing=smoothing)


def test_evaluation_of_the_forgetful_objective_is_plain() -> None:
    model, tokens = randomise(decoder), torch.randint(0, VOCAB, (2, 8))
    scored = torch.rand(2, 7) < 0.5
    plain = NextToken(SHAPE)(model, tokens, scored)
    forgetful = ForgetfulNextToken(SHAPE, max_fraction=0.9).eval()(model, tokens, scored)
    assert torch.equal(forgetful.mean, plain.mean) and torch.equal(forgetful.total, plain.total)
    recorder = Recorder(LOGITS)
    ForgetfulNextToken(SHAPE).eval()(recorder, TOKENS)
    assert recorder.calls[0][1] is None


def find_hidden(objective: ForgetfulNextToken, rows: int, n: int) -> Tensor:
    recorder = Recorder(torch.zeros(rows, n, VOCAB))
    objective.train()(recorder, torch.randint(0, VOCAB, (rows, n + 1)))
    return recorder.calls[0][1].hidden_tokens


def test_the_first_token_is_never_hidden() -> None:
    drawn = find_hidden(ForgetfulNextToken(SHAPE, max_fraction=0.99), 500, 7)
    assert not drawn[:, 0].any()
    assert drawn[:, 1:].any(0).all()


def test_the_first_token_of_a_document_is_never_hidden() -> None:
    documents = torch.tensor([0, 0, 0, 1, 1, 2, 0]).expand(500, 7)
    recorder = Recorder(torch.zeros(500, 7, VOCAB))
    objective = ForgetfulNextToken(SHAPE, max_fraction=0.99).train()
    objective(recorder, torch.randint(0, VOCAB, (500, 8)), inputs=Inputs(documents=documents))
    drawn = recorder.calls[0][1].hidden_tokens
    assert drawn.any(0).tolist() == [False, True, True, False, True, False, False]


@pytest.mark.parametrize("max_fraction", [0.15, 0.6])
def test_a_row_hides_a_fraction_uniform_up_to_the_largest(max_fraction: float) -> None:
    rows, n = 1500, 401
    fractions = find_hidden(ForgetfulNextToken(SHAPE, max_fraction=max_fraction), rows, n)[:, 1:].float().mean(1)
    # A uniform fraction has mean m / 2 and deviation m / sqrt(12); the error of the mean is that over sqrt(rows).
    assert fractions.mean().item() == pytest.approx(max_fraction / 2, abs=4 * max_fraction / math.sqrt(12 * rows))
    thirds = torch.tensor([max_fraction / 3, 2 * max_fraction / 3])
    counts = torch.bucketize(fractions, thirds).bincount(minlength=3)
    assert (counts - rows / 3).abs().max() < 5 * math.sqrt(rows * 2 / 9) + 20
    assert fractions.max() < max_fraction + 0.1


def test_a_fraction_of_zero_hides_nothing() -> None:
    assert not find_hidden(ForgetfulNextToken(SHAPE, max_fraction=0.0), 50, 7).any()


@torch.no_grad()
def test_what_is_hidden_has_no_influence() -> None:
    """The loss of targets after visible tokens does not depend on hidden tokens."""
    model, tokens = randomise(decoder), torch.randint(0, VOCAB, (4, 12))
    objective = ForgetfulNextToken(SHAPE, max_fraction=0.9).train()
    drawn: list[Tensor] = []

    def watch(tokens: Tensor, *, inputs: Inputs | None = None, trace: Trace) -> tuple[Tensor, Trace]:
        drawn.append(inputs.hidden_tokens)
        return model(tokens, inputs=inputs, trace=trace)

    def loss(tokens: Tensor, scored: Tensor) -> float:
        torch.manual_seed(11)
        return objective(watch, tokens, scored).mean.item()

    loss(tokens, torch.ones(4, 11, dtype=torch.bool))
    mask = drawn[0]
    assert mask.sum() > 5
    # A hidden token that is a target changes the loss, so only pairs of visible tokens are scored.
    scored = ~mask & ~torch.cat((mask[:, 1:], torch.zeros(4, 1, dtype=torch.bool)), dim=1)
    other = tokens.clone()
    other[:, :-1] = torch.where(mask, (tokens[:, :-1] + 1) % VOCAB, tokens[:, :-1])
    assert loss(other, scored) == pytest.approx(loss(tokens, scored), rel=1e-12)
    assert loss(other, mask) != pytest.approx(loss(tokens, mask), rel=1e-3)


@pytest.mark.parametrize("max_fraction", [-0.1, 1.0, 2.0])
def test_refuses_an_invalid_fraction(max_fraction: float) -> None:
    message = f"objective: ForgetfulNextToken has max_fraction {max_fraction}, which must be at least 0 and below 1"
    with pytest.raises(ValueError, match=message):
        ForgetfulNextToken(SHAPE, max_fraction=max_fraction)


@pytest.mark.parametrize("unused", [[], [0, 1], [0, 7, 10]])
def test_cases_d8_nothing_is_spread_over_ids_that_no_text_has(unused: list[int]) -> None:
    logits = LOGITS.double().requires_grad_()
    objective = NextToken(SHAPE, label_smoothing=0.3)
    objective.exclude(unused)
    scored = torch.tensor([[True, True, False], [True, False, True]])
    loss = objective(Recorder(logits), TOKENS, scored)
    used = [each for each in range(VOCAB) if each not in unused]
    expected = 0.7 * torch.nn.functional.one_hot(TOKENS[:, 1:], VOCAB).double()
    expected[..., used] += 0.3 / len(used)
    each = -(expected * logits.log_softmax(dim=-1)).sum(dim=-1)[scored]
    torch.testing.assert_close(loss.mean, each.mean())
    (gradient,) = torch.autograd.grad(loss.mean, logits)
    torch.testing.assert_close(gradient, torch.autograd.grad(each.mean(), logits)[0])
    assert objective.eval()(Recorder(logits), TOKENS, scored).total.item() == pytest.approx(
        float(cross_entropy(logits, TOKENS[:, 1:], scored).total)
    )
