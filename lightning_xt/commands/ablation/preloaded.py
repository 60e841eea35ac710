"""Modules that all runs of an ablation need: a process that has imported this one is forked for each run."""

import importlib

from lightning_xt.commands.models.import_lightning import import_variants

# Every variant, for most are named by one overlay or another.
import_variants()
importlib.import_module("lightning_xt.commands.trainer.command_line")
