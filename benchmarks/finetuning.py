"""Full fine-tuning against LoRA. Usage: python benchmarks/finetuning.py.

The base is a small byte model, trained on the sources of Python's standard library without pydoc_data. The task is the
text of pydoc_data/topics.py, Python's reference in English: its first bytes train, the last ones are measured. All legs
begin with the base.

    full     all parameters train
    lora     LoRA on every linear map of the layers

Both legs take the same batches in as many steps, and each takes the best of as many learning rates, by the mean of
losses over the seeds, which differ in the order of batches and the start of the narrow matrices. Legs take turns.
"""

import argparse
import math
import pydoc_data.topics
import statistics
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from common import report, say
from torch import Tensor
from torch.nn import functional

from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.adapters.lora import LoRA
from lightning_xt.nn.feedforward.swiglu import SwiGLU
from lightning_xt.training.optim.parameter_groups import parameter_groups

RATES = {"full": (1e-4, 3e-4, 1e-3), "lora": (3e-3, 1e-2, 3e-2)}
"""Learning rates of each leg, around its usual ones."""
ROWS = 8


def main() -> None:
    options = parse()
    torch.manual_seed(0)
    base = Decoder(256, dim=options.dim, depth=options.depth, feedforward=SwiGLU)
    sources = read_sources(options.corpus)
    say(f"the base trains on {len(sources):,} bytes")
    train(base, sources, options.base_steps, 3e-3, 0, options.seq_len)
    text = torch.tensor([*"\n".join(pydoc_data.topics.topics.values()).encode()], dtype=torch.long)
    task, held_out = text[: options.task], text[-options.measured :]
    before = measure(base, held_out, options.seq_len)
    say(f"base: {before:.4f} nats a byte of the task")

    def tune(leg: str, rate: float, seed: int) -> tuple[float, float]:
        """Return the loss of the task, and the fraction of parameters that trained."""
        network = deepcopy(base)
        torch.manual_seed(seed)
        if leg == "lora":
            LoRA(rank=options.rank).adapt(network)
        train(network, task, options.steps, rate, seed, options.seq_len)
        counts = [each.numel() for each in network.parameters() if each.requires_grad]
        return measure(network, held_out, options.seq_len), sum(counts) / sum(e.numel() for e in base.parameters())

    rows = compare(tune, options.seeds)
    rows["base"] = {"loss": round(before, 4), "parameters": sum(each.numel() for each in base.parameters())}
    report(rows, "cpu", packages=())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each leg at each learning rate")
    parser.add_argument("--dim", type=int, default=160, help="width of the base")
    parser.add_argument("--depth", type=int, default=4, help="layers of the base")
    parser.add_argument("--rank", type=int, default=2, help="rank of LoRA")
    parser.add_argument("--seq_len", type=int, default=128, help="tokens of a row")
    parser.add_argument("--base_steps", type=int, default=800, help="steps of the base")
    parser.add_argument("--steps", type=int, default=150, help="steps of each fine-tuning")
    parser.add_argument("--corpus", type=int, default=4_000_000, help="bytes of the base's corpus")
    parser.add_argument("--task", type=int, default=60_000, help="bytes of the task that train")
    parser.add_argument("--measured", type=int, default=40_000, help="bytes of the task that are measured")
    return parser.parse_args()


def read_sources(most: int) -> Tensor:
    """Read the sources of the standard library, without the task and tests."""
    root = Path(pydoc_data.topics.__file__).parents[1]
    parts, size = [], 0
    for file in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "pydoc_data", "idlelib"} & {*file.parts} or size >= most:
            continue
        parts.append(file.read_bytes())
        size += len(parts[-1])
    return torch.frombuffer(bytearray(b"\n".join(parts)[:most]), dtype=torch.uint8)


def train(network: Decoder, text: Tensor, steps: int, rate: float, seed: int, n: int) -> None:
    """Train with AdamW and a warm-up, then a cosine to zero, on random windows."""
    network.train()
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        share = min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        starts = torch.randint(0, len(text) - n, (ROWS,), generator=generator)
        tokens = torch.stack([text[start : start + n + 1] for start in starts.tolist()]).long()
        loss = functional.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def measure(network: Decoder, text: Tensor, n: int) -> float:
    """Return the mean loss in nats a byte, of every byte that a row predicts."""
    network.eval()
    rows = text[: (len(text) - 1) // n * n].view(-1, n)
    targets = text[1 : len(rows) * n + 1].view(-1, n)
    losses = [
        functional.cross_entropy(network(x).flatten(0, 1), y.flatten(), reduction="sum")
        for x, y in zip(rows.split(64), targets.split(64), strict=True)
    ]
    return float(sum(losses)) / rows.numel()


def compare(tune: Callable[[str, float, int], tuple[float, float]], seeds: int) -> dict[str, dict[str, Any]]:
    """Run all legs in turn; the best learning rate of each counts."""
    found: dict[str, dict[float, list[float]]] = {leg: {rate: [] for rate in rates} for leg, rates in RATES.items()}
    fractions: dict[str, float] = {}
    for seed in range(seeds):
        for rates in zip(*RATES.values(), strict=True):
            for leg, rate in zip(RATES, rates, strict=True):
                loss, fractions[leg] = tune(leg, rate, seed)
                found[leg][rate].append(loss)
                say(f"seed {seed}  {leg}, lr {rate:g}: {loss:.4f}")
    rows: dict[str, dict[str, Any]] = {}
    for leg, by_rate in found.items():
        rate = min(by_rate, key=lambda each: statistics.mean(by_rate[each]))
        rows[leg] = {
            "loss": round(statistics.mean(by_rate[rate]), 4),
            "spread": [round(min(by_rate[rate]), 4), round(max(by_rate[rate]), 4)],
            "lr": rate,
            "trained": round(fractions[leg], 4),
            "seeds": seeds,
            "by_lr": {f"{each:g}": round(statistics.mean(losses), 4) for each, losses in by_rate.items()},
        }
    rows["excess"] = {"value": round(rows["lora"]["loss"] / rows["full"]["loss"] - 1, 4), "unit": "fraction"}
    return rows


if __name__ == "__main__":
    main()
