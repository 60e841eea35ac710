"""ablate: find which variants help."""

from argparse import ArgumentParser
from collections.abc import Sequence

from lightning_xt.commands.options.arguments import Arguments
from lightning_xt.system.shipped_configs import find_config

SUMMARY = "find which overlays help:  lightning-xt ablate -c BASE --variants variants/*.yaml --budget bytes=4M"
DESCRIPTION = """Train a base and the base with each overlay, with several seeds, and say which differ by more than
noise. The same command continues a study that was stopped. Options of fit are those of the base."""

REST = "fit"
"""Command whose options are taken too."""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "-c", "--config", action="append", type=find_config, default=[], help="config of the base; may be repeated"
    )
    parser.add_argument("--variants", nargs="+", metavar="FILE", help="overlays, each laid over the base")
    parser.add_argument("--budget", help="training of each run: bytes=4M, flops=3e14, seconds=300 or steps=1000")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (default: 3); below 2, no intervals")
    parser.add_argument("--floor", type=int, default=10, help="runs of the base, for the noise (default: 10)")
    parser.add_argument("--combine", type=int, default=1, help="most overlays in a combination (default: 1)")
    parser.add_argument("--tune", help="learning rates of which each variant takes its best: lr=0.01,0.02,0.04")
    parser.add_argument(
        "--probes", nargs="+", metavar="FILE", default=[], help="configs of small tasks, each a column: probes/*.yaml"
    )
    parser.add_argument(
        "--probe_metric", default="val/exact_match", help="metric of the probes (default: val/exact_match)"
    )
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time, each in a process (default: 1)")
    parser.add_argument("--threads", type=int, help="threads of a run (default: the cores divided by --workers)")
    parser.add_argument("--out", help="folder of the study (default: ablations/ and the name of the base)")


def run(args: Sequence[str]) -> int:
    """Run the command; see `cli.main`."""
    options, rest = Arguments("ablate", DESCRIPTION, add_options).parse_known_args(args)
    from lightning_xt.commands.models.import_lightning import import_lightning

    import_lightning()
    from lightning_xt.commands.ablation.ablation_report import report

    return report(options, rest)
