from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lightning_xt.generation.batching.prefill import prefill
from lightning_xt.generation.batching.row_inputs import stack_step_inputs
from lightning_xt.generation.batching.row_state import RowState, compute_log_probs, filter_logits, upcast
from lightning_xt.generation.methods.base import Method
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.system.option_checks import check_option


@runtime_checkable
class ReturnsStates(Autoregressive, Protocol):
    """Model that also returns the hidden states from which its `head` makes logits.

    `head` is not a member: from Python 3.12 on, isinstance with a protocol overlooks submodules.
    """

    @property
    def compute_states(self) -> Callable[..., Float[Tensor, "b _ D"]]:
        """Method that returns hidden states, with the arguments of the model."""


class ContrastiveSearch(Method):
    """Contrastive search: of a few likely tokens, take the one least similar to the sequence so far.

    Su et al., 2022. https://arxiv.org/abs/2202.06417
    A token's score is (1 - alpha) times its probability minus alpha times the largest cosine between its hidden state
    and those of all tokens before it, prompt included; the hidden state is the input of the head. Probabilities are
    taken after temperature and filters; a temperature of 0 counts as 1, because nothing is sampled. The batch holds `k`
    rows per request, and at least one request.

    Args:
        k: most likely tokens that are compared.
        alpha: weight of the similarity, from 0 to 1; 0 is greedy decoding.
    """

    needs_hidden_states: ClassVar = True
    uses_seed = False

    def __init__(self, *, k: int = 4, alpha: int | float = 0.6) -> None:
        check_option("method: ContrastiveSearch", "k", k, least=1)
        check_option("method: ContrastiveSearch", "alpha", alpha, least=0, most=1)
        self.k = self.rows_per_request = k
        self.alpha = alpha

    def check(self, model: Autoregressive, requests: Sequence[Request], params: SamplingParams) -> None:
        """Raise a ValueError for a model that returns no hidden states."""
        _require_states(model)

    def start(
        self, model: Autoregressive, requests: Mapping[int, Request], params: SamplingParams
    ) -> "_ContrastiveRun":
        return _ContrastiveRun(_require_states(model), requests, params, k=self.k, alpha=self.alpha)


class _ContrastiveRun:
    """Sequences being decoded together.

    Row r of the cache is candidate r % k of sequence r // k. All candidates are run before one is chosen; then its
    cache row replaces the others.
    """

    def __init__(
        self,
        model: ReturnsStates,
        requests: Mapping[int, Request],
        params: SamplingParams,
        *,
        k: int,
        alpha: int | float,
    ) -> None:
        self.model, self.params = model, params
        self.head: Callable[[Tensor], Tensor] = model.head  # type: ignore[attr-defined]
        self.k, self.alpha = min(k, model.vocab_size), alpha
        self.requests, self.generated = dict(requests), 0
        own = list(requests.values())
        width, longest = max(len(request.prompt) for request in own), max(request.max_new_tokens for request in own)
        self.rows = RowState.from_requests(own, width + longest)
        capacity = own[0].num_soft_tokens + width + longest
        self.cache = model.new_cache(len(own), capacity, window=params.window)
        states = prefill(model.compute_states, own, self.cache, last_only=False)
        self.cache.repeat(self.k)
        self._inputs = stack_step_inputs(self.requests.values(), self.k)
        self.newest = states[torch.arange(len(own), device=states.device), self.rows.prompts - 1]
        self.past = functional.pad(_normalize(states), (0, 0, 0, longest))

    @property
    def busy(self) -> bool:
        return bool(self.requests)

    def advance(self) -> list[GeneratedToken]:
        """Choose the next token of each sequence."""
        rows, k = self.rows, self.k
        each = torch.arange(len(self.requests), device=rows.lengths.device)
        logits = upcast(self.head(self.newest[:, None])[:, -1])
        filtered = filter_logits(logits, rows.make_history(self.params), self.params)
        probabilities, candidates = filtered.softmax(dim=-1).topk(k)
        states = self.model.compute_states(
            candidates.view(-1, 1), inputs=self._inputs, cache=self.cache, last_only=True
        )
        states = states.view(len(each), k, -1)
        choice = self._score(probabilities, _normalize(states)).argmax(dim=-1)
        token = candidates[each, choice]
        log_probs = compute_log_probs(logits, filtered, token)
        self.newest = states[each, choice]
        self.past[each, rows.lengths] = _normalize(self.newest)
        rows.tokens[each, rows.lengths] = token
        rows.lengths, rows.newest = rows.lengths + 1, token
        self.generated += 1
        tokens = self._collect(token.tolist(), log_probs.tolist())
        self._keep(choice, [at for at, each_token in enumerate(tokens) if not each_token.last])
        return tokens

    def _score(self, probabilities: Float[Tensor, "b k"], directions: Float[Tensor, "b k D"]) -> Float[Tensor, "b k"]:
        unknown = ~self.rows.make_history(self.params).past
        similarity = (directions @ self.past.mT).masked_fill(unknown[:, None], float("-inf")).amax(dim=-1)
        scores = (1 - self.alpha) * probabilities - self.alpha * similarity
        # Masked tokens are excluded, even if fewer than k are left.
        return scores.masked_fill(probabilities == 0, float("-inf"))

    def _collect(self, tokens: Sequence[int], log_probs: Sequence[float]) -> list[GeneratedToken]:
        collected = []
        for (number, request), token, log_prob in zip(self.requests.items(), tokens, log_probs, strict=True):
            last = self.params.ends(number, token) or self.generated == request.max_new_tokens
            collected.append(GeneratedToken(number, token, log_prob, last))
        return collected

    def _keep(self, choice: Int[Tensor, " b"], kept: Sequence[int]) -> None:
        """Continue from the chosen candidates, with only the kept sequences."""
        fewer = len(kept) < len(self.requests)
        numbers = list(self.requests)
        self.requests = {numbers[at]: self.requests[numbers[at]] for at in kept}
        if not kept:
            return
        sequences = torch.tensor(kept, device=choice.device)
        order = (sequences * self.k + choice[sequences]).repeat_interleave(self.k)
        if fewer:
            self.cache.select(order)
            self.rows.select(sequences)
            self.newest, self.past = self.newest[sequences], self.past[sequences]
            self._inputs = stack_step_inputs(self.requests.values(), self.k)
        else:
            self.cache.reorder(order)


def _require_states(model: Autoregressive) -> ReturnsStates:
    if not isinstance(model, ReturnsStates) or not callable(getattr(model, "head", None)):
        raise ValueError(
            f"method ContrastiveSearch compares hidden states, and a {type(model).__name__} returns none; use it with "
            "a Decoder, or choose another method"
        )
    return model


def _normalize(states: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
    """Scale vectors to length 1, so that their products are cosines."""
    return functional.normalize(upcast(states), dim=-1)
