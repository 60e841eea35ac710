"""Serving speed. Usage: python benchmarks/serving.py [--clients 1 4 16 64] [--weights float32 int8 int4] [--eager].

Starts `lightning-xt serve` with an untrained byte model, and `transformers serve` with a Llama of the same sizes if it
is installed: as it is by default, one request after another (`transformers`), and with its continuous batching
(`transformers_batched`). The legs of a repeat take turns, so a machine that slows down slows them all. Clients run in
this process, on the same cores. S is a server, ours by the form of its weights W; N clients ask at the same moment.

    load_S_N                 tokens per second of all clients; times to first tokens and between tokens
    speedup_W_N              tokens per second of N clients over those of one
    vs_transformers_W_N      ours over those of transformers; vs_transformers_batched_W_N
    first_token_overhead_W   milliseconds to the first streamed token of one client, less those of the fastest of 20
                             prefills of the same prompt without a server
    same_text_W              most concurrent clients, up to 16, that get the greedy text they get alone; in float32
                             another token is taken only where the two best are within 0.0001 nats
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, get_args

import torch
from common import report, row, say
from serving_clients import Load, Reply, run_clients
from serving_processes import (
    PRINTABLE,
    THEIRS,
    ServerProcess,
    describe_request,
    end_servers_on_signal,
    lacks_transformers,
    make_llama,
    make_run,
)
from torch import Tensor

from lightning_xt.generation.models.quantized_weights import Weights, convert_weights
from lightning_xt.generation.protocol import Autoregressive

REFERENCES = {"transformers": [], "transformers_batched": ["--continuous-batching", "--cb-max-memory-percent", "0.1"]}
"""Options of `transformers serve` by the names of its legs; its cache would take half of the machine's memory."""
FIRST_TOKENS = 20
"""Requests of which the time to the first token is compared with a prefill."""
SAME_TEXT = 16
"""Most clients whose texts are compared with what they get alone."""
TOLERANCE = 1e-4
"""Nats between two tokens within which float32 may take either, because the batch changes the order of sums."""


class Contest:
    """Servers, and what their clients see.

    Args:
        options: of the command line.
        folder: for models and logs.
        stack: ends the servers.
    """

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.options = options
        self.checkpoint, self.decoder = make_run(folder, options.dim, options.depth)
        self.servers: dict[str, ServerProcess] = {}
        for weights in options.weights:
            given = ["--weights", weights, "--rows", str(options.rows)] + ([] if options.eager else ["--compile"])
            say(f"starting lightning-xt serve {' '.join(given)}")
            server = ServerProcess.ours(self.checkpoint, given, folder / f"{weights}.log")
            self.servers[weights] = stack.enter_context(server)
        if not options.references:
            return
        if lacks_transformers():
            say("transformers serve is not installed, so it is skipped; run pip install -e '.[bench,serve]'")
            return
        llama = make_llama(folder / "llama", options.dim, options.depth)
        for name in options.references:
            say(f"starting {THEIRS} {' '.join(REFERENCES[name])}")
            server = ServerProcess.theirs(llama, REFERENCES[name], folder / f"{name}.log")
            self.servers[name] = stack.enter_context(server)

    def prompts(self, count: int) -> list[str]:
        """Return random texts, the same ones for any count."""
        draw = Random(0)
        return ["".join(map(chr, draw.choices(PRINTABLE, k=self.options.prompt))) for _ in range(count)]

    def ask(self, name: str, prompts: list[str], tokens: int, **others: Any) -> list[Reply]:
        """Have a client of a server for each prompt."""
        server = self.servers[name]
        return run_clients(server.url, [describe_request(server.model, each, tokens, **others) for each in prompts])


def measure_loads(contest: Contest) -> dict[str, dict[str, Any]]:
    """Measure each number of clients with each server, in turn."""
    options, loads = contest.options, {}
    prompts = contest.prompts(max(options.clients))
    for name in contest.servers:
        say(f"warming {name} up")
        for count in options.clients:
            contest.ask(name, prompts[:count], min(8, options.tokens))
            loads[name, count] = Load()
    for repeat in range(options.repeats):
        for (name, count), load in loads.items():
            rate = load.add(contest.ask(name, prompts[:count], options.tokens))
            say(f"repeat {repeat + 1}/{options.repeats}  {name}, {count} clients: {rate:.1f} tokens/s")
    rows = {}
    for (name, count), load in loads.items():
        label = f"load_{name}_{count}"
        rows[label] = {"value": round(statistics.median(load.rates), 1), "unit": "tokens/s", "clients": count}
        rows[label] |= {"spread": [round(min(load.rates), 1), round(max(load.rates), 1)], "repeats": len(load.rates)}
        rows[label] |= load.report()
    return rows | compare_loads(loads, options)


def compare_loads(loads: dict[tuple[str, int], Load], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the speed-up of several clients over one, and ours over transformers, within each repeat."""
    rows = {}
    for weights in options.weights:
        for count in options.clients:
            ours = loads[weights, count].rates
            if count > 1 and (weights, 1) in loads:
                rows[f"speedup_{weights}_{count}"] = compare_rates(ours, loads[weights, 1].rates)
            for name in REFERENCES:
                if (name, count) in loads:
                    rows[f"vs_{name}_{weights}_{count}"] = compare_rates(ours, loads[name, count].rates)
    return rows


def compare_rates(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return our speed-up; `ours` and `theirs` of the row are seconds per token."""
    return row([1 / rate for rate in ours], [1 / rate for rate in theirs])


def measure_overhead(contest: Contest, weights: Weights) -> dict[str, Any]:
    """Measure the time to the first token of one client, in turn with the prefill alone."""
    # Compiled or not, a prefill runs as it is.
    model = convert_weights(contest.decoder, weights)
    (prompt,) = contest.prompts(1)
    tokens = torch.tensor([list(prompt.encode())])
    streamed, alone = Load(), []
    for _ in range(FIRST_TOKENS):
        streamed.add(contest.ask(weights, [prompt], 2))
        alone.append(measure_prefill(model, tokens))
    # The fastest prefill: a program that disturbs it would hide some of the overhead.
    overheads = [1e3 * (first - min(alone)) for first in streamed.first]
    say(f"{weights}: first token {statistics.median(overheads):.1f} ms after the fastest prefill")
    return {
        "value": round(statistics.median(overheads), 2),
        "unit": "ms",
        "spread": [round(min(overheads), 2), round(max(overheads), 2)],
        "repeats": FIRST_TOKENS,
        "prompt_tokens": len(prompt),
        "prefill_ms": round(1e3 * min(alone), 2),
    }


@torch.inference_mode()
def measure_prefill(model: Autoregressive, tokens: Tensor) -> float:
    """Return the seconds until the first token of a prompt, without an engine."""
    start = time.perf_counter()
    cache = model.new_cache(1, tokens.shape[1] + 2)
    int(model(tokens, cache=cache, last_only=True)[0, -1].argmax())
    return time.perf_counter() - start


def compare_texts(contest: Contest, weights: Weights) -> dict[str, Any]:
    """Compare what concurrent clients get with what each gets alone."""
    count = max((each for each in contest.options.clients if each <= SAME_TEXT), default=SAME_TEXT)
    prompts, tokens = contest.prompts(count), contest.options.tokens
    together = [reply.text for reply in contest.ask(weights, prompts, tokens)]
    same, gaps = 0, []
    for prompt, text in zip(prompts, together, strict=True):
        (alone,) = contest.ask(weights, [prompt], tokens, logprobs=2)
        if alone.text == text:
            same += 1
            continue
        gaps.append(find_gap(alone, text))
        say(f"{weights}: another token where the two best are within {gaps[-1]:.2g} nats")
    largest = max(gaps, default=0.0)
    if weights == "float32" and largest > TOLERANCE:
        raise SystemExit(
            f"a client got another text than alone, where the two best tokens are {largest:.2g} nats apart"
        )
    return {"value": same, "of": count, "largest_gap": float(f"{largest:.2g}"), "tokens": tokens}


def find_gap(alone: Reply, text: str) -> float:
    """Return the distance of the two best tokens at the first difference of a text."""
    for (token, gap), other in zip(alone.gaps, text, strict=True):
        if token != other:
            return gap
    raise RuntimeError("the texts are the same, but their tokens are not")


def main() -> None:
    forms = get_args(Weights)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64], help="numbers of clients")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each completion")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--weights", nargs="+", choices=forms, default=["float32"], help="forms of the weights")
    parser.add_argument("--eager", action="store_true", help="do not compile steps")
    parser.add_argument("--rows", type=int, default=16, help="rows of the server")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument(
        "--references", nargs="*", choices=REFERENCES, default=list(REFERENCES), help="none = ours only"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    end_servers_on_signal()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contest = Contest(options, Path(folder), stack)
        rows = measure_loads(contest)
        for weights in options.weights:
            rows[f"first_token_overhead_{weights}"] = measure_overhead(contest, weights)
            rows[f"same_text_{weights}"] = compare_texts(contest, weights)
    report(rows, "cpu", packages=("transformers",))


if __name__ == "__main__":
    main()
