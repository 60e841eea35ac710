"""Memory of generations and validations without Python's collector. Usage: python benchmarks/uncollected.py KIND.

KIND is language or translation. In one process, with `gc` disabled, a small model generates and then validates
`--times 300` times each, with every kind of method in turn. What refers to itself is never freed then. Memory is flat
if it never exceeds that after the tenth time by 5 %.
"""

import argparse
import gc
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from data import anonymous_memory
from lightning.pytorch import Trainer

from lightning_xt import LanguageModel, ParallelText, Seq2Seq, TextFiles
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.methods.contrastive_search import ContrastiveSearch
from lightning_xt.generation.methods.prompt_lookup import PromptLookup

KINDS = ("language", "translation")
METHODS = (None, partial(BeamSearch, beams=4), PromptLookup, ContrastiveSearch)
MOST = 5.0
"""Growth in per cent that is flat."""
PROMPTS = ["the old dog runs", "a cat"]


def build(kind: str, folder: Path) -> tuple[Any, Any]:
    """Build a model and its data."""
    lines = "".join(f"sentence {number} of a small text\n" for number in range(400))
    for name in ("text", "target"):
        (folder / name).write_text(lines)
    file, sizes = str(folder / "text"), {"dim": 64, "depth": 2}
    if kind == "language":
        data: Any = TextFiles(file, seq_len=64, batch_size=8, validation=0.2, test=0)
        return LanguageModel.from_config({"decoder": sizes}), data
    data = ParallelText(file, target_path=str(folder / "target"), tokenizer=SpecialBytes, validation=0.1, test=0)
    model = Seq2Seq.from_config({"encoder": sizes, "decoder": sizes, "val_decode_pairs": 8})
    return model, data


def repeat(work: Callable[[int], object], times: int) -> dict[str, float]:
    """Repeat work; return the memory in MB after the tenth time and its peak from there, and the growth in per cent."""
    looks = []
    for number in range(times):
        work(number)
        looks.append(anonymous_memory("self"))
    start = looks[min(9, times - 1)]
    most = max(looks[min(9, times - 1) :])
    return {"after_10": round(start, 1), "most": round(most, 1), "growth": round(100 * (most / start - 1), 2)}


def measure(kind: str, times: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return the memory of generations and of validations by one kind of model."""
    model, data = build(kind, folder)
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu", devices=1)

    def generate(number: int) -> None:
        options = {"method": METHODS[number % len(METHODS)], "max_new_tokens": 32, "seed": number}
        complete = model.generate if kind == "language" else model.translate
        complete(PROMPTS, **options)

    gc.disable()
    rows = {"generations": repeat(generate, times)}
    rows["validations"] = repeat(lambda number: trainer.validate(model, data, verbose=False), times)
    return rows


def main() -> None:
    """Print the row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--times", type=int, default=300, help="generations, and validations")
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIGHTNING_XT_DATA"] = folder
        rows = measure(args.kind, args.times, Path(folder))
    growth = max(each["growth"] for each in rows.values())
    row = {"value": growth, "unit": "% of the memory after the tenth", "flat": growth < MOST, "times": args.times}
    print(json.dumps(row | rows), flush=True)


if __name__ == "__main__":
    main()
