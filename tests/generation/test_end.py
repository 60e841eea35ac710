"""Decoding with an end token: each row stops separately, and decoding stops with the last."""

import pytest
import torch
from catalogue import VOCAB, decoder, randomise
from encoder_catalogue import pair, source
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.generation.engine import generate, make_requests, stream
from lightning_xt.generation.requests import SamplingParams


class Script:
    """Model that writes given rows, and counts its forwards; its cache holds the numbers of remaining rows."""

    vocab_size, max_length, recurrences = VOCAB, None, ()

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows, self.training, self.forwards = torch.tensor(rows), True, 0

    def train(self, mode: bool = True) -> "Script":
        self.training = mode
        return self

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> Cache:
        cache = Cache(batch, capacity, calls=1)
        cache[0].running["row"] = torch.arange(batch)
        return cache

    def __call__(self, tokens: Tensor, *, cache: Cache, **given: object) -> Tensor:
        self.forwards += 1
        rows = self.rows[cache[0].running["row"]]
        return torch.nn.functional.one_hot(rows[:, [self.forwards - 1]], VOCAB).double()


def end_by_hand(free: Tensor, end: int, pad: int) -> Tensor:
    """Cut generated rows at their ends and pad them, one row and one token at a time."""
    rows = [row[: row.index(end) + 1] if end in row else row for row in free.tolist()]
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])


# Given rows -----------------------------------------------------------------------------------------------------------

ROWS = [[5, 2, 7, 2, 9], [3, 4, 4, 2, 6], [2, 2, 3, 3, 3]]


@pytest.mark.parametrize("pad", [0, 8, 2])
def test_each_row_ends_on_its_own_and_is_padded(pad: int) -> None:
    model = Script(ROWS)
    out = generate(model, torch.ones(3, 2, dtype=torch.long), 5, temperature=0, end=2, pad=pad)
    assert out.tolist() == [[5, 2, pad, pad], [3, 4, 4, 2], [2, pad, pad, pad]]
    assert model.forwards == 4, "nothing is computed once all rows have ended"


def test_without_an_end_nothing_ends() -> None:
    prompt = torch.ones(3, 2, dtype=torch.long)
    assert generate(Script(ROWS), prompt, 5, temperature=0).tolist() == ROWS
    assert generate(Script(ROWS), prompt, 5, temperature=0, end=None, pad=8).tolist() == ROWS


def test_rows_that_never_end_have_all_tokens() -> None:
    out = generate(Script([[5, 2, 7], [0, 4, 0]]), torch.ones(2, 1, dtype=torch.long), 3, temperature=0, end=2)
    assert out.tolist() == [[5, 2, 0], [0, 4, 0]]


def test_an_end_in_the_prompt_counts_for_nothing() -> None:
    prompt = torch.full((3, 4), 2)
    out = generate(Script(ROWS), prompt, 5, temperature=0, end=2)
    assert out.tolist() == [[5, 2, 0, 0], [3, 4, 4, 2], [2, 0, 0, 0]]


def test_an_end_at_once_is_one_token() -> None:
    model = Script([[2, 7, 7], [2, 2, 7]])
    assert generate(model, torch.ones(2, 3, dtype=torch.long), 3, temperature=0, end=2).tolist() == [[2], [2]]
    assert model.forwards == 1


def test_a_stream_stops_when_all_rows_have_ended() -> None:
    model = Script(ROWS)
    requests = make_requests(torch.ones(3, 2, dtype=torch.long), 5)
    steps = stream(model, requests, SamplingParams(temperature=0, end=2), pad=9)
    assert [step.tolist() for step in steps] == [[5, 3, 2], [2, 4, 9], [9, 4, 9], [9, 2, 9]]
    assert model.training, "the mode is restored as soon as it stops"


def test_a_stream_that_is_left_restores_the_mode() -> None:
    model = Script(ROWS)
    requests = make_requests(torch.ones(3, 2, dtype=torch.long), 5)
    steps = stream(model, requests, SamplingParams(temperature=0, end=2))
    assert model.training, "an unread stream changes nothing"
    next(steps)
    assert not model.training
    steps.close()
    assert model.training


# Rows of a model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_is_generated_is_cut_and_not_changed(temperature: float) -> None:
    model, prompt = randomise(decoder), torch.randint(0, VOCAB, (4, 5))
    rows = {"lengths": torch.tensor([5, 2, 3, 1]), "seed": 3}
    free = generate(model, prompt, 13, temperature=temperature, **rows)
    widths = set()
    for end in range(VOCAB):
        out = generate(model, prompt, 13, temperature=temperature, end=end, pad=7, **rows)
        assert torch.equal(out, end_by_hand(free, end, 7)), end
        widths.add(out.shape[1])
        params = SamplingParams(temperature=temperature, end=end)
        steps = list(stream(model, make_requests(prompt, 13, **rows), params, pad=7))
        assert torch.equal(torch.stack(steps, dim=1), out)
    assert len(widths) > 2, "or little would be shown"


def test_a_row_alone_or_among_others() -> None:
    model, prompt = randomise(decoder), torch.randint(0, VOCAB, (4, 5))
    together = generate(model, prompt, 13, temperature=1.5, seed=3, end=4)
    for row in range(4):
        alone = generate(model, prompt[[row]], 13, temperature=1.5, seed=3 + row, end=4)[0].tolist()
        assert together[row].tolist() == alone + [0] * (together.shape[1] - len(alone))


@torch.no_grad()
def test_an_encoder_decoder_writes_its_targets_from_any_start() -> None:
    model, (src, mask) = randomise(pair), source(2, 7)
    for start in ([[1], [1]], [[1, 4, 2], [1, 2, 5]]):
        text = torch.tensor(start)
        out = generate(model.decoder, text, 9, temperature=0, inputs=model.encode(src, mask))
        for _ in range(9):
            text = torch.cat((text, model(src, text, mask)[:, -1].argmax(-1, keepdim=True)), dim=1)
        free = text[:, len(start[0]) :]
        assert torch.equal(out, free)
        assert len(free.unique()) > 2
        for end in free.unique().tolist():
            again = generate(
                model.decoder, torch.tensor(start), 9, temperature=0, inputs=model.encode(src, mask), end=end
            )
            assert torch.equal(again, end_by_hand(free, end, 0))
