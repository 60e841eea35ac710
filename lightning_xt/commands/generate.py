"""generate: complete or translate prompts."""

from collections.abc import Sequence
from typing import Any

from lightning_xt.system.garbage import freeze_imported

SUMMARY = """complete or translate prompts:  lightning-xt generate RUN --prompt "..."
of a file or in turns:  ... --prompts prompts.txt    ... --interactive"""


def add_options(parser: Any) -> None:
    """Declare the options of the command."""
    from lightning_xt.commands.generation.generate_options import add_generate_options

    add_generate_options(parser)


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    from lightning_xt.commands.models.import_lightning import import_lightning

    with freeze_imported():
        import_lightning()
        from lightning_xt.commands.generation.completions import generate

    return generate(args)
