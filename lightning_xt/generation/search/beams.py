"""Beam search over a group of requests."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from lightning_xt.generation.batching.prefill import prefill
from lightning_xt.generation.batching.row_inputs import stack_step_inputs
from lightning_xt.generation.batching.row_state import RowState, filter_logits, mark_lost, upcast
from lightning_xt.generation.batching.scheduler import SYNC_EVERY, is_on_host
from lightning_xt.generation.history import History
from lightning_xt.generation.noise import sample_gumbel
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.generation.search.hypotheses import Hypotheses
from lightning_xt.system.option_checks import check_option

_NEVER, _LOST = float("-inf"), float("inf")
_SPREAD = 6364136223846793005  # Knuth's multiplier for 64-bit numbers: different paths rarely collide


class Beams:
    """Hypotheses of a group of requests, which are searched together.

    Row r of the cache is hypothesis r % beams of request r // beams. The keys and values of cross-attention are stored
    once per request. The model is in evaluation mode, and requests are known by their numbers. The other options are
    those of `BeamSearch`; if it is stochastic, hypotheses are sampled without replacement.
    """

    def __init__(
        self,
        model: Autoregressive,
        requests: Mapping[int, Request],
        params: SamplingParams,
        *,
        beams: int,
        n_best: int,
        length_penalty: int | float = 0,
        patience: int | float | None = None,
        stochastic: bool = False,
    ) -> None:
        self.model, self.requests, self.params = model, dict(requests), params
        self.beams, self.n_best, self.stochastic = beams, n_best, stochastic
        self.enough = None if patience is None else max(patience * beams, n_best)
        self.generated, limits = 0, [request.max_new_tokens for request in requests.values()]
        width = max(len(request.prompt) for request in requests.values())
        rows = RowState.from_requests(list(requests.values()), width + max(limits))
        self.prompts, self.device = rows.prompts, rows.prompts.device
        self.on_host = is_on_host(self.device)
        self.limits = torch.tensor(limits, device=self.device)
        self.num_ended = torch.zeros_like(self.limits)
        self.over = torch.zeros_like(self.limits, dtype=torch.bool)
        self._prefill(rows)
        dtype = self.logits.dtype
        self.running = Hypotheses.make_empty(rows.tokens, beams, max(limits), rows.seeds, dtype)
        self.ended = Hypotheses.make_empty(rows.tokens, beams, max(limits), rows.seeds, dtype)
        # The prompt takes only the first place: the others would repeat it.
        self.running.totals[:, 0] = 0
        before = torch.full_like(self.prompts, -1)
        self.running.ranks[:, 0] = sample_gumbel(rows.seeds, before, 1)[:, 0] if stochastic else 0
        # Computed once per length, so that all compared scores are rounded alike.
        powers = [float(n**length_penalty) for n in range(max(limits) + 1)]
        self.powers = torch.tensor(powers, dtype=dtype, device=self.device)

    @property
    def busy(self) -> bool:
        return bool(self.requests)

    def advance(self) -> list[GeneratedToken]:
        """Extend all hypotheses by a token; return the best of the requests whose search is over."""
        extended = self._extend()
        ends = self._find_ends(extended)
        self._keep_ended(extended, ends)
        self.running = extended.rank(extended.ranks.masked_fill(ends, _NEVER), self.beams)
        self._mark_over()
        tokens: list[GeneratedToken] = []
        kept = None
        # Reading waits for the device. No hypothesis may grow beyond its request's limit, which bounds the cache.
        at_limit = any(request.max_new_tokens == self.generated for request in self.requests.values())
        if (self.on_host or self.generated % SYNC_EVERY == 0 or at_limit) and bool(self.over.any()):
            tokens, kept = self._collect(), self.over.logical_not().nonzero()[:, 0]
            self._keep_requests(kept)
        if self.busy:
            self._step(kept)
        return tokens

    def cancel(self, number: int) -> None:
        """End the search of a request without a result; its rows are free after the next step."""
        if number in self.requests:
            at = list(self.requests).index(number)
            self.over[at], self.ended.ranks[at] = True, _NEVER

    def _prefill(self, rows: RowState) -> None:
        requests = list(self.requests.values())
        capacity = requests[0].num_soft_tokens + rows.tokens.shape[1]
        self.cache = self.model.new_cache(len(requests), capacity, window=self.params.window)
        logits = prefill(self.model, requests, self.cache)
        self.cache.repeat(self.beams)
        self._inputs = stack_step_inputs(self.requests.values(), self.beams)
        self.logits = upcast(logits[:, -1]).repeat_interleave(self.beams, dim=0)

    def _step(self, kept: Tensor | None) -> None:
        """Run the model over the newest tokens, with the cache's rows in the order of the running hypotheses."""
        running, requests = self.running, len(self.running.parents)
        came_from = torch.arange(requests, device=self.device) if kept is None else kept
        # Before the first token the rows of a request are identical.
        beam = running.parents if self.generated > 1 else torch.arange(self.beams, device=self.device)
        order = (came_from[:, None] * self.beams + beam).flatten()
        if kept is not None:
            self.cache.select(order)
        elif not self.on_host or not torch.equal(order, torch.arange(len(order))):
            self.cache.reorder(order)
        tokens = running.newest.view(-1, 1)
        logits = self.model(tokens, inputs=self._inputs, cache=self.cache, last_only=True)
        self.logits = upcast(logits[:, -1])

    def _extend(self) -> Hypotheses:
        """Return the best extensions of each request's hypotheses by one token, in order."""
        running, logits = self.running, self.logits.view(len(self.requests), self.beams, -1)
        filtered = filter_logits(self.logits, self._make_history(), self.params)
        changed, size = filtered.view_as(logits), logits.shape[-1]
        own_sums = sums = logits.logsumexp(dim=-1, keepdim=True)
        if filtered is not self.logits:
            sums = changed.logsumexp(dim=-1, keepdim=True)
        ranks = self._perturb(changed - sums) if self.stochastic else changed
        # Each hypothesis has one end token. So among 2 * beams extensions at least `beams` continue.
        ending = self.params.end is not None or self.params.tail_stop is not None
        wanted = 2 * self.beams if ending else self.beams
        likely = ranks.topk(min(wanted, size), dim=-1)
        # The addend is never above 0, so totals never rise, however they are rounded.
        totals = running.totals[..., None] + (changed.gather(2, likely.indices) - sums)
        # Rows without a hypothesis may have any scores.
        totals = totals.masked_fill(running.ranks[..., None] == _NEVER, _NEVER).flatten(1)
        ranks = likely.values.flatten(1) if self.stochastic else totals
        best, index = ranks.topk(min(wanted, ranks.shape[1]))
        parents, tokens = index // likely.indices.shape[-1], likely.indices.flatten(1).gather(1, index)
        own, kept = (each.flatten(1).gather(1, parents * size + tokens) for each in (logits, changed))
        log_probs = mark_lost(own, own_sums[..., 0].gather(1, parents), kept)
        extended = running.pick(parents)
        at = (self.prompts + self.generated)[:, None, None].expand(-1, tokens.shape[1], 1)
        extended.tokens.scatter_(2, at, tokens[..., None])
        extended.log_probs[..., self.generated] = log_probs
        self.generated += 1
        extended.lengths = torch.full_like(tokens, self.generated)
        extended.newest, extended.parents = tokens, parents
        extended.ranks, extended.totals = best, totals.gather(1, index)
        extended.paths = extended.paths * _SPREAD + tokens + 1
        return extended

    def _perturb(self, log_probs: Float[Tensor, "requests beams v"]) -> Float[Tensor, "requests beams v"]:
        """Add Gumbel noise to the log-probabilities of extensions, so that their largest is that of their parent."""
        totals, ranks = self.running.totals[..., None], self.running.ranks[..., None]
        steps = torch.full_like(self.running.paths, self.generated).flatten()
        noise = sample_gumbel(self.running.paths.flatten(), steps, log_probs.shape[-1]).view_as(log_probs)
        noisy = log_probs + noise
        # As in the appendix of Kool et al., without overflow.
        below = (-torch.expm1(noisy - noisy.amax(dim=-1, keepdim=True))).log()
        perturbed = ranks - functional.softplus(ranks - totals - noisy + below)
        return perturbed.masked_fill(ranks == _NEVER, _NEVER)

    def _find_ends(self, extended: Hypotheses) -> Bool[Tensor, "requests beams"]:
        """Return which hypotheses end with their newest token."""
        ends, stop = extended.newest == self._end, self.params.tail_stop
        if stop is None:
            return ends
        # With the token before them, by which some tokenizers spell the first.
        number = min(stop.tokens, self.generated) + 1
        at = (self.prompts + self.generated - number)[:, None] + torch.arange(number, device=self.device)
        tails = extended.tokens.gather(2, at[:, None].expand(-1, ends.shape[1], -1)).tolist()
        return ends | torch.tensor([[stop.met(tail) for tail in each] for each in tails], device=self.device)

    def _keep_ended(self, extended: Hypotheses, ends: Bool[Tensor, "requests beams"]) -> None:
        """Keep and count the ended hypotheses among the best `beams` extensions.

        A hypothesis whose rank is NaN has ended too, as the best of all, and `_collect` refuses its marked tokens.
        """
        ends = (self.limits == self.generated)[:, None] | ends | extended.ranks.isnan()
        ends = ends & (extended.ranks != _NEVER) & ~self.over[:, None]
        ends[:, self.beams :] = False
        if self.on_host and not bool(ends.any()):
            return
        self.num_ended += ends.sum(dim=1)
        scores = (extended.ranks / self.powers[self.generated]).masked_fill(~ends, _NEVER)
        scores = scores.masked_fill(scores.isnan(), _LOST)
        self.ended = self.ended.join(extended).rank(torch.cat((self.ended.ranks, scores), dim=1), self.beams)

    def _mark_over(self) -> None:
        """Mark requests whose search is over.

        A search also ends once nothing better can be found, which changes no result. Ranks never rise as hypotheses
        grow: log-probabilities of tokens are at most 0, and the noise of an extension at most that of its parent. A
        total is at most 0 and is divided by a power of the length that grows with the length, so a running hypothesis
        reaches at most its present total over the power of the greatest length. Noisy ranks are divided by 1.

        Enough ended hypotheses finish a search only if the best running one scores no better: a model that is sure has
        hypotheses that end at once, and they are bad.
        """
        best, worst_kept = self.running.ranks[:, 0], self.ended.ranks[:, self.n_best - 1]
        over = (best == _NEVER) | (self.limits == self.generated) | (self.ended.ranks[:, 0] == _LOST)
        over |= worst_kept > best / self.powers[self.limits]
        if self.enough is not None:
            over |= (self.num_ended >= self.enough) & (worst_kept >= best / self.powers[self.generated])
        self.over |= over

    def _collect(self) -> list[GeneratedToken]:
        """Return the best hypotheses of the requests whose search is over."""
        over = self.over.nonzero()[:, 0]
        ended, numbers, collected = self.ended.select(over), list(self.requests), []
        columns = (ended.tokens, ended.log_probs, ended.lengths, ended.ranks)
        for at, *best in zip(over.tolist(), *(column[:, : self.n_best].tolist() for column in columns), strict=True):
            number = numbers[at]
            start = len(self.requests[number].prompt)
            for sequence, (tokens, log_probs, length, score) in enumerate(zip(*best, strict=True)):
                if score > _NEVER:
                    pairs = zip(tokens[start : start + length], log_probs[:length], strict=True)
                    collected += [GeneratedToken(number, token, log_prob, False, sequence) for token, log_prob in pairs]
                    collected[-1] = replace(collected[-1], last=True, score=score)
        return collected

    def _keep_requests(self, kept: Int[Tensor, " kept"]) -> None:
        """Drop all requests except these."""
        self.running, self.ended = self.running.select(kept), self.ended.select(kept)
        self.prompts, self.limits = self.prompts[kept], self.limits[kept]
        self.num_ended, self.over = self.num_ended[kept], self.over[kept]
        numbers = list(self.requests)
        self.requests = {numbers[at]: self.requests[numbers[at]] for at in kept.tolist()}
        self._inputs = stack_step_inputs(self.requests.values(), self.beams)

    def _make_history(self) -> History:
        prompts, params = self.prompts.repeat_interleave(self.beams), self.params
        tokens = self.running.tokens.flatten(0, 1)
        return History(tokens, prompts, prompts + self.generated, params.end, params.control)

    @property
    def _end(self) -> int:
        """The end token, or an id that no token has."""
        return -1 if self.params.end is None else self.params.end


def check_beams(where: str, beams: int, n_best: int) -> None:
    """Refuse numbers that are too small, or fewer beams than sequences to return, by a ValueError."""
    check_option(where, "beams", beams, least=1)
    check_option(where, "n_best", n_best, least=1)
    if n_best > beams:
        raise ValueError(
            f"{where} has n_best {n_best}, but only {beams} beams; ask for at most as many sequences, or for more beams"
        )
