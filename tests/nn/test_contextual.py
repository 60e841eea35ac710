"""Contextual positions against the paper's algorithm, one pair at a time."""

import math

import pytest
import torch
from catalogue import attention, decoder, example, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape
from lightning_xt.core.where import Where
from lightning_xt.nn.positions.contextual import Contextual


def test_counts_gates_from_the_key_to_the_query_and_interpolates() -> None:
    torch.manual_seed(3)
    n, dim_head, table_size = 5, 6, 3
    position = Contextual(AttentionShape(dim=12, heads=2, kv_heads=2, dim_head=dim_head), max_position=table_size)
    position = position.double()
    position.table = torch.nn.Parameter(torch.randn(dim_head, table_size).double(), requires_grad=False)
    q, scores = torch.randn(1, 2, n, dim_head).double(), 2 * torch.randn(1, 2, n, n).double()
    where = Where.from_sequence(n, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu"))
    added = position.pairwise(scores, q, torch.zeros_like(q), where, None, 1.0)
    for h in range(2):
        for i in range(n):
            for j in range(i + 1):
                p = sum(1 / (1 + math.exp(-scores[0, h, i, t])) for t in range(j, i + 1))
                p = min(p, table_size - 1)
                known = [float(q[0, h, i] @ position.table[:, whole]) for whole in (math.floor(p), math.ceil(p))]
                expected = known[0] + (p - math.floor(p)) * (known[1] - known[0])
                assert added[0, h, i, j].item() == pytest.approx(expected)


def test_an_untrained_table_adds_nothing() -> None:
    tokens, inputs = example(2, 7)
    with_positions = randomise(lambda: decoder(attention=attention(position=Contextual)))
    without = randomise(lambda: decoder(attention=attention(position=None)))
    without.load_state_dict({k: v for k, v in with_positions.state_dict().items() if "position" not in k})
    for name, parameter in with_positions.named_parameters():
        if "position" in name:
            torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(with_positions(tokens, inputs=inputs), without(tokens, inputs=inputs))


def test_needs_a_table() -> None:
    with pytest.raises(ValueError, match="position: Contextual has max_position 0, which must be at least 1"):
        Contextual(AttentionShape(dim=12, heads=2, kv_heads=2, dim_head=6), max_position=0)
