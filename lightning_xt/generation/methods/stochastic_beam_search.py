from collections.abc import Mapping, Sequence
from typing import ClassVar

from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.generation.search.beams import Beams, check_beams


class StochasticBeamSearch(Method):
    """Stochastic beam search: sample sequences without replacement.

    Kool, van Hoof and Welling, 2019. https://arxiv.org/abs/1903.06059

    The first sequence is a sample from the model, the second a sample from the remaining sequences, and so on. The
    score of a sequence is its log-probability with Gumbel noise. Probabilities are taken after temperature and filters.
    The batch holds `beams` rows per request, and at least one request. A sequence is not certain before its search
    finishes, so it is returned whole; one that meets a stop string has ended.
    In x-transformers: stochastic.

    Args:
        beams: running hypotheses per request.
        n_best: sequences to return, best first; fewer if there are no more.
    """

    ranked: ClassVar = True

    def __init__(self, *, beams: int = 4, n_best: int = 1) -> None:
        check_beams("method: StochasticBeamSearch", beams, n_best)
        self.beams = self.rows_per_request = beams
        self.n_best = self.num_sequences = n_best

    def check(self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams) -> None:
        """Raise a ValueError for a temperature of 0."""
        if params.temperature == 0:
            raise ValueError(
                "temperature is 0, but method StochasticBeamSearch samples; set it above 0, or use BeamSearch"
            )

    def start(self, model: Autoregressive, requests: Mapping[int, Request], params: SamplingParams) -> Beams:
        return Beams(model, requests, params, beams=self.beams, n_best=self.n_best, stochastic=True)
