"""doctor: check what this machine and its installation can do."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = "check versions, devices, compilers and disks:  lightning-xt doctor [--json]"
DESCRIPTION = """\
Check the installation and the machine: versions, devices, precision, compilers, free disk. Each finding that can be
improved has a line that says how. The exit code is 1 if training cannot work, else 0.
"""
NAMES_CLASSES = False


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("doctor", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.machine.checkup import print_checkup

    return print_checkup(as_json=options.json)
