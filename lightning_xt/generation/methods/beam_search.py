from collections.abc import Mapping
from typing import ClassVar

from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.generation.search.beams import Beams, check_beams
from lightning_xt.system.option_checks import check_option


class BeamSearch(Method):
    """Beam search: keep the `beams` most likely continuations at each step.

    Length penalty: Wu et al., 2016, https://arxiv.org/abs/1609.08144, with the plain length in place of their
    (5 + length) / 6. Patience: Kasai et al., 2022, https://arxiv.org/abs/2204.05424.

    A hypothesis that ends among the best leaves the beam and is kept. A search finishes once enough hypotheses have
    ended and no running hypothesis scores better than the best `n_best` of them, or once none can become better. A
    hypothesis that reaches `max_new_tokens` counts as ended. With one beam this is greedy decoding. Probabilities
    are taken after temperature and filters and sum to 1 at each step; a temperature of 0 counts as 1, because
    nothing is sampled. The batch holds `beams` rows per request, and at least one request. A hypothesis is not
    certain before its search finishes, so it is returned whole; one that meets a stop string has ended.
    In x-transformers: beams, return_beams_and_scores.

    Args:
        beams: running hypotheses per request.
        length_penalty: a hypothesis's score is the sum of its log-probabilities divided by its length, end included,
            to this power, from 0 to 3. 0 = the sum, which favours short sequences; 1 = the mean.
        n_best: sequences to return, best first; fewer if there are no more.
        patience: factor of `beams`, the number of ended hypotheses that is enough. None = search until nothing better
            can be found, which is slower.
    """

    ranked: ClassVar = True
    uses_seed = False

    def __init__(
        self,
        *,
        beams: int = 4,
        length_penalty: int | float = 1.0,
        n_best: int = 1,
        patience: int | float | None = 1.0,
    ) -> None:
        check_beams("method: BeamSearch", beams, n_best)
        check_option("method: BeamSearch", "length_penalty", length_penalty, least=0, most=3)
        check_option("method: BeamSearch", "patience", patience, above=0)
        self.beams = self.rows_per_request = beams
        self.n_best = self.num_sequences = n_best
        self.length_penalty, self.patience = length_penalty, patience

    def start(self, model: Autoregressive, requests: Mapping[int, Request], params: SamplingParams) -> Beams:
        return Beams(
            model,
            requests,
            params,
            beams=self.beams,
            n_best=self.n_best,
            length_penalty=self.length_penalty,
            patience=self.patience,
        )
