"""Heads: products by hand, and a tied table."""

import copy
import pickle

import pytest
import torch
from catalogue import DIM, VOCAB, decoder
from torch import nn

from lightning_xt.models.decoder import Decoder
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
