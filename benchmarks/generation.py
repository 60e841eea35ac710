"""Decoding speed. Usage: python benchmarks/generation.py [--device cpu] [--repeats 3] [--rows batch1_fp32 ...].

Both legs of a row take turns in one process; a value is the median over the repeats of the ratio within each.

    batch1_fp32    x-transformers with its cache over ours, one prompt of 16 tokens and 768 more
    batch1_int8    the same with ours in int8, and the increase of the loss
    formats        ours: tokens per second of float32, bfloat16, int8 and int4 weights in turn, with 1 and 16 prompts
    flatness       ours: cost of the last 100 tokens of 768 over that of the first 100
    limit_share    ours: time of the bare products of one vector with every matrix over the time of a step, in float32
    batch16        x-transformers over ours, 16 prompts and 256 more
    several_rows   ours on a CPU: tokens per second of 16 rows over those of one, in float32, and the time of a step and
                   of its products for 1 to 32 rows in each format
    ragged         64 prompts of 8 to 512 tokens and 16 to 256 more: all of them padded in one batch over ours
    beam           five beams, 4 + 4 layers of 128, 64 sentences: without a cache over ours
    speculative    plain decoding over prompt lookup, on a repetitive text
    lookup         the same with float32, bfloat16 and int8 weights, on text that repeats itself, code and random bytes
    cached         recomputing the whole prefix for each token over ours, 256 more
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from beams import UncachedBeams, make_requests
from common import interleave, report, row, say
from decode_rows import FORMATS, compare_rows
from lookup_rows import compare_lookup
from torch import Tensor, nn
from torch.nn import functional

from lightning_xt import Decoder, generate
from lightning_xt.generation.engine import make_requests as prompt_requests
from lightning_xt.generation.engine import run_requests, stream
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup
from lightning_xt.generation.models.compiled import Compiled
from lightning_xt.generation.models.quantized_weights import Weights, convert_weights, measure_loss
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import Request, SamplingParams

PROMPT = 16
PRODUCTS = 100  # turns of all matrices in one measurement


class Legs:
    """Models and prompts, built on first use.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        torch.manual_seed(0)
        self.decoder = Decoder(256, dim=options.dim, depth=options.depth).to(options.device).eval()
        # An untrained head scores all tokens alike.
        nn.init.normal_(self.decoder.head.to_logits.weight, std=0.05)
        self._ready: dict[str, Autoregressive] = {}

    def ours(self, weights: Weights = "float32") -> Autoregressive:
        """Return our decoder, prepared for decoding."""
        if weights not in self._ready:
            model = convert_weights(self.decoder, weights)
            self._ready[weights] = model if self.options.eager else Compiled(model)
            say(f"compiling steps in {weights}")
            for rows in (1, 3):
                generate(self._ready[weights], self.prompt(rows, PROMPT), 4, temperature=0)
        return self._ready[weights]

    def theirs(self) -> Any:
        """Return x-transformers at the same sizes, with its fastest options."""
        from x_transformers import AutoregressiveWrapper, TransformerWrapper
        from x_transformers import Decoder as TheirDecoder

        layers = TheirDecoder(
            dim=self.options.dim, depth=self.options.depth, heads=8, attn_flash=True, rotary_pos_emb=True
        )
        model = TransformerWrapper(num_tokens=256, max_seq_len=PROMPT + self.options.new, attn_layers=layers)
        return AutoregressiveWrapper(model).to(self.options.device).eval()

    def prompt(self, rows: int, n: int) -> Tensor:
        """Return random bytes."""
        return torch.randint(0, 256, (rows, n), device=self.options.device)

    def compare_with_theirs(self, rows: int, new: int, weights: Weights = "float32") -> dict[str, Any]:
        """Return our speed-up over x-transformers with its cache."""
        ours, theirs, prompt = self.ours(weights), self.theirs(), self.prompt(rows, PROMPT)
        return self.compare(
            lambda: generate(ours, prompt, new, temperature=0).cpu(),
            lambda: theirs.generate(prompt, new, temperature=0.0, cache_kv=True).cpu(),
        )

    def compare(self, ours: Callable[[], object], theirs: Callable[[], object]) -> dict[str, Any]:
        """Return a row of two legs."""
        seconds = interleave({"ours": ours, "theirs": theirs}, self.options.repeats)
        return row(seconds["ours"], seconds["theirs"])


def batch1_fp32(legs: Legs) -> dict[str, Any]:
    return legs.compare_with_theirs(1, legs.options.new)


def batch1_int8(legs: Legs) -> dict[str, Any]:
    found = legs.compare_with_theirs(1, legs.options.new, "int8")
    text = generate(legs.decoder, legs.prompt(1, PROMPT), 256, temperature=1.0)
    losses = {name: measure_loss(convert_weights(legs.decoder, name), text) for name in ("float32", "int8")}
    return found | {"loss": {name: round(loss, 4) for name, loss in losses.items()}}


def formats(legs: Legs) -> dict[str, Any]:
    """Compare int4 with float32 at one prompt, and give the ratios of the other formats and of 16 prompts."""
    models, found = {weights: legs.ours(weights) for weights in FORMATS}, {}
    for rows in (1, 16):
        prompt, new = legs.prompt(rows, PROMPT), min(256, legs.options.new)
        for model in models.values():
            # Many rows have another program in int8 and int4.
            decode_greedily(model, prompt, 4)
        seconds = interleave(
            {name: partial(decode_greedily, model, prompt, new) for name, model in models.items()}, legs.options.repeats
        )
        for name, taken in seconds.items():
            ratio = row(taken, seconds["float32"])
            ratio["tokens/s"] = round(rows * new / statistics.median(taken), 1)
            found[f"{name} {rows}"] = ratio
    return found["int4 1"] | {"formats": found}


def decode_greedily(model: Autoregressive, prompt: Tensor, new: int) -> None:
    generate(model, prompt, new, temperature=0).cpu()


def flatness(legs: Legs) -> dict[str, Any]:
    last, first = [], []
    model, few = legs.ours(), min(100, legs.options.new // 2)
    for repeat in range(legs.options.repeats):
        times = [time.perf_counter()]
        requests = prompt_requests(legs.prompt(1, PROMPT), legs.options.new + 1)
        for token in stream(model, requests, SamplingParams(temperature=0)):
            token.cpu()
            times.append(time.perf_counter())
        # The first token is the prompt's.
        first.append((times[1 + few] - times[1]) / few)
        last.append((times[-1] - times[-1 - few]) / few)
        say(f"repeat {repeat + 1}: {1e3 * first[-1]:.2f} ms at first, {1e3 * last[-1]:.2f} ms at last")
    return row(first, last)


def limit_share(legs: Legs) -> dict[str, Any]:
    model, new = legs.ours(), legs.options.new
    products = [make_bare_products(legs.decoder, transposed) for transposed in (False, True)]
    steps, limits = [], []
    for repeat in range(legs.options.repeats):
        before = [measure_seconds(each, legs.options.device) for each in products]
        start = time.perf_counter()
        generate(model, legs.prompt(1, PROMPT), new, temperature=0).cpu()
        steps.append((time.perf_counter() - start) / new)
        after = [measure_seconds(each, legs.options.device) for each in products]
        limits.append(min((a + b) / 2 for a, b in zip(before, after, strict=True)))
        say(f"repeat {repeat + 1}: {1e3 * limits[-1]:.2f} of {1e3 * steps[-1]:.2f} ms")
    return row(steps, limits)


@torch.inference_mode()
def make_bare_products(decoder: Decoder, transposed: bool) -> Callable[[], None]:
    """Multiply one vector by every matrix that a step reads."""
    matrices = [module.weight.detach() for module in decoder.modules() if isinstance(module, nn.Linear)]
    if transposed:
        stored = [matrix.T.contiguous() for matrix in matrices]
        vectors = [torch.randn(1, len(matrix), device=matrix.device) for matrix in stored]
        pairs = list(zip(vectors, stored, strict=True))
        return lambda: [x @ matrix for x, matrix in pairs] and None
    vectors = [torch.randn(1, matrix.shape[1], device=matrix.device) for matrix in matrices]
    return lambda: [functional.linear(x, w) for x, w in zip(vectors, matrices, strict=True)] and None


@torch.inference_mode()
def measure_seconds(leg: Callable[[], None], device: str) -> float:
    """Return the median seconds of a short leg."""
    taken = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        leg()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def batch16(legs: Legs) -> dict[str, Any]:
    return legs.compare_with_theirs(16, min(256, legs.options.new))


def several_rows(legs: Legs) -> dict[str, Any]:
    if legs.options.device != "cpu":
        say("skipped: matrices are packed on a CPU only")
        return {}
    models = {weights: legs.ours(weights) for weights in FORMATS}
    return compare_rows(legs.decoder, models, PROMPT, min(256, legs.options.new), legs.options.repeats)


def ragged(legs: Legs) -> dict[str, Any]:
    longest, most, model = 32 * PROMPT, min(256, legs.options.new), legs.ours()
    if legs.options.new < 256:
        longest = legs.options.new
    torch.manual_seed(1)
    lengths = torch.randint(8, longest + 1, (64,), device=legs.options.device)
    wanted = torch.randint(min(16, most), most + 1, (64,)).tolist()
    prompts = legs.prompt(64, longest)
    requests = [
        Request(prompt=prompts[each, : int(lengths[each])], max_new_tokens=length) for each, length in enumerate(wanted)
    ]
    return legs.compare(
        lambda: run_requests(model, requests, SamplingParams(temperature=0)),
        lambda: decode_padded(model, prompts, lengths, max(wanted)),
    )


@torch.inference_mode()
def decode_padded(model: Autoregressive, prompts: Tensor, lengths: Tensor, new: int) -> Tensor:
    """Decode one batch as wide as the longest prompt until its last row has ended."""
    cache = model.new_cache(len(prompts), prompts.shape[1] + new)
    token = model(prompts, lengths=lengths, cache=cache, last_only=True)[:, -1].argmax(-1)
    tokens = [token]
    for _ in range(new - 1):
        token = model(token[:, None], cache=cache, last_only=True)[:, -1].argmax(-1)
        tokens.append(token)
    return torch.stack(tokens, dim=1).cpu()


def beam(legs: Legs) -> dict[str, Any]:
    network, requests, known = make_requests(legs.options.device, 64 if legs.options.new >= 256 else 4)
    decoder = convert_weights(network.decoder, "float32")
    uncached = UncachedBeams(decoder, beams=5)
    return legs.compare(
        lambda: run_requests(decoder, requests, SamplingParams(end=2, batch=5 * len(requests)), BeamSearch(beams=5)),
        lambda: uncached(requests, known),
    )


def speculative(legs: Legs) -> dict[str, Any]:
    model = legs.ours()
    # Bytes of a repetitive text: the completions of a random network repeat too, and greedy ones forever.
    start = generate(model, legs.prompt(1, PROMPT), legs.options.new, temperature=0)
    prompt, new, lookup = start[:, -min(256, legs.options.new) :], legs.options.new, PromptLookup()
    # The first verified draft compiles a program.
    generate(model, prompt, 32, temperature=0, method=lookup)
    found = legs.compare(
        lambda: generate(model, prompt, new, temperature=0, method=lookup).cpu(),
        lambda: generate(model, prompt, new, temperature=0).cpu(),
    )
    return found | {"accepted": round(lookup.accepted / max(1, lookup.proposed), 3)}


def lookup(legs: Legs) -> dict[str, Any]:
    """Compare float32 on the repeating text, and give the other formats and texts."""
    models = {weights: legs.ours(weights) for weights in ("float32", "bfloat16", "int8")}
    found = compare_lookup(models, legs.prompt(1, 100)[0], min(512, legs.options.new), legs.options.repeats)
    return found["float32 repeating"] | {"texts": found}


def cached(legs: Legs) -> dict[str, Any]:
    model, prompt, new = legs.ours(), legs.prompt(1, PROMPT), min(256, legs.options.new)
    return legs.compare(
        lambda: generate(model, prompt, new, temperature=0).cpu(), partial(uncached, legs.decoder, prompt, new)
    )


@torch.inference_mode()
def uncached(model: Decoder, prompt: Tensor, new: int) -> Tensor:
    """Decode greedily, recomputing the whole prefix for every token."""
    tokens = prompt
    for _ in range(new):
        tokens = torch.cat((tokens, model(tokens, last_only=True)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return tokens.cpu()


ROWS = (
    batch1_fp32,
    batch1_int8,
    formats,
    flatness,
    limit_share,
    batch16,
    several_rows,
    ragged,
    beam,
    speculative,
    lookup,
    cached,
)


def main() -> None:
    names = [each.__name__ for each in ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=names, default=names)
    parser.add_argument("--eager", action="store_true", help="do not compile steps")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--new", type=int, default=768, help="most tokens to produce")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees none; use --device cpu")
    legs, rows = Legs(options), {}
    for each in ROWS:
        if each.__name__ in options.rows:
            say(each.__name__)
            # The same prompts for any choice of rows.
            torch.manual_seed(0)
            rows[each.__name__] = each(legs)
    report(rows, options.device)


if __name__ == "__main__":
    main()
