"""The arguments of the commands that are not LightningCLI's."""

import argparse
from typing import NoReturn

from lightning_xt.system.messages import UserError, close_matches

RUN = "runs/NAME/N, runs/NAME (its newest run) or a .ckpt file"
"""What is meant by a RUN."""


class Arguments(argparse.ArgumentParser):
    """Reads the arguments of one command; a mistake is told in a sentence.

    Args:
        command: its name.
        description: what it does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"lightning-xt {command}", description=description, allow_abbrev=False)
        self.command = command

    def error(self, message: str) -> NoReturn:
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        asked = message.startswith("unrecognized arguments")
        unknown = [
            word for word in message.split() if asked and word.startswith("--") and word.split("=")[0] not in known
        ]
        close = close_matches(unknown[0], known) if unknown else []
        raise UserError(f"{self.command}: {message}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
