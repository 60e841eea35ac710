"""Groups of requests for methods that admit no new requests while they decode."""

from collections.abc import Sequence
from itertools import groupby

from lightning_xt.generation.batching.row_inputs import count_soft_tokens
from lightning_xt.generation.requests import Request


def group_requests(requests: Sequence[Request], size: int) -> list[list[int]]:
    """Return numbers of requests to decode together: requests of similar lengths, to waste little on padding.

    Args:
        requests: in any order.
        size: most requests per group.
    """

    def sort_key(number: int) -> tuple[int, int, int]:
        request = requests[number]
        return count_soft_tokens(request.inputs), len(request.prompt), request.max_new_tokens

    groups = []
    for _, same in groupby(sorted(range(len(requests)), key=sort_key), lambda number: sort_key(number)[0]):
        numbers = list(same)
        groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return groups
