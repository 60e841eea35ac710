"""Previous tokens by hand."""

import pytest
import torch
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.previous_tokens import get_previous
from lightning_xt.core.where import Where


def where(n: int, inputs: Inputs) -> Where:
    return Where.from_sequence(n, causal=True, inputs=inputs, lengths=None, device=torch.device("cpu"))


def rows(*numbers: list[float]) -> Tensor:
    """Return vectors of one feature, a row for each list."""
    return torch.tensor(numbers)[..., None]


def test_tokens_before_each_token() -> None:
    one, two, three = get_previous(rows([1.0, 2.0, 3.0, 4.0, 5.0]), where(5, Inputs()), None, "x", 3)
    assert one[0, :, 0].tolist() == [0, 1, 2, 3, 4]
    assert two[0, :, 0].tolist() == [0, 0, 1, 2, 3]
    assert three[0, :, 0].tolist() == [0, 0, 0, 1, 2]


def test_documents_and_masked_tokens_pass_nothing_on() -> None:
    x = rows([1.0, 2.0, 3.0, 4.0, 5.0])
    inputs = Inputs(documents=torch.tensor([[7, 7, 7, 3, 3]]))
    one, two = get_previous(x, where(5, inputs), None, "x", 2)
    assert (one[0, :, 0].tolist(), two[0, :, 0].tolist()) == ([0, 1, 2, 0, 4], [0, 0, 1, 0, 0])
    inputs = Inputs(hidden_tokens=torch.tensor([[False, True, False, False, False]]))
    one, two = get_previous(x, where(5, inputs), None, "x", 2)
    assert (one[0, :, 0].tolist(), two[0, :, 0].tolist()) == ([0, 1, 0, 3, 4], [0, 0, 1, 0, 3])


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("window", [None, 1])
def test_a_cache_keeps_what_the_next_token_looks_back_to(heads: int, window: int | None) -> None:
    """Rows of other lengths, a truncation and a window of one token: the last three are still there."""
    cache = Cache(2, 20, calls=1, slack=2, window=window)

    def feed(numbers: Tensor, lengths: list[int] | None = None) -> list[list[list[float]]]:
        cache.begin(numbers.shape[1], None if lengths is None else torch.tensor(lengths))
        x = numbers[:, None].expand(-1, heads, -1, -1)
        before = get_previous(x, Where.from_cache(cache, Inputs()), cache[0], "x", 3)
        cache.commit()
        return [each[:, -1, :, 0].tolist() for each in before]

    feed(rows([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 0.0, 0.0]), [4, 2])
    assert feed(rows([9.0], [9.0])) == [[[4], [6]], [[3], [5]], [[2], [0]]]
    cache.truncate(torch.tensor([4, 2]))
    assert feed(rows([7.0, 8.0], [7.0, 8.0])) == [[[4, 7], [6, 7]], [[3, 4], [5, 6]], [[2, 3], [0, 5]]]
    for _ in range(3):
        feed(rows([0.0], [0.0]))
    assert feed(rows([1.0], [2.0])) == [[[0], [0]]] * 3
