"""Contents of a starter, and what all starters share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from string import Template

import yaml

from lightning_xt.system.cores import count_usable_cores

COLUMN = 32
"""Characters of an option before its comment."""
CORES = 2
"""Cores on which the configs take about five minutes."""
HEAD = """
# $title, written by lightning-xt init.
#
#   lightning-xt fit -c config.yaml -c trainer/debug.yaml   tries ten steps, and saves nothing
#   lightning-xt fit -c config.yaml                         trains it: some five minutes on two CPU cores, less on a GPU
#   lightning-xt fit -c config.yaml --print_config          prints every option with its value
#   lightning-xt fit --model.$part.help                   explains the options of a class
#   lightning-xt schema --output schema.json                lets an editor complete and check this file
name: $name               # runs are written to runs/$name/0, 1, ...
seed_everything: 0        # of all random numbers: the same seed trains the same model
"""
"""Beginning of every config."""
TRAINER = """
trainer:
  max_steps: $steps         # more steps, a better model, until validation no longer improves
  gradient_clip_val: 1.0
  log_every_n_steps: 50
validate_every: $interval       # steps; the best model is kept in checkpoints/best.ckpt
"""
"""Options of the Trainer in every config."""


@dataclass(frozen=True, kw_only=True)
class Starter:
    """Contents of a starter.

    Args:
        config: text of its config.
        found: sentence about its data.
        commands: the next commands of a user.
        files: texts of its other files, by name.
    """

    config: str
    found: str
    commands: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)


def name_run(root: Path) -> str:
    """Return the name of the runs of a folder."""
    return root.resolve().name or "mine"


def refer(root: Path, path: str) -> str:
    """Return a path as the config of a folder names it: relative if it is within the folder."""
    whole = os.path.abspath(os.path.expanduser(path))
    inner = os.path.relpath(whole, os.path.realpath(root))
    return whole if inner.startswith(os.pardir) else inner


def list_commands(evaluation: str, name: str, prompt: str) -> tuple[str, ...]:
    """Return the commands that come next: a trial, the training, an evaluation by its name, and a generation."""
    return (
        "lightning-xt fit -c config.yaml -c trainer/debug.yaml",
        "lightning-xt fit -c config.yaml",
        f"lightning-xt {evaluation} runs/{quote(name)}",
        f"lightning-xt generate runs/{quote(name)} --prompt {quote(prompt)}",
    )


def fill(template: str, values: Mapping[str, object]) -> str:
    """Fill the template of a config's data and model, between what every config has; a text becomes a value of YAML."""
    texts = {name: _format(value) for name, value in values.items()}
    whole = "\n".join(part.strip("\n") for part in (HEAD, template, TRAINER))
    lines = (_fill_line(line, texts) for line in whole.splitlines())
    return "".join(f"{line}\n" for line in lines)


def _fill_line(line: str, texts: Mapping[str, str]) -> str:
    if line.lstrip().startswith("#"):
        return Template(line).substitute(texts)
    option, mark, comment = line.partition("  # ")
    found = Template(option.rstrip()).substitute(texts)
    return f"{found:{COLUMN}}  # {Template(comment.strip()).substitute(texts)}" if mark else found


def count_steps(steps: int) -> int:
    """Return the optimizer steps of about five minutes on this machine, of those that two cores take."""
    return steps if count_usable_cores() >= CORES else steps // 2


def _format(value: object) -> str:
    """Return a value in YAML, on one line."""
    return (
        yaml.safe_dump(value, width=1 << 20, allow_unicode=True, default_flow_style=True)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
