"""Translations and speed of CTranslate2 next to ours. Usage: python benchmarks/exchange.py --run runs/marian_small/0.

Exports a run to CTranslate2, translates sentences of Multi30k greedily by both, one after the other in each repeat, and
counts:

    same_float32, same_int8      sentences with the same translation as ours in float32
    ours_*, ctranslate2_*        seconds for all sentences, in float32 and with int8 weights: the median of the repeats
    ratio_float32, ratio_int8    ours divided by theirs, the median of the ratios within a repeat

Both translate batches of 64 sentences of similar length with --threads threads. Ours is what `predict` does: tokenizing
and detokenizing included on both sides. Without --run, a model of random weights translates made-up sentences, as a
test of the script.
"""

import argparse
import copy
import gc
import gzip
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from common import report, say
from tokenizers import Tokenizer

from lightning_xt import Seq2Seq
from lightning_xt.commands.models.inference import Inference
from lightning_xt.commands.models.loading import load
from lightning_xt.data.files.data_folder import data_folder
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.c_translate2 import CTranslate2

BATCH = 64
LONGEST = 128
"""Most tokens of a translation."""
RANDOM: dict[str, Any] = {
    side: {"dim": 16, "depth": 1, "attention": {"heads": 2, "position": None}} for side in ("encoder", "decoder")
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    module, texts = make_model(options.run), read_texts(options.sentences, options.run is None)
    with tempfile.TemporaryDirectory() as folder:
        form, model = CTranslate2(), ExportedModel(options.run or "random", module, ExportOptions())
        form.check(model)
        form.write(model, Path(folder))
        say(str(form.verify(model, Path(folder))))
        ways = {
            f"{name}_{weights}": way
            for weights in ("float32", "int8")
            for name, way in (
                ("ours", build_ours(module, weights)),
                ("ctranslate2", build_theirs(Path(folder), weights, options.threads)),
            )
        }
        report(measure(ways, texts, options.repeats), "cpu", ("ctranslate2",))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a run whose model CTranslate2 computes, such as one of marian_small.yaml")
    parser.add_argument("--sentences", type=int, default=1000, help="sentences of test_2016_flickr (1000)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads of each (1)")
    return parser.parse_args()


def make_model(run: str | None) -> Seq2Seq:
    if run is None:
        torch.manual_seed(0)
        cross = {"class_path": "Attention", "init_args": {"heads": 2, "position": None}}
        made = Seq2Seq.from_config({**RANDOM, "decoder": {**RANDOM["decoder"], "cross_attention": cross}}).eval()
        with torch.no_grad():
            # The head starts at zero.
            for each in made.parameters():
                each.add_(0.3 * torch.randn_like(each))
        return made
    found = load(run).cpu()
    assert isinstance(found, Seq2Seq)
    return found


def read_texts(count: int, made_up: bool) -> list[str]:
    if made_up:
        return [f"sentence number {number}" for number in range(count)]
    file = data_folder() / "multi30k" / "test_2016_flickr.en.gz"
    return gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()[:count]


def build_ours(module: Seq2Seq, weights: Any) -> Callable[[list[str]], list[str]]:
    """Return a translator of texts, with the weights of `predict --weights`."""
    own = copy.deepcopy(module)
    Inference(weights=weights).apply(own)
    return lambda texts: list(own.translate(texts, max_new_tokens=LONGEST, batch=BATCH))


def build_theirs(folder: Path, weights: str, threads: int) -> Callable[[list[str]], list[str]]:
    translator = ctranslate2.Translator(str(folder), compute_type=weights, inter_threads=1, intra_threads=threads)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    options: dict[str, Any] = {"beam_size": 1, "min_decoding_length": 0, "max_decoding_length": LONGEST}

    def translate(texts: list[str]) -> list[str]:
        tokens = [each.tokens for each in tokenizer.encode_batch(texts)]
        found = translator.translate_batch(tokens, max_batch_size=BATCH, **options)
        return tokenizer.decode_batch([list(map(tokenizer.token_to_id, each.hypotheses[0])) for each in found])

    return translate


def measure(ways: dict[str, Callable[[list[str]], list[str]]], texts: list[str], repeats: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[str]] = {}
    for name, way in ways.items():
        way(texts[:BATCH])
        say(f"{name} is warm")
    for repeat in range(repeats):
        for name, way in ways.items():
            gc.collect()
            start = time.perf_counter()
            found[name] = way(texts)
            seconds[name].append(time.perf_counter() - start)
            say(f"repeat {repeat}: {name} {seconds[name][-1]:.2f} s")
    rows: dict[str, Any] = {
        f"same_{weights}": {
            "value": count_same(found["ours_float32"], found[f"ctranslate2_{weights}"]),
            "of": len(texts),
        }
        for weights in ("float32", "int8")
    }
    rows["same_ours_int8"] = {"value": count_same(found["ours_float32"], found["ours_int8"]), "of": len(texts)}
    for name, each in seconds.items():
        rows[name] = {"value": round(statistics.median(each), 3), "repeats": repeats, "unit": "s"}
    for weights in ("float32", "int8"):
        pairs = zip(seconds[f"ours_{weights}"], seconds[f"ctranslate2_{weights}"], strict=True)
        rows[f"ratio_{weights}"] = {"value": round(statistics.median(a / b for a, b in pairs), 3), "repeats": repeats}
    return rows


def count_same(ours: list[str], theirs: list[str]) -> int:
    return sum(a == b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
