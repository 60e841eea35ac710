"""Learning rates at two widths, with and without muP. Usage: python benchmarks/mup.py.

A byte model is trained on Python's standard library at each rate of a grid, at the base width and at a wider one, there
with `mup_base_dim` and without. A row is a leg: its loss on the validation split after the last step for each rate, a
mean over the seeds, and the rate of the lowest loss. With muP the best rate of the base width is also the best of the
wider one.
"""

import argparse
import math
import statistics
from itertools import islice
from typing import Any

import torch
from common import report, say
from torch.optim.lr_scheduler import LambdaLR

from lightning_xt.data.text.standard_library import StandardLibrary
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.optim.build import build_scaled

RATES = {"AdamW": 0.001, "MuonAdamW": 0.005}
"""Lowest learning rate of the grid of an optimizer; each further one is twice the one before."""
EVALUATED = 16
"""Batches of the validation split that are measured."""


def main() -> None:
    options = parse()
    data = StandardLibrary(seq_len=options.seq_len, batch_size=options.batch_size, eval_batch_size=16)
    data.prepare_data()
    data.setup("fit")
    legs = {
        f"{options.base_dim}_wide": (options.base_dim, None),
        f"{options.dim}_wide_mup": (options.dim, options.base_dim),
        f"{options.dim}_wide": (options.dim, None),
    }
    rows = {
        f"{optimizer}_{name}": measure(f"{optimizer}_{name}", optimizer, *leg, data, options)
        for optimizer in options.optimizers
        for name, leg in legs.items()
    }
    report(rows, "cpu", ())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", nargs="+", choices=list(RATES), default=["AdamW"], help="optimizers")
    parser.add_argument("--base_dim", type=int, default=64, help="base width")
    parser.add_argument("--dim", type=int, default=256, help="the wider one")
    parser.add_argument("--rates", type=int, default=6, help="learning rates of the grid")
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps of a run")
    parser.add_argument("--seq_len", type=int, default=64, help="bytes of a window")
    parser.add_argument("--batch_size", type=int, default=4, help="windows of a step")
    parser.add_argument("--seeds", type=int, default=2, help="runs at each rate")
    return parser.parse_args()


def measure(
    name: str, optimizer: str, dim: int, base: int | None, data: StandardLibrary, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the row of a leg."""
    losses: dict[float, float] = {}
    for number in range(options.rates):
        rate = RATES[optimizer] * 2**number
        found = [train(optimizer, rate, dim, base, seed, data, options.steps) for seed in range(options.seeds)]
        losses[rate] = statistics.mean(found)
        say(f"{name}, rate {rate:g}: {losses[rate]:.4f} nats")
    best = min(losses, key=lambda rate: losses[rate])
    return {
        "value": best,
        "unit": "learning rate of the lowest loss",
        "losses": {f"{rate:g}": round(loss, 4) for rate, loss in losses.items()},
        "repeats": options.seeds,
    }


def train(kind: str, rate: float, dim: int, base: int | None, seed: int, data: StandardLibrary, steps: int) -> float:
    """Train a model, and return its loss on the validation split in nats per byte; infinity if it is not finite."""
    torch.manual_seed(seed)
    init = {"lr": rate, "weight_decay": 0.1} | ({"adamw_lr": 0.15 * rate} if kind == "MuonAdamW" else {})
    model = LanguageModel.from_config(
        {
            "decoder": {"dim": dim, "depth": 2, "attention": {"heads": 4}},
            "optimizer": {"class_path": kind, "init_args": init},
            "mup_base_dim": base,
        }
    )
    optimizer = build_scaled(model.optimizer_factory, model, kind)
    warmup = max(1, steps // 10)
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup)))
    data.seed = seed
    for tokens in islice(data.train_dataloader(), steps):
        optimizer.zero_grad()
        model(tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        batches = list(islice(data.val_dataloader(), EVALUATED))
        sums = [model.score(model.network, batch.tokens, batch.scored) for batch in batches]
    loss = float(sum(each.total for each in sums) / sum(each.count for each in sums))
    return loss if math.isfinite(loss) else math.inf


if __name__ == "__main__":
    main()
