"""Options of the commands that train nothing."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from lightning_xt.system.messages import UserError, explain_missing_value, find_close_matches
from lightning_xt.system.shipped_configs import find_config

RUN = "runs/NAME/N, runs/NAME (its newest run) or a .ckpt file"
"""Meaning of a RUN."""


class Arguments(argparse.ArgumentParser):
    """Parser of the options of one command that raises mistakes as a `UserError`, and knows no abbreviations."""

    def __init__(
        self,
        command: str,
        description: str,
        add_options: Callable[[argparse.ArgumentParser], None],
        *,
        add_help: bool = True,
    ) -> None:
        super().__init__(prog=f"lightning-xt {command}", description=description, add_help=add_help)
        self.command = command
        add_options(self)

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """Return the options that an unknown one may abbreviate: none."""
        return []

    def error(self, message: str) -> NoReturn:
        known = list_options(self)
        message = explain_missing_value(message) or message
        words = message.split() if message.startswith("unrecognized arguments") else []
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in known]
        close = find_close_matches(unknown[0], known) if unknown else []
        raise UserError(f"{self.command}: {message}" + (f"; did you mean {' or '.join(close)}?" if close else ""))


def list_options(parser: argparse.ArgumentParser) -> list[str]:
    """List the long names of the options of a parser."""
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say which config files and which run a command works on."""
    parser.add_argument("-c", "--config", action="append", type=find_config, default=[])
    parser.add_argument("--ckpt_path")
    parser.add_argument("--init_from")
    parser.add_argument("--name")


def read_run_options(command: str, args: Sequence[str]) -> argparse.Namespace:
    """Read the configs and the run that a command works on, before its options are known; UserError without a value."""
    # Other options are left to another parser.
    return Arguments(command, "", add_run_options, add_help=False).parse_known_args(args)[0]
