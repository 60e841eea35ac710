"""Which requests are decoded together by methods that take up no new ones meanwhile."""

from collections.abc import Sequence
from itertools import groupby

from lightning_xt.generation.batching.row_inputs import count_soft_tokens
from lightning_xt.generation.requests import Request


def batches(requests: Sequence[Request], size: int) -> list[list[int]]:
    """Numbers of requests that are decoded together: of about the same length, so that little is done in vain.

    Args:
        requests: in any order.
        size: the most of them in a batch.
    """

    def alike(number: int) -> tuple[int, int, int]:
        request = requests[number]
        return count_soft_tokens(request.inputs), len(request.prompt), request.max_new_tokens

    together = []
    for _, group in groupby(sorted(range(len(requests)), key=alike), lambda number: alike(number)[0]):
        numbers = list(group)
        together += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return together
