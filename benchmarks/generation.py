"""Decoding speed, both legs in one run: python benchmarks/generation.py [--device cpu] [--repeats 3]."""

import argparse

import torch
from common import interleave, report, row

from lightning_xt import Decoder, generate

PROMPT, NEW = 16, 768


@torch.inference_mode()
def without_cache(model: Decoder, prompt: torch.Tensor, new: int) -> torch.Tensor:
    """Greedy decoding that reads the whole text again for every token."""
    tokens = prompt
    for _ in range(new):
        tokens = torch.cat((tokens, model(tokens, last_only=True)[:, -1].argmax(-1, keepdim=True)), dim=1)
    return tokens[:, prompt.shape[1] :]


def main() -> None:
    """Rows: `cached`, how many times faster decoding through the cache is than reading everything again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Decoder(vocab_size=256, dim=512, depth=6).to(args.device).eval()
    torch.nn.init.normal_(model.head.to_logits.weight, std=0.05)
    prompt = torch.randint(0, 256, (1, PROMPT), device=args.device)
    seconds = interleave(
        {
            "cached": lambda: generate(model, prompt, NEW, temperature=0).cpu(),
            "uncached": lambda: without_cache(model, prompt, NEW).cpu(),
        },
        args.repeats,
    )
    report({"cached": row(seconds["cached"], seconds["uncached"])}, torch.device(args.device).type)


if __name__ == "__main__":
    main()
