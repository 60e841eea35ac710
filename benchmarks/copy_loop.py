"""Steps until a plain PyTorch loop learns to copy. Usage: python benchmarks/copy_loop.py.

The task is that of x-transformers' examples/toy_tasks/enc_dec_copy.py, shorter: the source is 12 random symbols of 16,
the target is the source twice. Both legs have dim 64, 2 + 2 layers and otherwise the defaults of their library, and
train with Adam at 2e-3 on the same batches of 16.

    ours     Seq2Seq
    theirs   XTransformer with tied token embeddings

A leg has learned the task at the first check, every 10 steps, where the most likely next token is right at all
positions of 100 new sequences. Greedy answers are then exact too: each token follows from a right prefix.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from common import report, say
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.training.seq2seq import Seq2Seq

START, SYMBOLS, TOKENS = 1, 16, 18
LENGTH, BATCH, CHECKED, EVERY = 12, 16, 100, 10

Loss = Callable[[Tensor, Tensor], Tensor]
"""Source and target to the loss."""
Logits = Callable[[Tensor, Tensor], Tensor]
"""Source and target without its last token to logits."""


def main() -> None:
    options = parse()
    legs = {"ours": build_ours, "theirs": build_theirs}
    if find_spec("x_transformers") is None:
        say("x-transformers is not installed, so ours runs alone; pip install -e '.[bench]'")
        del legs["theirs"]
    steps: dict[str, list[int | None]] = {name: [] for name in legs}
    for seed in range(options.seeds):
        for name, build in legs.items():
            steps[name].append(count_steps(build, seed, options.max_steps, options.dim))
            say(f"seed {seed}  {name}: {steps[name][-1] or 'not learned'}")
    report({name: summarise(found, options.max_steps) for name, found in steps.items()}, "cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each leg")
    parser.add_argument("--max_steps", type=int, default=1000, help="steps after which a run has not learned the task")
    parser.add_argument("--dim", type=int, default=64, help="width of both legs")
    return parser.parse_args()


def summarise(steps: list[int | None], max_steps: int) -> dict[str, Any]:
    """Return a row: the median number of steps, None if most runs failed, and the steps of each seed."""
    middle = statistics.median(max_steps + EVERY if each is None else each for each in steps)
    return {"value": middle if middle <= max_steps else None, "seeds": steps, "repeats": len(steps)}


def build_ours(dim: int) -> tuple[nn.Module, Loss, Logits]:
    vocab = {"source": TOKENS, "target": TOKENS, "pad": 0, "start": START}
    model = Seq2Seq(vocab, encoder=partial(Encoder, dim=dim, depth=2), decoder=partial(Decoder, dim=dim, depth=2))
    return model, model.loss, model.network


def build_theirs(dim: int) -> tuple[nn.Module, Loss, Logits]:
    from x_transformers import XTransformer

    model = XTransformer(
        dim=dim,
        tie_token_emb=True,
        enc_num_tokens=TOKENS,
        enc_depth=2,
        enc_heads=8,
        enc_max_seq_len=LENGTH,
        dec_num_tokens=TOKENS,
        dec_depth=2,
        dec_heads=8,
        dec_max_seq_len=2 * LENGTH + 1,
    )

    def logits(src: Tensor, tgt: Tensor) -> Tensor:
        scores: Tensor = model.decoder.net(tgt, context=model.encoder(src, return_embeddings=True))
        return scores

    return model, model, logits


def draw(rows: int, generator: torch.Generator) -> tuple[Int[Tensor, "b m"], Int[Tensor, "b n"]]:
    """Return sources, and targets that are the start token and the source twice."""
    src = torch.randint(TOKENS - SYMBOLS, TOKENS, (rows, LENGTH), generator=generator)
    return src, torch.cat((torch.full((rows, 1), START), src, src), dim=1)


def count_steps(
    build: Callable[[int], tuple[nn.Module, Loss, Logits]], seed: int, max_steps: int, dim: int
) -> int | None:
    """Train one leg, and return the steps until it has learned the task. None if it has not."""
    torch.manual_seed(seed)
    model, loss, logits = build(dim)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    train, check = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1_000_000 + seed)
    for step in range(1, max_steps + 1):
        model.train()
        loss(*draw(BATCH, train)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % EVERY == 0 and is_exact(model, logits, *draw(CHECKED, check)):
            return step
    return None


@torch.no_grad()
def is_exact(model: nn.Module, logits: Logits, src: Tensor, tgt: Tensor) -> bool:
    """Return whether every next token of every row is predicted."""
    model.eval()
    scores: Float[Tensor, "b n v"] = logits(src, tgt[:, :-1])
    return torch.equal(scores.argmax(-1), tgt[:, 1:])


if __name__ == "__main__":
    main()
