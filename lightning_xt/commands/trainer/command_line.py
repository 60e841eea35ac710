"""LightningCLI with our models, data and runs."""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.runs import checkpoint_file
from lightning_xt.commands.errors.out_of_memory import explain_out_of_memory
from lightning_xt.commands.options.arguments import list_options, read_run_options
from lightning_xt.commands.options.config_files import ConfigFiles
from lightning_xt.commands.options.option_help import OptionHelp
from lightning_xt.commands.trainer.cluster import adopt_trainer, choose_environments
from lightning_xt.commands.trainer.decoding_options import choose_decoding, list_unused
from lightning_xt.commands.trainer.plain_options import PlainOptions
from lightning_xt.commands.trainer.results import are_of_best, collect_metrics, print_results
from lightning_xt.commands.trainer.run_choice import Resolved, resolve
from lightning_xt.commands.trainer.standard_parts import StandardParts, choose_callbacks, choose_loggers
from lightning_xt.commands.trainer.trainer_options import (
    CALLBACKS,
    TRAINER_DEFAULTS,
    add_trainer_options,
    check_beginning,
    check_options,
    set_intervals,
)
from lightning_xt.commands.trainer.weight_checks import explain_misfit, list_differences, load_weights, refuse_adapter
from lightning_xt.data.base import DataModule
from lightning_xt.system.files import replace_file
from lightning_xt.system.free_memory import refuse_without_memory
from lightning_xt.system.garbage import pause_garbage_collection
from lightning_xt.system.imports import guarded_imports, imported
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import OwnError, UserError, find_own_sentence, make_visible
from lightning_xt.training.atomic_checkpoint_io import hand_on
from lightning_xt.training.callback_checks import AVERAGES, check_callback_class, check_callback_names
from lightning_xt.training.callbacks.preemption import take_over_signals
from lightning_xt.training.callbacks.run_folder import find_run_folder
from lightning_xt.training.callbacks.start_banner import announce
from lightning_xt.training.config_parser import ConfigParser
from lightning_xt.training.faster_parsing import faster_parsing
from lightning_xt.training.option_values import check_values, refuse_nulls
from lightning_xt.training.parse_errors import check_text, explain_failed_class, explain_parse_error
from lightning_xt.training.strategies.process_watchdog import exit_together, watch
from lightning_xt.training.strategies.strategy_checks import check_plugins, check_strategy_option

ENV_PREFIX = "LXT"
OF_ONE_COMMAND = ("ckpt_path", "weights_only", "verbose", "return_predictions", "config", "output")
"""Options that the config of a run does not keep."""
OUR_PLACES = ("lightning_xt.", "torch.")
"""Modules whose classes have only defaults that a config can hold."""


@rank_zero_only
def _say(line: str) -> None:
    print(make_visible(line), flush=True)


def _as_list(value: Any) -> list[Any]:
    """Return the values of an option of the Trainer that takes none, one or several."""
    return value if isinstance(value, list) else [] if value is None else [value]


class CommandLine(LightningCLI):
    """LightningCLI of one command, with runs; `callbacks` are added to the Trainer's."""

    resolved: Resolved

    def __init__(self, command: str, args: Sequence[str], callbacks: Sequence[Callback] = ()) -> None:
        self._command, self._args, self._added = command, args, callbacks
        check_text(args)
        self._given = read_run_options(command, args)
        self._configs = ConfigFiles(self._given.config, args)
        self._plain_options, self._with_links = PlainOptions(), PlainOptions(skip_link_targets=False)
        # Reading the environment takes as long as all the rest of parsing.
        from_environment = any(name.startswith(ENV_PREFIX + "_") for name in os.environ)
        parser = {"env_prefix": ENV_PREFIX, "default_env": from_environment, "exit_on_error": False}
        super().__init__(
            LightningModule,
            DataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            parser_class=ConfigParser,
            parser_kwargs={**parser, self._command: dict(parser)},
            args=[command, *args],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the one command that was given: a parser of each would take as long again, thrice."""
        return {self._command: LightningCLI.subcommands()[self._command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_trainer_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self._print_help(args[1:])
        check_callback_names(args, self._configs.contents.values())
        # Lightning warns of arguments given besides those of the process; here it is what `main` is for.
        given, sys.argv = sys.argv, sys.argv[:1]
        try:
            with self._configs.serving(), pause_garbage_collection():
                super().parse_arguments(parser, args)
        except ArgumentError as error:
            options = list_options(self._parser(self._command))
            raise UserError(find_own_sentence(error) or explain_parse_error(str(error), options)) from error
        finally:
            sys.argv = given
        if command := self.config.get("subcommand"):
            check_beginning(command, self.config[command], args)

    def _print_help(self, args: Sequence[str]) -> None:
        """Print the help that a command line asks for, and end."""
        parser = self._parser(self._command)
        summary = importlib.import_module(f"lightning_xt.commands.{self._command}").SUMMARY
        text = OptionHelp(self._command, summary, parser, list_unused(self._command)).find_request(args)
        if text is not None:
            print(text)
            raise SystemExit(0)

    def _parse_ckpt_path(self) -> None:
        # Lightning's would let the checkpoint's options win over those of files and flags.
        command = self.config.subcommand
        options = self.config[command]
        self.resolved = resolve(command, options, self._configs.contents, self._given.name)
        for note in self.resolved.notes:
            _say(note)
        checkpoint = self.resolved.checkpoint
        weights = checkpoint or self.resolved.start
        if weights is not None:
            for line in list_differences(weights, self._plain()["model"]):
                _say(line)
        options.ckpt_path = None if checkpoint is None else str(checkpoint.path)
        options.name = self.resolved.runs.name

    def before_instantiate_classes(self) -> None:
        options = self.config[self.subcommand]
        refuse_nulls(self._parser(str(self.subcommand))._actions, options)
        check_options(str(self.subcommand), options)
        for each in _as_list(options.trainer.callbacks):
            check_callback_class(imported(each.class_path) or Callback, AVERAGES)
        check_strategy_option(options.trainer.strategy)
        if self.subcommand == "fit":
            set_intervals(options, self._configs.contents)
        for name, value in (plain := self._plain()).items():
            check_values(value, name)
        if any(not path.startswith(OUR_PLACES) for path in re.findall(r'"class_path": "([^"]*)', to_json(plain))):
            self._check_config(plain)

    def _check_config(self, plain: dict[str, Any]) -> None:
        """Raise a UserError if the config of the run could not be read back."""
        try:
            with guarded_imports():
                self._parser(str(self.subcommand)).parse_object(plain)
        except (ArgumentError, ValueError) as error:
            sentence = find_own_sentence(error) or explain_parse_error(str(error), ())
            raise UserError(
                f"the run's config.yaml could not be read back: {sentence}; let the class have a text, a "
                "number or null there by default"
            ) from error

    def instantiate_classes(self) -> None:
        try:
            with refuse_without_memory(), faster_parsing():
                super().instantiate_classes()
        except (MemoryError, RuntimeError, ValueError) as error:
            sentence = explain_out_of_memory(error, None, self._plain(), self.resolved.folder)
            if sentence := sentence or find_own_sentence(error) or explain_failed_class(str(error)):
                raise UserError(sentence) from error
            raise

    def before_fit(self) -> None:
        if self.resolved.start is not None:
            load_weights(self.model, self.resolved.start)
        elif self.resolved.checkpoint is None:
            refuse_adapter(self.model)
        announce(self.trainer, self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = dict(self._get(self.config_init, "trainer"))
        standard: StandardParts = self._get(self.config_init, "standard")
        kwargs["logger"] = choose_loggers(str(self.subcommand), config["logger"])
        callbacks = [] if config.get("fast_dev_run") else self._callbacks(standard)
        given = choose_callbacks(_as_list(config["callbacks"]))
        bar = None if any(isinstance(each, ProgressBar) for each in given) else standard.progress_bar
        if config["enable_progress_bar"] is not False and bar is not None:
            callbacks.append(bar())
        named = [*filter(None, (self._get(self.config_init, name) for name in CALLBACKS)), *self._added]
        # The run folder first: the run's loggers exist when other callbacks look for them.
        kwargs["callbacks"] = [*callbacks[:1], *given, *callbacks[1:], *standard.model_callbacks(), *named]
        self.model.own_callbacks, self.model.planned_steps = (), config["max_steps"]
        check_plugins(plugins := _as_list(config["plugins"]))
        kwargs["plugins"] = [*plugins, *choose_environments(config["strategy"], plugins)]
        if standard.checkpoint_io is not None and not any(isinstance(each, CheckpointIO) for each in plugins):
            kwargs["plugins"].append(standard.checkpoint_io())
        if config.get("enable_checkpointing") is None:
            # Lightning would add its own callback if there is none.
            kwargs["enable_checkpointing"] = any(isinstance(each, CheckpointCallback) for each in kwargs["callbacks"])
        trainer = super().instantiate_trainer(**kwargs)
        hand_on(self.resolved.checkpoint, trainer)
        adopt_trainer(trainer, self._plain())
        if self.subcommand == "fit":
            take_over_signals(trainer)
        watch(trainer)
        return trainer

    def _callbacks(self, standard: StandardParts) -> list[Callback]:
        options, write = self.config[self.subcommand], standard.write_predictions
        if self.subcommand != "predict":
            return standard.callbacks(str(self.subcommand), options, self.resolved, self._save_config)
        return [] if write is None else [write(Path(options.output), self._get(self.config_init, "sampling"))]

    def _save_config(self, file: Path) -> None:
        """Write the config that repeats or resumes this run, without what belongs to one command only."""
        saved = {name: value for name, value in self._plain().items() if name not in OF_ONE_COMMAND}
        for name in ("val_check_interval", "check_val_every_n_epoch"):
            # Follow from validate_every.
            saved["trainer"].pop(name, None)
        with replace_file(file) as out:
            out.write(yaml.safe_dump(saved, sort_keys=False).encode("utf-8"))

    def _plain(self) -> dict[str, Any]:
        """Return the command's options as plain values."""
        return self._plain_options.read(self._parser(self.config.subcommand), self.config[self.config.subcommand])

    def _dump_config(self) -> None:
        # Lightning's writes and reads YAML, which takes as long as a sixth of parsing.
        self.config_dump = self._with_links.read(self._parser(self.config.subcommand), self.config[self.subcommand])

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand in ("validate", "test"):
            kwargs["verbose"] = False
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return kwargs

    def _run_subcommand(self, subcommand: str) -> None:
        choose_decoding(subcommand, self._args, self.model, self._get(self.config_init, "sampling"))
        try:
            with exit_together(self.trainer):
                super()._run_subcommand(subcommand)
        except (MemoryError, RuntimeError, ValueError) as error:
            phase = getattr(self.model, "phase", None)
            if sentence := explain_out_of_memory(error, phase, self._plain(), self._folder):
                raise OwnError(sentence) from error
            checkpoint = self.resolved.checkpoint
            if checkpoint is None or "Error(s) in loading state_dict" not in str(error):
                raise
            raise UserError(explain_misfit(checkpoint, self.model)) from error

    def after_fit(self) -> None:
        """Validate the best checkpoint, unless the last validation was of it, and print what a user does next."""
        best = None if self._folder is None else checkpoint_file(self._folder, "best")
        metrics = collect_metrics(self.trainer, "val/")
        if best is not None and best.is_file():
            checkpoint = Checkpoint(best)
            if not are_of_best(metrics, self.trainer, checkpoint.step):
                # Not into the logs: this measures an earlier step.
                self.trainer.loggers = []
                hand_on(checkpoint, self.trainer)
                self.trainer.validate(self.model, self.datamodule, ckpt_path=str(best), verbose=False)
                metrics = collect_metrics(self.trainer, "val/")
        self._report(metrics)

    def after_validate(self) -> None:
        self._report(collect_metrics(self.trainer, "val/"))

    def after_test(self) -> None:
        self._report(collect_metrics(self.trainer, "test/"))

    def after_predict(self) -> None:
        if self.trainer.is_global_zero:
            print(f"output={self.config.predict.output}")
        self._report({})

    @property
    def _folder(self) -> Path | None:
        return find_run_folder(self.trainer) if self.subcommand == "fit" else self.resolved.folder

    def _report(self, metrics: dict[str, float]) -> None:
        print_results(str(self.subcommand), self.trainer, self._folder, metrics)
