"""Beam search without a cache, for comparison: every step recomputes all tokens of all beams."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.batching.row_inputs import select_row
from lightning_xt.generation.requests import Request
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.attention.attention import Attention

WORDS, START, END = 8000, 1, 2


@torch.inference_mode()
def make_requests(device: str, count: int) -> tuple[EncoderDecoder, list[Request], Inputs]:
    """Return an untrained network of 4 + 4 layers of 128, and requests with sources of 8 to 23 tokens."""
    torch.manual_seed(0)
    attention = partial(Attention, heads=4)
    network = EncoderDecoder(
        WORDS,
        WORDS,
        encoder=partial(Encoder, dim=128, depth=4, attention=attention),
        decoder=partial(Decoder, dim=128, depth=4, attention=attention),
    )
    nn.init.normal_(network.decoder.head.to_logits.weight, std=0.2)
    network.to(device).eval()
    lengths = torch.randint(8, 24, (count,))
    src, mask = torch.randint(3, WORDS, (count, 24)), torch.arange(24) < lengths[:, None]
    known = network.encode(src.to(device), mask.to(device))
    start = torch.tensor([START], device=device)
    requests = [
        Request(prompt=start, max_new_tokens=2 * length, inputs=select_row(known, each))
        for each, length in enumerate(lengths.tolist())
    ]
    return network, requests, known


class UncachedBeams:
    """Search of BeamSearch with a length penalty of 1.

    Args:
        decoder: in evaluation mode.
        beams: texts that are followed at a time.
    """

    def __init__(self, decoder: Decoder, beams: int) -> None:
        self.decoder, self.beams = decoder, beams

    @torch.inference_mode()
    def __call__(self, requests: Sequence[Request], known: Inputs) -> list[list[int]]:
        """Return the best completion of each request."""
        k, count = self.beams, len(requests)
        device = requests[0].prompt.device
        limits = torch.tensor([request.max_new_tokens for request in requests], device=device)
        texts = torch.full((count, k, 1), START, device=device)
        totals = torch.full((count, k), float("-inf"), device=device)
        totals[:, 0] = 0
        best, found = torch.full((count,), float("-inf"), device=device), torch.zeros(count, device=device)
        out: list[list[int]] = [[] for _ in requests]
        alive = torch.arange(count, device=device)
        for length in range(1, int(limits.max()) + 1):
            values, origins, words = self._next(texts, totals[alive], known, alive)
            longer = torch.cat((texts.gather(1, origins[..., None].expand(-1, -1, length)), words[..., None]), dim=2)
            ends = (words == END) | (limits[alive] == length)[:, None]
            ends[:, k:] = False
            score, place = (values / length).masked_fill(~ends, float("-inf")).max(dim=1)
            for row, text in enumerate(alive.tolist()):
                if score[row] > best[text]:
                    best[text], out[text] = score[row], longer[row, place[row], 1:].tolist()
            found[alive] += ends.sum(dim=1)
            kept, order = values.masked_fill(words == END, float("-inf")).topk(k)
            totals[alive] = kept
            over = (limits[alive] == length) | (found[alive] >= k) | (best[alive] > kept[:, 0] / limits[alive])
            texts = longer.gather(1, order[..., None].expand(-1, -1, length + 1))[~over]
            alive = alive[~over]
            if len(alive) == 0:
                break
        return out

    def _next(self, texts: Tensor, totals: Tensor, known: Inputs, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best continuations, twice as many as beams: their sums, beams and tokens."""
        rows = alive.repeat_interleave(self.beams)
        context = None if known.context is None else known.context[rows]
        mask = None if known.context_mask is None else known.context_mask[rows]
        inputs = Inputs(context=context, context_mask=mask)
        logits = self.decoder(texts.flatten(0, 1), inputs=inputs, last_only=True)[:, -1]
        scores = totals[..., None] + logits.log_softmax(-1).view(*totals.shape, -1)
        values, at = scores.flatten(1).topk(2 * self.beams)
        return values, at // WORDS, at % WORDS
