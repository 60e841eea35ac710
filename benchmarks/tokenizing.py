"""Speed and memory of tokenizing a corpus. Usage: python benchmarks/tokenizing.py.

A text of --megabytes is made of Python's standard library, and of tinyshakespeare and Multi30k if the data folder has
them, repeated with other words. A byte-level BPE of --vocab_size ids is trained on a part of it. `ours` is what `fit`
does with `--data TextFiles --data.tokenizer BPE --data.tokenizer.file ...` before the first step: read the text, encode
it, write the tokens to the disk; the hash of the text is a part of it. `theirs` is the encode_batch of the tokenizers
library for the same pieces of the text, in memory already, and `theirs_fast` its encode_batch_fast. Each runs in a
separate process, in turn, on all cores. `value` is our speed as a fraction of theirs; `cpu` is the same for the
seconds of all cores, which other programs disturb less. Memory is the growth of RssAnon of /proc/self/status.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from common import report, say

from lightning_xt.data.files.data_folder import data_folder
from lightning_xt.data.files.reading import read_raw_blocks
from lightning_xt.data.text.pieces import cut_pieces
from lightning_xt.data.text.standard_library import list_sources, standard_library_folder
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.tokenizers.bpe import BPE

TRAINED_ON = 8_000_000
"""Bytes of the text on which the tokenizer is trained."""
BATCH = 1 << 21
"""Bytes of a call of the library."""
WORDS = re.compile(rb"[a-z]{5,}")
LEGS = ("ours", "theirs", "theirs_fast")


def main() -> None:
    options = parse()
    if options.leg is not None:
        print(json.dumps(measure(options.leg, options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(options, Path(folder))
    report(rows, "cpu")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100, help="size of the text")
    parser.add_argument("--vocab_size", type=int, default=8192, help="ids of the tokenizer")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each leg")
    parser.add_argument("--leg", choices=LEGS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Make the text and the tokenizer, run the legs in turn, and return the row."""
    size = int(options.megabytes * 1e6)
    with open(folder / "corpus.txt", "wb") as file:
        for block in make_text(size):
            file.write(block)
    tokenizer = BPE(options.vocab_size)
    with open(folder / "corpus.txt", encoding="utf-8", errors="replace") as file:
        text = file.read(TRAINED_ON)
    tokenizer.train(lambda: (text[place : place + 100_000] for place in range(0, len(text), 100_000)))
    (folder / "tokenizer.json").write_text(str(tokenizer.trained_state), encoding="utf-8")
    made: dict[str, list[dict[str, float]]] = {leg: [] for leg in LEGS}
    for repeat in range(options.repeats):
        for leg in LEGS:
            made[leg].append(run(leg, folder))
            say(f"repeat {repeat + 1}/{options.repeats}  {leg}: {made[leg][-1]}")
    ours = made["ours"]

    def ratio(kind: str, leg: str) -> list[float]:
        return [theirs[kind] / own[kind] for own, theirs in zip(ours, made[leg], strict=True)]

    row = {
        "value": round(statistics.median(ratio("seconds", "theirs")), 3),
        "spread": [round(each(ratio("seconds", "theirs")), 3) for each in (min, max)],
        "cpu": round(statistics.median(ratio("cpu", "theirs")), 3),
        "value_to_fast": round(statistics.median(ratio("seconds", "theirs_fast")), 3),
        "cpu_to_fast": round(statistics.median(ratio("cpu", "theirs_fast")), 3),
        "megabytes": size / 1e6,
        "megabytes_per_second": round(size / 1e6 / statistics.median(each["seconds"] for each in ours), 2),
        "tokens": ours[0]["tokens"],
        "memory_growth_mb": round(max(each["memory"] for each in ours) / 1e6, 1),
        "memory_growth_mb_theirs": round(max(each["memory"] for each in made["theirs"]) / 1e6, 1),
        "repeats": options.repeats,
    }
    return {"tokenizing": row}


def make_text(size: int) -> Iterator[bytes]:
    """Yield a text of at least that many bytes: the sources in turn, each time with other words in other lines."""
    files = [*list_sources(standard_library_folder()), *sorted(data_folder().glob("*/*.txt"))]
    sources = [file.read_bytes() for file in [*files, *sorted(data_folder().glob("*/*.en"))]]
    draw, written, first = random.Random(0), 0, True
    while written < size:
        for source in sources:
            block = source if first else vary(source, draw)
            yield block
            written += len(block)
            if written >= size:
                return
        first = False


def vary(source: bytes, draw: random.Random) -> bytes:
    """Shuffle the lines of a text, and replace one of eight longer words by another."""
    shift = draw.randrange(1, 26)
    table = bytes.maketrans(bytes(range(97, 123)), bytes(97 + (n + shift) % 26 for n in range(26)))

    def replace(word: re.Match[bytes]) -> bytes:
        return word[0].translate(table) if draw.random() < 0.125 else word[0]

    lines = source.splitlines(keepends=True)
    draw.shuffle(lines)
    return WORDS.sub(replace, b"".join(lines))


def run(leg: str, folder: Path) -> dict[str, float]:
    """Run a leg in a separate process, with an empty data folder."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        command = [sys.executable, __file__, "--leg", leg, "--folder", str(folder)]
        environment = {**os.environ, "LIGHTNING_XT_DATA": data}
        made = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(made.stdout.splitlines()[-1]))


def measure(leg: str, folder: Path) -> dict[str, float]:
    """Run a leg in this process; return its seconds, those of all cores, its tokens and its growth of memory."""
    work = prepare_ours(folder) if leg == "ours" else prepare_theirs(folder, fast=leg == "theirs_fast")
    watch = MemoryWatch()
    start, cpu = time.perf_counter(), time.process_time()
    tokens = work()
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": round(seconds, 3), "cpu": round(used, 3), "tokens": tokens, "memory": watch.stop()}


def prepare_ours(folder: Path) -> Callable[[], int]:
    """Return the work of a corpus before the first step."""
    tokenizer = partial(BPE, 259, file=str(folder / "tokenizer.json"))
    data = TextFiles(str(folder / "corpus.txt"), validation=0.0, test=0.0, tokenizer=tokenizer)

    def work() -> int:
        data.prepare_data()
        data.setup("fit")
        return len(data.splits.train)

    return work


def prepare_theirs(folder: Path, *, fast: bool) -> Callable[[], int]:
    """Return the work of the library."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.encode_special_tokens = True
    encode = library.encode_batch_fast if fast else library.encode_batch
    batches: list[list[str]] = [[]]
    size = 0
    for piece in cut_pieces(read_raw_blocks(folder / "corpus.txt"), None):
        if size >= BATCH:
            batches.append([])
            size = 0
        batches[-1].append(piece.content.decode("utf-8", errors="replace"))
        size += len(piece.content)
    return lambda: sum(len(each) for batch in batches for each in encode(batch, add_special_tokens=False))


class MemoryWatch:
    """Largest growth of the anonymous memory of this process."""

    def __init__(self) -> None:
        self._before = self._most = read_anonymous_memory()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return the bytes."""
        self._stopped.set()
        self._thread.join()
        return self._most - self._before

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            self._most = max(self._most, read_anonymous_memory())


def read_anonymous_memory() -> int:
    """Return RssAnon in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


if __name__ == "__main__":
    main()
