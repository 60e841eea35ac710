"""The search for the best texts of a batch of sentences."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.prefill import read_prompts
from lightning_xt.generation.batching.row_inputs import count_soft_tokens, stack_inputs, step_inputs
from lightning_xt.generation.batching.row_state import RowState, filter_logits, upcast
from lightning_xt.generation.batching.scheduler import ASK_EVERY, on_host
from lightning_xt.generation.history import History
from lightning_xt.generation.noise import gumbel
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.generation.search.hypotheses import Hypotheses

_NEVER = float("-inf")
_SPREAD = 6364136223846793005  # Knuth's multiplier for numbers of 64 bits: paths that differ hardly meet again


class Beams:
    """The texts that are followed for each of some sentences, all of which begin at once.

    Row r of the model's memory is of text r % beams of sentence r // beams. What cross-attention reads is there once a
    sentence.

    Args:
        model: in evaluation mode.
        requests: by their number.
        choices: how tokens are chosen.
        beams: texts that are followed for each sentence.
        n_best: texts to give.
        length_penalty: power of the length that scores are divided by.
        patience: times beams, the texts that must end before a search does. None = as many as may be better.
        stochastic: whether texts are drawn.
    """

    def __init__(
        self,
        model: Autoregressive,
        requests: Mapping[int, Request],
        choices: SamplingParams,
        *,
        beams: int,
        n_best: int,
        length_penalty: int | float,
        patience: int | float | None,
        stochastic: bool,
    ) -> None:
        self.model, self.requests, self.choices = model, dict(requests), choices
        self.beams, self.n_best, self.stochastic = beams, n_best, stochastic
        self.enough = None if stochastic or patience is None else max(patience * beams, n_best)
        self.drawn, limits = 0, [request.max_new_tokens for request in requests.values()]
        width = max(len(request.prompt) for request in requests.values())
        rows = RowState.of(list(requests.values()), width + max(limits))
        self.prompts, self.device = rows.prompts, rows.prompts.device
        self.on_host = on_host(self.device)
        self.limits = torch.tensor(limits, device=self.device)
        self.found = torch.zeros_like(self.limits)
        self.over = torch.zeros_like(self.limits, dtype=torch.bool)
        self._read_prompts(rows)
        dtype = self.logits.dtype
        self.running = Hypotheses.none(rows.tokens, beams, max(limits), rows.seeds, dtype)
        self.ended = Hypotheses.none(rows.tokens, beams, max(limits), rows.seeds, dtype)
        # The prompt in the first place alone: all others would be the same text.
        self.running.totals[:, 0] = 0
        before = torch.full_like(self.prompts, -1)
        self.running.ranks[:, 0] = gumbel(rows.seeds, before, 1)[:, 0] if stochastic else 0
        # Of each length once, so that all that is compared is rounded alike.
        powers = [1.0 if stochastic else float(n**length_penalty) for n in range(max(limits) + 1)]
        self.powers = torch.tensor(powers, dtype=dtype, device=self.device)

    @property
    def busy(self) -> bool:
        """Whether there is anything left to find."""
        return bool(self.requests)

    def advance(self) -> list[GeneratedToken]:
        """Makes all texts one token longer; gives what was found for the sentences whose search is over."""
        grown = self._grown()
        self._take_ended(grown)
        self.running = grown.best(grown.ranks.masked_fill(grown.newest == self._end, _NEVER), self.beams)
        self._finish()
        heard: list[GeneratedToken] = []
        kept = None
        # To ask is to wait for the device. No text may grow beyond what positions and memory were said to hold.
        at_limit = any(request.max_new_tokens == self.drawn for request in self.requests.values())
        if (self.on_host or self.drawn % ASK_EVERY == 0 or at_limit) and bool(self.over.any()):
            heard, kept = self._hear(), self.over.logical_not().nonzero()[:, 0]
            self._let_go(kept)
        if self.busy:
            self._read_newest(kept)
        return heard

    def _read_prompts(self, rows: RowState) -> None:
        requests = list(self.requests.values())
        capacity = count_soft_tokens(requests[0].inputs) + rows.tokens.shape[1]
        self.memory = self.model.new_cache(len(requests), capacity, window=self.choices.window)
        logits = read_prompts(self.model, requests, self.memory)
        self.memory.repeat(self.beams)
        self._inputs = self._step_inputs()
        self.logits = upcast(logits[:, -1]).repeat_interleave(self.beams, dim=0)

    def _read_newest(self, kept: Tensor | None) -> None:
        """Lets the model read the newest tokens, its rows put in the order of the texts that are followed now."""
        running, sentences = self.running, len(self.running.parents)
        came_from = torch.arange(sentences, device=self.device) if kept is None else kept
        # Before the first token the rows of a sentence are all the same.
        text = running.parents if self.drawn > 1 else torch.arange(self.beams, device=self.device)
        order = (came_from[:, None] * self.beams + text).flatten()
        if kept is not None:
            self.memory.select(order)
        elif not self.on_host or not torch.equal(order, torch.arange(len(order))):
            self.memory.reorder(order)
        tokens = running.newest.view(-1, 1)
        logits = self.model(tokens, inputs=self._inputs, cache=self.memory, last_only=True)
        self.logits = upcast(logits[:, -1])

    def _grown(self) -> Hypotheses:
        """The best ways to make the texts of each sentence one token longer, in order."""
        running, logits = self.running, self.logits.view(len(self.requests), self.beams, -1)
        filtered = filter_logits(self.logits, self._history(), self.choices)
        changed, size = filtered.view_as(logits), logits.shape[-1]
        own_sums = sums = logits.logsumexp(dim=-1, keepdim=True)
        if filtered is not self.logits:
            sums = changed.logsumexp(dim=-1, keepdim=True)
        ranks = self._perturbed(changed - sums) if self.stochastic else changed
        # Each text can end in one way. So among twice as many ways as beams, as many as beams go on.
        wanted = self.beams if self.choices.end is None else 2 * self.beams
        likely = ranks.topk(min(wanted, size), dim=-1)
        # What is added is never above 0, so that totals never rise, however they are rounded.
        totals = (running.totals[..., None] + (changed.gather(2, likely.indices) - sums)).flatten(1)
        ranks = likely.values.flatten(1) if self.stochastic else totals
        best, index = ranks.topk(min(wanted, ranks.shape[1]))
        parents, tokens = index // likely.indices.shape[-1], likely.indices.flatten(1).gather(1, index)
        log_probs = logits.flatten(1).gather(1, parents * size + tokens) - own_sums[..., 0].gather(1, parents)
        grown = running.pick(parents)
        at = (self.prompts + self.drawn)[:, None, None].expand(-1, tokens.shape[1], 1)
        grown.tokens.scatter_(2, at, tokens[..., None])
        grown.log_probs[..., self.drawn] = log_probs
        self.drawn += 1
        grown.lengths = torch.full_like(tokens, self.drawn)
        grown.newest, grown.parents, grown.ranks, grown.totals = tokens, parents, best, totals.gather(1, index)
        grown.paths = grown.paths * _SPREAD + tokens + 1
        return grown

    def _perturbed(self, log_probs: Float[Tensor, "sentences texts v"]) -> Float[Tensor, "sentences texts v"]:
        """Log-probabilities of longer texts with Gumbel noise whose largest is that of the text they go on from."""
        totals, ranks = self.running.totals[..., None], self.running.ranks[..., None]
        drawn = torch.full_like(self.running.paths, self.drawn).flatten()
        noise = gumbel(self.running.paths.flatten(), drawn, log_probs.shape[-1]).view_as(log_probs)
        moved = log_probs + noise
        # As in the appendix of Kool et al., where nothing overflows.
        below = (-torch.expm1(moved - moved.amax(dim=-1, keepdim=True))).log()
        perturbed = ranks - functional.softplus(ranks - totals - moved + below)
        return perturbed.masked_fill(ranks == _NEVER, _NEVER)

    def _take_ended(self, grown: Hypotheses) -> None:
        """Keeps of the best texts, as many as beams, those that have ended, and counts them."""
        ends = (self.limits == self.drawn)[:, None] | (grown.newest == self._end)
        ends = ends & (grown.ranks > _NEVER) & ~self.over[:, None]
        ends[:, self.beams :] = False
        if self.on_host and not bool(ends.any()):
            return
        self.found += ends.sum(dim=1)
        scores = (grown.ranks / self.powers[self.drawn]).masked_fill(~ends, _NEVER)
        self.ended = self.ended.beside(grown).best(torch.cat((self.ended.ranks, scores), dim=1), self.beams)

    def _finish(self) -> None:
        """Notes which sentences' search is over.

        Also once nothing better can be found, which changes no result. What texts are ranked by never rises as they
        grow: log-probabilities of words are at most 0, and noise at most that of the text before. A total is at most 0
        and is divided by a power of the length that grows with it, so that what goes on reaches at most its total of
        now over the power of the greatest length. Noise is divided by nothing.
        """
        best = self.running.ranks[:, 0]
        over = (best == _NEVER) | (self.limits == self.drawn)
        over |= self.ended.ranks[:, self.n_best - 1] > best / self.powers[self.limits]
        if self.enough is not None:
            over |= self.found >= self.enough
        self.over |= over

    def _hear(self) -> list[GeneratedToken]:
        """The best texts of the sentences whose search is over."""
        over = self.over.nonzero()[:, 0]
        ended, numbers, heard = self.ended.of(over), list(self.requests), []
        columns = (ended.tokens, ended.log_probs, ended.lengths, ended.ranks)
        for at, *texts in zip(over.tolist(), *(column[:, : self.n_best].tolist() for column in columns), strict=True):
            number = numbers[at]
            start = len(self.requests[number].prompt)
            for sequence, (tokens, log_probs, length, score) in enumerate(zip(*texts, strict=True)):
                if score > _NEVER:
                    drawn = zip(tokens[start : start + length], log_probs[:length], strict=True)
                    heard += [GeneratedToken(number, token, log_prob, False, sequence) for token, log_prob in drawn]
                    heard[-1] = replace(heard[-1], last=True, score=score)
        return heard

    def _let_go(self, kept: Int[Tensor, " kept"]) -> None:
        """Forgets all sentences but these."""
        self.running, self.ended = self.running.of(kept), self.ended.of(kept)
        self.prompts, self.limits = self.prompts[kept], self.limits[kept]
        self.found, self.over = self.found[kept], self.over[kept]
        numbers = list(self.requests)
        self.requests = {numbers[at]: self.requests[numbers[at]] for at in kept.tolist()}
        self._inputs = self._step_inputs()

    def _step_inputs(self) -> Inputs | None:
        rows = [step_inputs(request.inputs) for request in self.requests.values() for _ in range(self.beams)]
        return stack_inputs(rows) if rows else None

    def _history(self) -> History:
        prompts = self.prompts.repeat_interleave(self.beams)
        return History(self.running.tokens.flatten(0, 1), prompts, prompts + self.drawn, self.choices.end)

    @property
    def _end(self) -> int:
        """The end token, or one that no text has."""
        return -1 if self.choices.end is None else self.choices.end
