from collections.abc import Mapping, Sequence
from typing import ClassVar

from lightning_xt.generation.batching.scheduler import Scheduler
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams


class Sample(Method):
    """Sample one token after the other, or take the most likely if the temperature is 0.

    Finished requests make room for waiting ones (Yu et al., 2022, Orca,
    https://www.usenix.org/conference/osdi22/presentation/yu), so that short sequences do not wait for long ones.
    """

    rereads_prefix: ClassVar = False

    def group(self, requests: Sequence[Request], params: SamplingParams) -> list[list[int]]:
        """Return one group of all requests; the scheduler admits them."""
        return [list(range(len(requests)))] if requests else []

    def start(self, model: Autoregressive, requests: Mapping[int, Request], params: SamplingParams) -> Scheduler:
        longest = max(request.total_length for request in requests.values())
        scheduler = Scheduler(model, rows=params.batch, tokens=longest, window=params.window)
        for number, request in requests.items():
            scheduler.submit(number, request, params)
        return scheduler
