"""Starter of a translator on pairs of texts."""

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from lightning_xt.commands.starter.number_words import write_pairs
from lightning_xt.commands.starter.starter import Starter, count_steps, fill, list_commands, name_run, refer
from lightning_xt.system.messages import UserError

LEAST = 20
"""Pairs of which some are left to train on."""
WORDS = 12
"""Words of a source in the command that comes next."""
HELD_OUT = 1000
"""Pairs of the validation split, and of the test split, that are enough."""
BYTES = 2_000_000
"""Bytes of text below which a tokenizer of sub-words learns too little."""
CONFIG = """
data:
  class_path: ParallelText
  init_args:
    path: $path           # the sources, one a line; or a .tsv file with a source, a tab and a target on each line
$target    validation: $held_out      # fraction of the pairs that is measured, and not trained on: the last ones
    test: $held_out            # likewise, for lightning-xt test
    tokenizer: $tokenizer
    max_length: $longest       # tokens; longer pairs are not trained on
    max_tokens: 2048      # of a step; on a GPU 16000 and more
model:
  class_path: Seq2Seq
  init_args:
    shared_embedding: true    # one table of embeddings for both languages
    encoder:              # reads the source
      dim: 128            # width, the same on both sides; 512 on a GPU
      depth: 3
      dropout: 0.1
      attention: {heads: 4, qk_norm: RMSNorm}
    decoder:              # writes the target
      dim: 128
      depth: 3
      dropout: 0.1
      attention: {heads: 4, qk_norm: RMSNorm}
      cross_attention: {class_path: Attention, init_args: {heads: 4, position: null, qk_norm: RMSNorm}}
      head: TiedHead
    objective: {class_path: NextToken, init_args: {label_smoothing: 0.1}}
    optimizer:
      class_path: MuonAdamW
      init_args: {lr: 0.02, adamw_lr: 0.004}
    schedule:
      class_path: WarmupStableDecay
      init_args: {warmup_steps: 100, decay: 0.6, min_fraction: 0.0}  # warmup_steps: fewer than max_steps
"""
README = """
This folder holds the pairs that the model learns. `pairs.tsv` is an example, numbers in English and in German: replace
it by your own file, with a source, a tab and a target on each line, in UTF-8. Two files with the same number of lines
do as well: `path` and `target_path` in `../config.yaml`.
"""


def describe_pairs(root: Path, path: str, target_path: str | None) -> Starter:
    """Return the starter for the user's pairs.

    Raises:
        UserError: the files do not hold pairs, or too few.
    """
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.data.pairs.pair_files import read_pairs

    path, target_path = _find_sides(path, target_path)
    try:
        pairs = read_pairs("--data.path", path, target_path, None)
    except (OSError, ValueError) as error:
        raise UserError(f"init: {str(error).replace('--data.', '--')}") from error
    count = len(pairs.sources)
    if count < LEAST:
        raise UserError(f"init: --path {path} holds {count} pairs, which is too little; give {LEAST} or more")
    found = f"Found {count:,} pairs"
    target = None if target_path is None else refer(root, target_path)
    return _make(root, refer(root, path), target, pairs.sources, pairs.targets, found)


def make_sample_pairs(root: Path) -> Starter:
    """Return the starter with a sample of pairs."""
    text = write_pairs()
    sources, targets = zip(*(line.split("\t") for line in text.splitlines()), strict=True)
    found = f"data/pairs.tsv is an example of {len(sources):,} pairs; replace it by your own"
    files = {"data/pairs.tsv": text, "data/README.md": README.lstrip("\n")}
    return _make(root, "data/pairs.tsv", None, sources, targets, found, files)


def _find_sides(path: str, target_path: str | None) -> tuple[str, str | None]:
    """Return the files of pairs; of a folder the only one that holds both sides."""
    folder = Path(path)
    if target_path is not None or not folder.is_dir():
        return path, target_path
    files = sorted(each for each in folder.iterdir() if each.is_file() and not each.name.startswith("."))
    both = [each for each in files if each.name.endswith((".tsv", ".tsv.gz"))]
    if len(both) == 1:
        return str(both[0]), None
    stems = {each.stem: [other for other in files if other.stem == each.stem] for each in files}
    pairs = [sides for sides in stems.values() if len(sides) == 2]
    offer = ""
    if pairs:
        # Files of training are larger than those of validation.
        target, source = max(pairs, key=lambda sides: sides[0].stat().st_size)
        offer = f", such as --path {quote(str(source))} --target_path {quote(str(target))}"
    raise UserError(f"init: --path {path} is a folder; name the file of the sources and that of the targets{offer}")


def _make(
    root: Path, path: str, target: str | None, sources: Sequence[str], targets: Sequence[str], found: str,
    files: dict[str, str] | None = None,
) -> Starter:  # fmt: skip
    name, steps, count = name_run(root), count_steps(1400), len(sources)
    size = sum(len(each.encode()) for side in (sources, targets) for each in side)
    whole = size < BYTES
    lengths = sorted(max(len(a.encode()), len(b.encode())) for a, b in zip(sources, targets, strict=True))
    config = fill(
        CONFIG.replace("$target", "" if target is None else "    target_path: $target  # the targets, line by line\n"),
        {
            "title": "A translator on your own pairs of texts", "part": "encoder",
            "name": name, "path": path, "target": target, "steps": steps, "interval": steps // 4,
            "held_out": float(f"{min(0.05, HELD_OUT / count):.2g}"),
            "tokenizer": "SpecialBytes" if whole else {"class_path": "BPE", "init_args": {"vocab_size": 4000}},
            # One pair in a hundred may be longer.
            "longest": max(16, min(256, lengths[int(0.99 * (count - 1))] + 2)) if whole else 100,
        },
    )  # fmt: skip
    prompt = " ".join(next((each for each in sources if each.strip()), "").split()[:WORDS])
    return Starter(
        config=config,
        found=found,
        files=files or {},
        commands=list_commands("test", name, prompt),
    )
