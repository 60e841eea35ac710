"""Command line: each module of `commands` is a command."""

import os
import signal
import sys
from collections.abc import Sequence

import lightning_xt
from lightning_xt.commands.options.command_modules import find_commands, import_command
from lightning_xt.system.messages import OwnError, UserError, explain_error, explain_unknown
from lightning_xt.system.output import silence
from lightning_xt.system.shared_errors import claim_report
from lightning_xt.system.stopping import (
    INTERRUPTED,
    PREEMPTED,
    TERMINATED,
    Stopped,
    StopSignals,
    count_processes,
    prints_for_user,
)
from lightning_xt.system.thread_waits import ThreadWaits

HEAD = "usage: lightning-xt COMMAND [options]"
FOOT = """\
Options of a command:  lightning-xt COMMAND --help     (all of fit's: --help_all)
Options of a class:    lightning-xt fit --data.help TextFiles     lightning-xt fit --model.decoder.attention.help
Resulting config:      lightning-xt fit -c FILE --print_config
"""


def main(args: Sequence[str] | None = None, *, last: bool = False) -> int:
    """Run a command.

    Args:
        args: the command and its options. None = those of the process.
        last: True if the process ends afterwards, which then ignores SIGTERM.

    Returns:
        The exit code: 0 for done; 2 for a mistake of the user, with one sentence on standard error; 75 for a `fit`
        that SIGTERM or SIGUSR1 has stopped and that can be resumed; 143 for another command, or a `fit` that saves
        nothing, that SIGTERM has stopped; 130 for what the user has interrupted.
    """
    args = list(sys.argv[1:] if args is None else args)
    signals, numbers = _choose_signals(args)
    try:
        with signals.install(*numbers, last=last):
            code = _dispatch(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # Nobody reads the output any more.
        silence(sys.stdout)
        return 0
    except Stopped as stop:
        if prints_for_user():
            print(f"lightning-xt: {stop.sentence}", file=sys.stderr)
        return int(str(stop.code))
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning exits after its teardown.
        if isinstance(stop, KeyboardInterrupt) or isinstance(stop.__context__, KeyboardInterrupt):
            if prints_for_user():
                print("lightning-xt: interrupted", file=sys.stderr)
            return INTERRUPTED
        # --help and --print_config end like this; anything but a number is a message.
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except Exception as error:
        sentence = None if os.environ.get("LIGHTNING_XT_TRACEBACK") == "1" else explain_error(error)
        if sentence is None:
            raise
        alone = claim_report(sentence)
        if prints_for_user():
            print(f"lightning-xt: error: {sentence}", file=sys.stderr)
        elif alone or isinstance(error, OwnError):
            number = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ["SLURM_PROCID"]
            print(f"lightning-xt: error: process {number} (the first is 0): {sentence}", file=sys.stderr)
        return 2


def _choose_signals(args: list[str]) -> tuple[StopSignals, list[signal.Signals]]:
    """Choose the signals that stop a command, and what it does then."""
    if args[:1] != ["fit"]:
        return StopSignals(" ".join(args[:1]), TERMINATED), [signal.SIGTERM]
    signals = StopSignals("fit", PREEMPTED, waits=count_processes() > 1)
    return signals, [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_format_help(), end="")
        return 0
    if args[0] == "--version":
        print(lightning_xt.__version__)
        return 0
    if args[0] not in find_commands():
        raise UserError(explain_unknown("command", args[0], find_commands()))
    command = import_command(args[0])
    with ThreadWaits():
        if not getattr(command, "NAMES_CLASSES", True):
            return int(command.run(args[1:]))
        from lightning_xt.system.imports import guarded_imports

        with guarded_imports():
            return int(command.run(args[1:]))


def _format_help() -> str:
    indent = "\n" + " " * 13
    lines = [f"  {name:10} {import_command(name).SUMMARY.replace(chr(10), indent)}" for name in find_commands()]
    return "\n".join([HEAD, "", *lines, "", FOOT])
