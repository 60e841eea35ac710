"""Made-up sentence pairs, and an encoder-decoder that learns them in seconds."""

import random

MEANINGS = {"a": "ein", "red": "roter", "old": "alter", "dog": "Hund", "man": "Mann", "runs": "läuft", "sits": "sitzt"}
NETWORK = {
    "encoder": {"dim": 16, "depth": 1, "attention": {"heads": 2, "position": "Rotary"}},
    "decoder": {"dim": 16, "depth": 1, "attention": {"heads": 2, "position": "Rotary"}},
}
PAIRS = """
data:
  class_path: ParallelText
  init_args:
    {path: pairs.en, target_path: pairs.de, validation: 0.2, max_tokens: 256,
    tokenizer: {class_path: BPE, init_args: {vocab_size: 280}}}
model:
  class_path: Seq2Seq
  init_args:
    encoder: {dim: 16, depth: 1, attention: {heads: 2, position: Rotary}}
    decoder: {dim: 16, depth: 1, attention: {heads: 2, position: Rotary}, dropout: 0.2}
    schedule: {init_args: {warmup_steps: 2}}
trainer: {max_steps: 6, accelerator: cpu, devices: 1, gradient_clip_val: 1.0, log_every_n_steps: 1,
  enable_progress_bar: false}
validate_every: 4
checkpoint_every: 4
"""


def sentences(count):
    """Return pairs of one to six words, the same ones every time."""
    chance = random.Random(0)
    sources = [chance.choices(list(MEANINGS), k=chance.randint(1, 6)) for _ in range(count)]
    return [(" ".join(words), " ".join(MEANINGS[word] for word in reversed(words))) for words in sources]


def write_pairs(folder, count=60):
    pairs = sentences(count)
    (folder / "pairs.en").write_text("".join(f"{source}\n" for source, _ in pairs), encoding="utf-8")
    (folder / "pairs.de").write_text("".join(f"{target}\n" for _, target in pairs), encoding="utf-8")
    (folder / "pairs.yaml").write_text(PAIRS)
