"""The command line: fit, validate, test, predict, generate, info and average."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from lightning_xt.system.garbage import no_garbage_collection
from lightning_xt.system.messages import OwnError, UserError, sentence_for, unknown
from lightning_xt.system.stopping import INTERRUPTED, PREEMPTED, TERMINATED, Stopped, StopSignals, processes_of_run

HELP = """\
usage: lightning-xt COMMAND [options]

  fit        train:     lightning-xt fit -c configs/language/quickstart.yaml [-c overlay.yaml] [--key value]
  validate   measure:   lightning-xt validate -c runs/NAME/N/config.yaml --ckpt_path best
  test       measure on the test split, likewise
  predict    continue the prompts of a file:  lightning-xt predict -c runs/NAME/N/config.yaml --ckpt_path best
             --data.predict_prompts prompts.txt --output out.jsonl
             or translate its lines:  ... --data.predict_source new.en --output out.de
  generate   continue or translate prompts:  lightning-xt generate RUN --prompt "..."
             of a file or in turns:  ... --prompts prompts.txt    ... --interactive
  info       what a checkpoint holds:  lightning-xt info RUN [--tree] [--json]
  average    mean of the weights of a run's last checkpoints:  lightning-xt average RUN [--last N]

Options of a command:  lightning-xt COMMAND --help
Options of a class:    lightning-xt fit --model.help LanguageModel     lightning-xt fit --data.help TextFiles
Resulting config:      lightning-xt fit -c FILE --print_config
"""
COMMANDS = ("fit", "validate", "test", "predict", "generate", "info", "average")


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        args: the command and its options. None = those of the process.

    Returns:
        The exit code: 0 for done, 2 for a mistake of the user's, told in one sentence on standard error, 75 for a `fit`
        that SIGTERM or SIGUSR1 has stopped, to be gone on with, 143 for another command, or a `fit` that saves nothing,
        that SIGTERM has stopped, 130 for what the user has interrupted.
    """
    args = list(sys.argv[1:] if args is None else args)
    signals, numbers = _signals(args)
    try:
        with signals.installed(*numbers):
            return _dispatch(args)
    except Stopped as stop:
        if _prints_for_user():
            print(f"lightning-xt: {stop.sentence}", file=sys.stderr)
        return int(str(stop.code))
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            # Lightning's, after it has put everything in order.
            if _prints_for_user():
                way = "; a run goes on with --ckpt_path last" if args[:1] == ["fit"] else ""
                print(f"lightning-xt: interrupted{way}", file=sys.stderr)
            return INTERRUPTED
        # --help and --print_config end like this; anything but a number is a message.
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except Exception as error:
        sentence = None if os.environ.get("LIGHTNING_XT_TRACEBACK") == "1" else sentence_for(error)
        if sentence is None:
            raise
        if _prints_for_user():
            print(f"lightning-xt: error: {sentence}", file=sys.stderr)
        elif isinstance(error, OwnError):
            number = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ["SLURM_PROCID"]
            print(f"lightning-xt: error: process {number} (the first is 0): {sentence}", file=sys.stderr)
        return 2


def _prints_for_user() -> bool:
    """Whether this process tells the user how the command ended: one of those that share a terminal or a log."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _signals(args: list[str]) -> tuple[StopSignals, list[signal.Signals]]:
    """What stops a command, and what it does then."""
    if args[:1] != ["fit"]:
        return StopSignals(" ".join(args[:1]), TERMINATED), [signal.SIGTERM]
    return StopSignals("fit", PREEMPTED, waits=processes_of_run() > 1), [signal.SIGTERM, signal.SIGUSR1]


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if args[0] == "--version":
        import lightning_xt

        print(lightning_xt.__version__)
        return 0
    if args[0] not in COMMANDS:
        raise UserError(unknown("command", args[0], COMMANDS))
    with no_garbage_collection():
        # First, for it imports Lightning without the compiler.
        from lightning_xt.training import lightning_internals  # noqa: F401

        _quiet()
        from lightning_xt.system.imports import guarded_imports

    with guarded_imports():
        return _run(args)


def _run(args: list[str]) -> int:
    """Runs one of the commands; each imports what it needs and no more."""
    if args[0] == "generate":
        from lightning_xt.commands.generate import generate

        return generate(args[1:])
    if args[0] == "info":
        from lightning_xt.commands.info import info

        return info(args[1:])
    if args[0] == "average":
        from lightning_xt.commands.average import average

        return average(args[1:])
    with no_garbage_collection():
        from lightning_xt.commands.train import run

    return run(args)


def _quiet() -> None:
    """Silences what is said by others and is no news to the user."""
    from jsonargparse._deprecated import JsonargparseDeprecationWarning

    # Lightning calls what version 5 of jsonargparse removes; we require an earlier one. A user's own are theirs to see.
    warnings.filterwarnings("ignore", category=JsonargparseDeprecationWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(lightning|lightning_fabric|torch)\b")
    for pattern in (
        # Our loaders count samples (data/base.py); a resume is exact without a state of their own.
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*dataloader.*does not have many workers.*",
        # Runs share nothing; the folder is ours.
        ".*Checkpoint directory .* exists and is not empty.*",
        # Measuring needs none of the callbacks that trained.
        ".*callbacks used to create the checkpoint need to be provided.*",
        # No validation split, as the options say.
        ".*Total length of `list` across ranks is zero.*",
        # The best of another run is not the best of this one.
        ".*The dirpath has changed from.*",
        # Of weights that can be shared out, whether they are or not.
        ".*WeightAveraging doesn't support sharding model layers.*",
        # Prompts carry their ids.
        ".*Couldn't infer the batch indices.*",
        # Sublayers change nothing that they are given.
        ".*FSDP2-wrapped module .* returned a view tensor.*",
        # Lightning's own calls of torch and of jsonargparse.
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*lr_scheduler.step\\(\\).*before.*optimizer.step\\(\\).*",
    ):
        warnings.filterwarnings("ignore", message=pattern)

    for package in ("fabric", "pytorch"):
        for module in ("rank_zero", "seed"):
            logging.getLogger(f"lightning.{package}.utilities.{module}").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning's says something that the user did not just say, and no advertisement."""
    known = (
        "Tip:",
        "TPU available",
        "HPU available",
        "GPU available: False",
        "Seed set to",
        "`Trainer.fit` stopped",
        "Restoring states from",
        "Restored all states",
        "Loaded model weights",
        "callbacks returned in `LightningModule.configure_callbacks`",
    )
    return not any(part in record.getMessage() for part in known)
