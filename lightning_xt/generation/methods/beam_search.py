from collections.abc import Generator, Sequence
from typing import ClassVar

import torch

from lightning_xt.generation.batching.request_groups import batches
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.request_checks import check_requests
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.generation.search.beams import Beams
from lightning_xt.system.option_checks import check_option


class BeamSearch(Method):
    """Looks for the likeliest texts: at each step the best so many of all ways to go on are kept.

    Length penalty: Wu et al., 2016, https://arxiv.org/abs/1609.08144, with the plain length where they have
    (5 + length) / 6. Patience: Kasai et al., 2022, https://arxiv.org/abs/2204.05424. Stochastic beams: Kool, van Hoof
    and Welling, 2019, https://arxiv.org/abs/1903.06059.

    A text that ends among the best leaves the beam and is kept. A search is over once enough texts have ended, or no
    text that is followed can become better than those that have. A text that reaches its length counts as ended. With
    one beam it is greedy decoding. Probabilities are those after temperature and filters, each step's summing to 1; a
    temperature of 0 counts as 1, as there is nothing to draw. The rows decoded at once are beams times texts, one text
    at least. A text is not certain before its search is over, so it comes whole; `SamplingParams.stop` is ignored.

    Args:
        beams: texts that are followed at a time.
        length_penalty: a text's score is the sum of its log-probabilities divided by its length, end included, to the
            power of this. 0 = the sum, which favours short texts; 1 = the mean. Of stochastic beams it changes nothing.
        n_best: texts to give, the best first; fewer where no more are possible.
        patience: times beams, the texts that must end before the search does. None = it goes on while anything better
            can be found, which takes longer. Of stochastic beams it changes nothing.
        stochastic: draw texts, no two alike, rather than look for the likeliest: the first is a draw from the model,
            the next one a draw from what remains, and so on. Their score is the log-probability with its Gumbel noise.
    """

    ranked: ClassVar = True

    def __init__(
        self,
        *,
        beams: int = 4,
        length_penalty: int | float = 1.0,
        n_best: int = 1,
        patience: int | float | None = 1.0,
        stochastic: bool = False,
    ) -> None:
        where = "method: BeamSearch"
        check_option(where, "beams", beams, least=1)
        check_option(where, "n_best", n_best, least=1)
        check_option(where, "length_penalty", length_penalty, least=0)
        if patience is not None:
            check_option(where, "patience", patience, above=0)
        if n_best > beams:
            raise ValueError(
                f"{where} has n_best {n_best}, but only {beams} beams; ask for at most as many texts, or for more beams"
            )
        self.beams, self.n_best = beams, n_best
        self.length_penalty, self.patience, self.stochastic = length_penalty, patience, stochastic
        self.draws = stochastic

    @property
    def sequences(self) -> int:
        return self.n_best

    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        check_requests(model, requests, choices)
        if self.stochastic and choices.temperature == 0:
            raise ValueError(
                "temperature is 0, but the stochastic beams of method BeamSearch are drawn; give a temperature above "
                "0, or set stochastic to false"
            )
        return self._found(model, requests, choices)

    def _found(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        with eval_mode(model):
            for numbers in batches(requests, max(1, choices.batch // self.beams)):
                texts = {number: requests[number] for number in numbers}
                # Entered anew each time: whoever reads the tokens does so outside inference mode.
                with torch.inference_mode():
                    search = Beams(
                        model,
                        texts,
                        choices,
                        beams=self.beams,
                        n_best=self.n_best,
                        length_penalty=self.length_penalty,
                        patience=self.patience,
                        stochastic=self.stochastic,
                    )
                while search.busy:
                    with torch.inference_mode():
                        heard = search.advance()
                    yield from heard
