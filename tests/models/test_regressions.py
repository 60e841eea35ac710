"""Regressions, each with the numbers that showed the error."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from catalogue import VOCAB, attention, crop, decoder, example, randomise

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.engine import generate
from lightning_xt.nn.embeddings.type_embedding import TypeEmbedding
from lightning_xt.nn.positions.alibi import ALiBi
from lightning_xt.nn.positions.rotary import Rotary


def feed(cache: Cache, n: int, window: int | None = None) -> None:
    rows = cache.lengths.shape[0]
    cache.begin(n)
    cache[0].append("x", torch.zeros(rows, n, 1), window=window)
    cache.commit()


@pytest.mark.parametrize("between", [0, 1])
def test_truncations_of_a_window_add_up(between: int) -> None:
    """Several truncations count together: two of them exceeded the slack, and needed keys were overwritten."""
    cache = Cache(1, 20, calls=1, slack=2)
    for _ in range(9):
        feed(cache, 1, window=3)
    cache.truncate(7)
    for _ in range(between):
        feed(cache, 1, window=3)
    with pytest.raises(ValueError, match="cannot remove"):
        cache.truncate(6 - 1 + between - 1)


def test_taking_back_row_by_row_frees_the_capacity() -> None:
    cache = Cache(1, 8, calls=1)
    for _ in range(7):
        feed(cache, 2)
        cache.truncate(cache.lengths - 1)
    assert cache.lengths.tolist() == [7]


def test_short_rows_of_a_window_are_not_taken_back() -> None:
    """A short row is not truncated: it was counted as if its tokens had been taken back."""
    cache = Cache(2, 100, calls=1, slack=4)
    cache.begin(40, torch.tensor([40, 20]))
    cache[0].append("x", torch.zeros(2, 40, 1), window=3)
    cache.commit()
    feed(cache, 1, window=3)
    cache.truncate(cache.lengths - 1)
    assert cache.lengths.tolist() == [40, 20]


def test_a_cache_keeps_no_negative_number_of_tokens() -> None:
    with pytest.raises(ValueError, match="cannot keep -1 tokens; give 0 or more"):
        Cache(1, 8, calls=1).truncate(-1)


def test_a_document_number_that_comes_back_is_another_document() -> None:
    model = randomise(decoder)
    tokens, _ = example(1, 5)
    inputs = Inputs(documents=torch.tensor([[0, 0, 1, 0, 0]]))
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCAB
    torch.testing.assert_close(model(tokens, inputs=inputs)[:, :3], model(changed, inputs=inputs)[:, :3])


@pytest.mark.parametrize("name", ["documents", "hidden_tokens", "types"])
def test_a_soft_prefix_is_refused_with_inputs_by_token(name: str) -> None:
    tokens, inputs = example(1, 5)
    given = {"documents": torch.zeros_like(tokens), "hidden_tokens": tokens > 99, "types": inputs.types}
    beside = Inputs(prefix=torch.zeros(1, 2, 13), **{name: given[name]})
    with pytest.raises(ValueError, match=rf"Inputs\({name}=...\) says nothing of soft tokens; omit it"):
        randomise(decoder)(tokens, inputs=beside)


def test_new_tokens_have_the_type_of_the_last_one_read() -> None:
    model = randomise(lambda: decoder(embeddings=[TypeEmbedding]))
    tokens, _ = example(2, 5)
    types = torch.tensor([[0, 0, 1, 0, 0], [0, 1, 1, 0, 0]])
    lengths = torch.tensor([5, 3])
    new = generate(model, tokens, 3, lengths=lengths, temperature=0, inputs=Inputs(types=types))
    for row, (length, last) in enumerate(((5, 0), (3, 1))):
        text, kinds = tokens[row, :length], types[row, :length]
        for step in range(3):
            token = model(text[None], inputs=Inputs(types=kinds[None]))[0, -1].argmax()
            assert token == new[row, step]
            text, kinds = torch.cat((text, token[None])), torch.cat((kinds, torch.tensor([last])))


def test_a_visible_prefix_beyond_a_short_row_shows_no_padding() -> None:
    model = randomise(decoder)
    tokens, inputs = example(2, 7)
    lengths = torch.tensor([7, 3])
    inputs = replace(crop(inputs, slice(None)), visible_prefix=torch.tensor([5, 5]))
    cached = model(tokens, lengths=lengths, inputs=inputs, cache=model.new_cache(2, 7))
    plain = model(tokens, lengths=lengths, inputs=inputs)
    torch.testing.assert_close(cached[1, :3], plain[1, :3])


@pytest.mark.parametrize("position", [Rotary, ALiBi])
def test_constants_of_positions_stay_exact(position: type) -> None:
    """Constants stay in float32: bf16 changed them by up to 0.4 %, and meta tensors could not be moved."""
    model = decoder(attention=attention(position=position, heads=3))
    exact = [buffer.clone() for buffer in model.buffers()]
    assert exact
    assert all(torch.equal(a, b) for a, b in zip(model.bfloat16().buffers(), exact, strict=True))
    with torch.device("meta"):
        empty = decoder(attention=attention(position=position, heads=3))
    moved = empty.to_empty(device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(moved.buffers(), exact, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": partial(Rotary, base=0.0)}, "position: Rotary has base 0.0, which must be above 0"),
        ({"position": partial(Rotary, base=-2.0)}, "position: Rotary has base -2.0, which must be above 0"),
    ],
)
def test_refuses_values_without_meaning(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoder(attention=attention(**options))


def test_a_running_state_follows_its_row_and_refuses_to_go_back() -> None:
    cache = Cache(2, 8, calls=1)
    cache[0].running["state of a recurrence"] = torch.tensor([[1.0], [2.0]])
    cache.select(torch.tensor([1, 0]))
    assert cache[0].running["state of a recurrence"].tolist() == [[2.0], [1.0]]
    with pytest.raises(ValueError, match="cannot remove tokens: state of a recurrence is a running state"):
        cache.truncate(0)


def test_an_emptied_window_starts_again() -> None:
    model = randomise(lambda: decoder(attention=attention(window=3)))
    tokens, _ = example(2, 9)
    cache = model.new_cache(2, 9, slack=2)
    for t in range(8):
        model(tokens[:, [t]], cache=cache)
    cache.truncate(0)
    again = torch.cat([model(tokens[:, [t]], cache=cache) for t in range(9)], dim=1)
    torch.testing.assert_close(again, model(tokens))
