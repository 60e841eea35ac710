"""Translation quality. Usage: python benchmarks/translation.py --config configs/translation/multi30k_cpu.yaml.

Trains by `lightning-xt fit`, translates the test split of Multi30k by `lightning-xt predict`, greedily, and counts:

    bleu_tokenized   both sides normalised, tokenised as Moses does (sacremoses) and lowercased, BLEU of these tokens as
                     they are: how fairseq, and the published figures of small models on this data, count
    bleu             sacreBLEU's own tokens (13a), cased
    chrf             sacreBLEU's chrF

What follows `--` goes to `lightning-xt fit`. --run takes a run that is there instead of training one, and what follows
`--` goes to `predict`: -- --sampling.method BeamSearch --sampling.method.beams 5
"""

import argparse
import gzip
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import report, say

from lightning_xt.data.files.data_folder import data_folder


def main() -> None:
    options = parse()
    if missing := [name for name in ("sacrebleu", "sacremoses") if find_spec(name) is None]:
        say(f"{' and '.join(missing)} not installed; run pip install -e '.[bench]'")
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        seconds = None
        run = options.run
        if run is None:
            start = time.perf_counter()
            run = train(options.config, Path(folder), options.rest)
            seconds = time.perf_counter() - start
        source, target = (split_file(f"{options.split}.{language}") for language in ("en", "de"))
        output = Path(folder) / "output.de"
        checkpoint = Path(run) / "checkpoints" / f"{options.checkpoint}.ckpt"
        command("predict", "-c", f"{run}/config.yaml", f"--ckpt_path={checkpoint}", f"--data.predict_source={source}",
                f"--output={output}", *([] if options.run is None else options.rest))  # fmt: skip
        rows = scores(lines(output), lines(target))
    if seconds is not None:
        rows["seconds"] = {"value": round(seconds, 1), "repeats": 1}
    report(rows, options.device)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/translation/multi30k_cpu.yaml", help="the recipe")
    parser.add_argument("--run", help="a run folder, such as runs/multi30k_cpu/0, to translate with instead")
    parser.add_argument("--checkpoint", default="last", help="which checkpoint of the run translates")
    parser.add_argument("--split", default="test_2016_flickr", choices=("val", "test_2016_flickr"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="what the result is said to be of")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:at])
    options.rest = sys.argv[at + 1 :]
    return options


def train(config: str, folder: Path, rest: Sequence[str]) -> str:
    """Train, and return the run."""
    said = command("fit", "-c", config, f"--trainer.default_root_dir={folder}", *rest)
    return next(line.removeprefix("run=") for line in said.splitlines() if line.startswith("run="))


def command(*args: str) -> str:
    done = subprocess.run([sys.executable, "-m", "lightning_xt", *args], stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        say(line)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def split_file(name: str) -> Path:
    """Return the path of a file of Multi30k, plain or .gz."""
    folder = data_folder() / "multi30k"
    found = next((folder / each for each in (name, f"{name}.gz") if (folder / each).is_file()), None)
    if found is None:
        sys.exit(f"{folder} has no {name}; set LIGHTNING_XT_DATA to the folder that holds multi30k, or train first")
    return found


def lines(file: Path) -> list[str]:
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return content.decode("utf-8").removesuffix("\n").split("\n")


def scores(found: list[str], references: list[str]) -> dict[str, dict[str, Any]]:
    """Return BLEU in both ways, and chrF."""
    import sacrebleu
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalize, tokenize = MosesPunctNormalizer(lang="de").normalize, MosesTokenizer(lang="de").tokenize

    def moses(text: str) -> str:
        return str(tokenize(normalize(text), return_str=True)).lower()

    def row(metric: Any, ours: list[str], theirs: list[str]) -> dict[str, Any]:
        score = metric.corpus_score(ours, [theirs])
        return {"value": round(score.score, 2), "sentences": len(ours), "signature": str(metric.get_signature())}

    return {
        "bleu_tokenized": row(
            sacrebleu.BLEU(tokenize="none", force=True), [moses(t) for t in found], [moses(t) for t in references]
        ),
        "bleu": row(sacrebleu.BLEU(), found, references),
        "chrf": row(sacrebleu.CHRF(), found, references),
    }


if __name__ == "__main__":
    main()
