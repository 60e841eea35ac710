"""Heads: products by hand, and a tied table."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from catalogue import DIM, VOCAB, decoder
from torch import nn

from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.heads.base import HeadFactory
from lightning_xt.nn.heads.mixture_of_softmaxes import MixtureOfSoftmaxes
from lightning_xt.nn.heads.sig_softmax import SigSoftmax
from lightning_xt.nn.heads.sigmoid_cap_head import SigmoidCapHead
from lightning_xt.nn.heads.soft_cap_head import SoftCapHead
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.heads.untied_head import UntiedHead


def test_untied_head_scores_by_a_separate_map() -> None:
    head = UntiedHead(nn.Embedding(5, 3))
    assert head.to_logits.weight.shape == (5, 3) and head.to_logits.bias is None
    x = torch.randn(1, 2, 3)
    for n in range(2):
        for word in range(5):
            expected = sum((head.to_logits.weight[word, f] * x[0, n, f]).item() for f in range(3))
            assert head(x)[0, n, word].item() == pytest.approx(expected, abs=1e-5)


def test_tied_head_scores_by_the_embeddings() -> None:
    embedding = nn.Embedding(5, 3)
    with torch.no_grad():
        embedding.weight.copy_(torch.arange(15.0).view(5, 3))
    assert TiedHead(embedding)(torch.tensor([[[1.0, 0.0, -1.0]]])).tolist() == [[[-2.0] * 5]]
    assert TiedHead(embedding)(torch.tensor([[[0.0, 2.0, 0.0]]])).tolist() == [[[2.0, 8.0, 14.0, 20.0, 26.0]]]


def test_heads_scale_hidden_states_and_add_a_bias() -> None:
    embedding = nn.Embedding(2, 4)
    with torch.no_grad():
        embedding.weight.copy_(torch.arange(8.0).view(2, 4))
    x = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    # Products 3 and 11, of four features.
    assert TiedHead(embedding, scale=None)(x).tolist() == [[[1.5, 5.5]]]
    assert TiedHead(embedding, scale=2.0)(x).tolist() == [[[6.0, 22.0]]]
    head = TiedHead(embedding, scale=2.0, bias=True)
    assert head(x).tolist() == [[[6.0, 22.0]]]
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.5, -1.0]))
    assert head(x).tolist() == [[[6.5, 21.0]]]
    untied = UntiedHead(embedding, bias=True)
    assert untied.to_logits.bias.shape == (2,)
    torch.testing.assert_close(untied(x), x @ untied.to_logits.weight.T + untied.to_logits.bias)


def is_tied(model: Decoder) -> bool:
    return model.head.weight is model.token_embedding.weight


def test_a_tied_table_is_one_parameter_and_learns_from_both_ends() -> None:
    model = decoder(head=TiedHead)
    assert is_tied(model)
    untied = sum(p.numel() for p in decoder().parameters())
    assert sum(p.numel() for p in model.parameters()) == untied - VOCAB * DIM
    model(torch.zeros(1, 3, dtype=torch.long))[..., 7].sum().backward()
    gradient = model.token_embedding.weight.grad
    assert gradient[0].abs().max() > 0, "read"
    assert gradient[7].abs().max() > 0, "written"
    assert gradient[3].abs().max() == 0


def test_a_tied_table_stays_tied() -> None:
    model = decoder(head=TiedHead)
    assert is_tied(copy.deepcopy(model))
    assert is_tied(pickle.loads(pickle.dumps(model)))
    assert is_tied(copy.deepcopy(model).double())
    fresh = decoder(head=TiedHead)
    fresh.load_state_dict(model.state_dict())
    assert is_tied(fresh)
    tokens = torch.randint(0, VOCAB, (2, 7))
    assert torch.equal(fresh(tokens), model(tokens))


def score(head: HeadFactory) -> list[float]:
    """Return a head's scores of tokens whose products with the hidden state are -2, 0 and 4."""
    embedding = nn.Embedding(3, 1)
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[-1.0], [0.0], [2.0]]))
    return head(embedding)(torch.tensor([[[2.0]]])).flatten().tolist()


def test_soft_cap_head() -> None:
    expected = [3 * math.tanh(-2 / 3), 0.0, 3 * math.tanh(4 / 3)]
    assert score(partial(SoftCapHead, head=TiedHead, cap=3.0)) == pytest.approx(expected)


def test_sigmoid_cap_head() -> None:
    # The speedruns' numbers are the defaults.
    expected = [23 / (1 + math.exp(-(logit + 5) / 7.5)) for logit in (-2, 0, 4)]
    assert score(partial(SigmoidCapHead, head=TiedHead)) == pytest.approx(expected)


def test_sig_softmax() -> None:
    found = torch.tensor(score(partial(SigSoftmax, head=TiedHead))).softmax(dim=-1).tolist()
    weights = [math.exp(logit) / (1 + math.exp(-logit)) for logit in (-2, 0, 4)]
    assert found == pytest.approx([weight / sum(weights) for weight in weights])


def test_mixture_of_softmaxes_mixes_probabilities() -> None:
    embedding = nn.Embedding(5, 3)
    head = MixtureOfSoftmaxes(embedding, head=TiedHead, num_mixtures=2)
    x = torch.randn(1, 2, 3)
    probabilities = head(x).exp()
    for n in range(2):
        prior = (head.to_prior.weight @ x[0, n]).softmax(dim=-1)
        vectors = [(head.to_vectors.weight[3 * m : 3 * m + 3] @ x[0, n]).tanh() for m in range(2)]
        expected = sum(prior[m] * (embedding.weight @ vectors[m]).softmax(dim=-1) for m in range(2))
        torch.testing.assert_close(probabilities[0, n], expected)
    assert probabilities.sum(dim=-1).tolist() == [pytest.approx([1.0, 1.0])]


def test_a_mixture_has_a_higher_rank_than_one_softmax() -> None:
    """Log-probabilities of one softmax have at most the rank of the hidden state, 2, and 1 for their sums."""
    torch.manual_seed(1)
    x, embedding = torch.randn(1, 20, 2, dtype=torch.float64), nn.Embedding(11, 2).double()
    for head, rank in ((TiedHead(embedding), 3), (MixtureOfSoftmaxes(embedding, head=TiedHead).double(), 11)):
        log_probabilities = head(x)[0].log_softmax(dim=-1)
        assert (torch.linalg.svdvals(log_probabilities) > 1e-9).sum() == rank


@pytest.mark.parametrize("head", [SoftCapHead, SigmoidCapHead, SigSoftmax, MixtureOfSoftmaxes])
def test_heads_around_a_tied_head_stay_tied(head: type) -> None:
    model = decoder(head=partial(head, head=TiedHead))
    assert copy.deepcopy(model).head.head.weight is not model.head.head.weight
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.head.head.weight is again.token_embedding.weight


@pytest.mark.parametrize(
    ("head", "options", "rule"),
    [
        (SoftCapHead, {"cap": 0.0}, "cap 0.0, which must be above 0"),
        (TiedHead, {"scale": -1.0}, "scale -1.0, which must be above 0"),
        (SigmoidCapHead, {"limit": -1.0}, "limit -1.0, which must be above 0"),
        (SigmoidCapHead, {"width": 0.0}, "width 0.0, which must be above 0"),
        (MixtureOfSoftmaxes, {"num_mixtures": 1}, "num_mixtures 1, which must be at least 2"),
    ],
)
def test_heads_refuse_options_outside_their_range(head: type, options: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=f"head: {head.__name__} has {rule}"):
        head(nn.Embedding(5, 3), **options)
