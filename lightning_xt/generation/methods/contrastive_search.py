from collections.abc import Callable, Generator, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.prefill import read_prompts
from lightning_xt.generation.batching.request_groups import batches
from lightning_xt.generation.batching.row_inputs import count_soft_tokens, stack_inputs, step_inputs
from lightning_xt.generation.batching.row_state import RowState, filter_logits, upcast
from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive, DecodingCache
from lightning_xt.generation.request_checks import check_requests
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.system.option_checks import check_option

Head = Callable[[Tensor], Tensor]


@runtime_checkable
class GivesStates(Autoregressive, Protocol):
    """A model that also gives the vectors which its head turns into logits."""

    def states(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ D"]: ...


class ContrastiveSearch(Method):
    """Goes on with the one of a few likely words that is least like what is there: it is likely, but no repetition.

    Su et al., 2022. https://arxiv.org/abs/2202.06417
    A word's score is (1 - alpha) times its probability less alpha times the largest cosine of its vector and those of
    all tokens before it, of the prompt too; a token's vector is what the head makes logits of. Probabilities are those
    after temperature and filters; a temperature of 0 counts as 1, as there is nothing to draw. The rows decoded at once
    are words times texts, one text at least.

    Args:
        k: likeliest words among which one is chosen.
        alpha: weight of likeness, from 0 to 1; 0 is greedy decoding.
    """

    needs_hidden_states: ClassVar = True
    draws = False

    def __init__(self, *, k: int = 4, alpha: int | float = 0.6) -> None:
        check_option("method: ContrastiveSearch", "k", k, least=1)
        if not 0 <= alpha <= 1:
            raise ValueError(f"method: ContrastiveSearch has alpha {alpha}, which must be from 0 to 1")
        self.k, self.alpha = k, alpha

    def __call__(
        self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        check_requests(model, requests, choices)
        head = getattr(model, "head", None)
        if not isinstance(model, GivesStates) or not callable(head):
            raise ValueError(
                f"method ContrastiveSearch compares the vectors of tokens, and a {type(model).__name__} gives none; "
                "use it with a Decoder by itself, or choose another method"
            )
        return self._written(model, head, requests, choices)

    def _written(
        self, model: GivesStates, head: Head, requests: Sequence[Request], choices: SamplingParams
    ) -> Generator[GeneratedToken, None, None]:
        with eval_mode(model):
            for numbers in batches(requests, max(1, choices.batch // self.k)):
                # Entered anew each time: whoever reads the tokens does so outside inference mode.
                with torch.inference_mode():
                    together = {number: requests[number] for number in numbers}
                    texts = _Texts(model, head, together, choices, k=self.k, alpha=self.alpha)
                while texts.busy:
                    with torch.inference_mode():
                        heard = texts.advance()
                    yield from heard


class _Texts:
    """Texts that are written side by side, all of which begin at once.

    Row r of the model's memory is of word r % k of text r // k. All words are read before one is chosen; then what is
    remembered of that one takes the place of the others.
    """

    def __init__(
        self,
        model: GivesStates,
        head: Head,
        requests: Mapping[int, Request],
        choices: SamplingParams,
        *,
        k: int,
        alpha: int | float,
    ) -> None:
        self.model, self.head, self.choices = model, head, choices
        self.k, self.alpha = min(k, model.vocab_size), alpha
        self.requests, self.drawn = dict(requests), 0
        own = list(requests.values())
        width, longest = max(len(request.prompt) for request in own), max(request.max_new_tokens for request in own)
        self.rows = RowState.of(own, width + longest)
        capacity = count_soft_tokens(own[0].inputs) + width + longest
        self.memory = model.new_cache(len(own), capacity, window=choices.window)
        states = read_prompts(model.states, own, self.memory, last_only=False)
        self.memory.repeat(self.k)
        self._inputs = self._step_inputs()
        self.newest = states[torch.arange(len(own), device=states.device), self.rows.prompts - 1]
        self.past = functional.pad(_directions(states), (0, 0, 0, longest))

    @property
    def busy(self) -> bool:
        """Whether there is anything left to write."""
        return bool(self.requests)

    def advance(self) -> list[GeneratedToken]:
        """Chooses the next token of each text."""
        rows, k = self.rows, self.k
        each = torch.arange(len(self.requests), device=rows.lengths.device)
        logits = upcast(self.head(self.newest[:, None])[:, -1])
        probabilities = filter_logits(logits, rows.history(self.choices.end), self.choices).softmax(dim=-1)
        shares, words = probabilities.topk(k)
        states = self.model.states(words.view(-1, 1), inputs=self._inputs, cache=self.memory, last_only=True)
        states = states.view(len(each), k, -1)
        choice = self._scores(shares, _directions(states)).argmax(dim=-1)
        token = words[each, choice]
        log_probs = logits[each, token] - logits.logsumexp(dim=-1)
        self.newest = states[each, choice]
        self.past[each, rows.lengths] = _directions(self.newest)
        rows.tokens[each, rows.lengths] = token
        rows.lengths, rows.newest = rows.lengths + 1, token
        self.drawn += 1
        heard = self._hear(token.tolist(), log_probs.tolist())
        self._remember(choice, [at for at, drawn in enumerate(heard) if not drawn.last])
        return heard

    def _scores(self, shares: Float[Tensor, "b k"], directions: Float[Tensor, "b k D"]) -> Float[Tensor, "b k"]:
        unknown = ~self.rows.history(None).past
        likeness = (directions @ self.past.mT).masked_fill(unknown[:, None], float("-inf")).amax(dim=-1)
        scores = (1 - self.alpha) * shares - self.alpha * likeness
        # What a filter rules out is no candidate, even where fewer than k are left.
        return scores.masked_fill(shares == 0, float("-inf"))

    def _hear(self, tokens: Sequence[int], log_probs: Sequence[float]) -> list[GeneratedToken]:
        heard = []
        for (number, request), token, log_prob in zip(self.requests.items(), tokens, log_probs, strict=True):
            stopped = self.choices.stop is not None and self.choices.stop(number, token)
            last = stopped or token == self.choices.end or self.drawn == request.max_new_tokens
            heard.append(GeneratedToken(number, token, log_prob, last))
        return heard

    def _remember(self, choice: Int[Tensor, " b"], kept: Sequence[int]) -> None:
        """Goes on from the chosen words, with these texts alone."""
        fewer = len(kept) < len(self.requests)
        numbers = list(self.requests)
        self.requests = {numbers[at]: self.requests[numbers[at]] for at in kept}
        if not kept:
            return
        texts = torch.tensor(kept, device=choice.device)
        order = (texts * self.k + choice[texts]).repeat_interleave(self.k)
        if fewer:
            self.memory.select(order)
            self.rows.select(texts)
            self.newest, self.past = self.newest[texts], self.past[texts]
            self._inputs = self._step_inputs()
        else:
            self.memory.reorder(order)

    def _step_inputs(self) -> Inputs | None:
        return stack_inputs([step_inputs(request.inputs) for request in self.requests.values() for _ in range(self.k)])


def _directions(states: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
    """Vectors of length 1, whose products are cosines."""
    return functional.normalize(upcast(states), dim=-1)
