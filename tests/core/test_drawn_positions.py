"""Positions that are drawn in training."""

from functools import partial

import pytest
import torch
from catalogue import VOCAB, attention, decoder, example, randomise
from torch import Tensor

from lightning_xt.core.drawn_positions import draw_positions
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.where import Where
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.embeddings.randomized_embedding import RandomizedEmbedding
from lightning_xt.nn.positions.contextual import Contextual
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.positions.randomized_positions import RandomizedPositions
from lightning_xt.nn.positions.relative_bias import RelativeBias
from lightning_xt.nn.positions.rotary import Rotary

RANDOMIZED = partial(RandomizedPositions, num_positions=100)


def where(n: int, inputs: Inputs) -> Where:
    return Where.from_sequence(n, causal=True, inputs=inputs, lengths=None, device=torch.device("cpu"))


def test_draws_are_sorted_distinct_and_the_same_in_all_layers() -> None:
    given = where(7, Inputs())
    drawn = draw_positions(given, 20, "x")
    assert drawn.end == 20 and drawn.queries.equal(drawn.keys)
    assert (drawn.queries.diff() > 0).all() and drawn.queries.min() >= 0 and drawn.queries.max() < 20
    assert draw_positions(given.limit_window(3), 20, "x").queries.equal(drawn.queries)
    assert given.queries.equal(torch.arange(7)[None])
    assert draw_positions(where(20, Inputs()), 20, "x").queries.equal(torch.arange(20)[None])


def test_documents_restart_and_positions_of_the_caller_stay() -> None:
    drawn = draw_positions(where(5, Inputs(documents=torch.tensor([[0, 0, 0, 1, 1]]))), 50, "x").queries[0]
    assert drawn[3:].equal(drawn[:2])
    own = Inputs(positions=torch.tensor([[4, 9, 2]]))
    assert draw_positions(where(3, own), 50, "x").queries.equal(own.positions)


def test_more_tokens_than_positions_are_refused() -> None:
    model = decoder(attention=attention(position=partial(RandomizedPositions, num_positions=4))).train()
    tokens, _ = example(1, 5)
    with pytest.raises(
        ValueError, match="position: RandomizedPositions has num_positions 4, but the sequence is 5 tokens"
    ):
        model(tokens)
    assert model.eval()(tokens).isfinite().all()
    with pytest.raises(
        ValueError, match="embeddings: RandomizedEmbedding has num_positions 9, but LearnedPositions dist"
    ):
        decoder(
            embeddings=[
                partial(RandomizedEmbedding, num_positions=9, embedding=partial(LearnedPositions, max_length=8))
            ]
        )


def run(model: Decoder, seed: int) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(example(2, 7)[0])


@pytest.mark.parametrize("inner", [Rotary, RelativeBias, Forgetting, Contextual])
def test_training_has_drawn_positions_and_evaluation_plain_ones(inner: type) -> None:
    model = randomise(lambda: decoder(attention=attention(position=partial(RANDOMIZED, position=inner))))
    plain = randomise(lambda: decoder(attention=attention(position=inner)))
    assert run(model, 1).equal(run(plain, 1))
    model.train()
    assert run(model, 1).equal(run(model, 1)), "one seed, other draws"
    # Those that only count tokens do not read positions.
    assert (run(model, 1) - run(model, 2)).abs().max() > 1e-6 or inner in (Forgetting, Contextual)


def test_one_forward_draws_once() -> None:
    """In a model of several layers, with an embedding, products are those of one set of draws given by the caller."""
    learned = partial(LearnedPositions, max_length=100)
    embedding = partial(RandomizedEmbedding, num_positions=100, embedding=learned)
    model = randomise(
        lambda: decoder(depth=3, attention=attention(position=RANDOMIZED), embeddings=[embedding])
    ).train()
    plain = randomise(lambda: decoder(depth=3, attention=attention(), embeddings=[learned]))
    torch.manual_seed(3)
    at = torch.randperm(100)[:7].sort().values[None]
    tokens = torch.randint(0, VOCAB, (1, 7))
    torch.manual_seed(3)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), plain(tokens, inputs=Inputs(positions=at)))
