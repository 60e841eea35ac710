"""A run of a few steps by the command line, and readers of its files."""

from pathlib import Path

import torch

TINY = """
data:
  class_path: TextFiles
  init_args: {path: corpus.txt, seq_len: 8, batch_size: 2, eval_batch_size: 4}
model:
  class_path: LanguageModel
  init_args:
    decoder: {dim: 8, depth: 1, dropout: 0.2, attention: {heads: 2}}
    schedule: {init_args: {warmup_steps: 2}}
trainer: {max_steps: 6, accelerator: cpu, devices: 1, gradient_clip_val: 1.0, log_every_n_steps: 1,
  enable_progress_bar: false}
validate_every: 4
checkpoint_every: 4
sample_text: {generation: {max_new_tokens: 4}, prompts: [a]}
sampling: {max_new_tokens: 4}
"""


def write_inputs(folder):
    (folder / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    (folder / "prompts.txt").write_text("fox\nthe lazy\nü\n", encoding="utf-8")
    (folder / "tiny.yaml").write_text(TINY)


TIMES = dict.fromkeys(
    (
        "speed/tokens_per_second",
        "speed/data_wait",
        "speed/step_ms",
        "speed/mfu",
        "speed/peak_memory_gb",
        "train/seconds",
    ),
    0,
)
"""Metrics in which equal runs may differ."""


def load_weights(run="runs/tiny/0", kind="last"):
    return torch.load(f"{run}/checkpoints/{kind}.ckpt", weights_only=True)["state_dict"]


def read_rows(run="runs/tiny/0"):
    header, *lines = Path(run, "metrics.csv").read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


def list_names(folder):
    return {path.name for path in Path(folder).iterdir()}
