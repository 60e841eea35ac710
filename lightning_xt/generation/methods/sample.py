from collections.abc import Generator, Sequence
from typing import ClassVar

import torch

from lightning_xt.generation.batching.scheduler import Scheduler
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.request_checks import check_requests
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams


class Sample(Method):
    """Draws one token after the other, or takes the likeliest where the temperature is 0.

    Texts that end make room for those that wait (Yu et al., 2022, Orca,
    https://www.usenix.org/conference/osdi22/presentation/yu), so that short ones do not wait for long ones.
    """

    rereads_prefix: ClassVar = False

    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        check_requests(model, requests, choices)
        return _drawn(model, requests, choices)


def _drawn(
    model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
) -> Generator[GeneratedToken, None, None]:
    if not requests:
        return
    with eval_mode(model):
        slots = Scheduler(model, requests, choices)
        while slots.busy:
            # Entered anew each time: whoever reads the tokens does so outside inference mode.
            with torch.inference_mode():
                heard = slots.advance()
            yield from heard
