"""completion: print the script by which a shell completes command lines."""

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments

SUMMARY = 'complete command lines by the tab key:  eval "$(lightning-xt completion bash)"'
DESCRIPTION = """\
Print a script that lets a shell complete commands, options, configs, runs and the classes of slots. Its place is the
file that the shell reads at its start:

  eval "$(lightning-xt completion bash)"       in ~/.bashrc
  eval "$(lightning-xt completion zsh)"        in ~/.zshrc
  lightning-xt completion fish | source        in ~/.config/fish/config.fish
"""
NAMES_CLASSES = False
"""Nothing that is completed is imported, and so the gate for names is not needed, which takes longer than the rest."""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that reads the script")
    parser.add_argument("--line", help=SUPPRESS)
    parser.add_argument("--refresh", action="store_true", help=SUPPRESS)


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options = Arguments("completion", DESCRIPTION, add_options).parse_args(args)
    from lightning_xt.commands.shell import table_cache

    if options.refresh:
        table_cache.refresh()
        return 0
    if options.line is not None:
        from lightning_xt.commands.shell.candidates import print_candidates

        print_candidates(options.line, options.shell)
        return 0
    from lightning_xt.commands.shell.scripts import SCRIPTS

    # Before the first question, so that it need not wait.
    table_cache.load()
    print(SCRIPTS[options.shell], end="")
    return 0
