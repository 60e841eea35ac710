"""Search for a learning rate: a `fit` that leaves nothing, and its report."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_xt.commands.plots.plot_files import check_plot, write_plot
from lightning_xt.commands.trainer.run_trainer import train
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError
from lightning_xt.training.callbacks.range_test import RangeTest
from lightning_xt.training.rate_range import RateRange, find_rate, space_rates

PLOT = "lr: --plot"
LINES, BAR = 12, 30
"""Rows of the table, and columns of its longest bar."""
INSTEAD = {
    "--ckpt_path": "lr trains new weights, or with --init_from RUN those of a run",
    "--resume": "lr trains new weights, or with --init_from RUN those of a run",
    "--trainer.max_steps": "set --steps",
    "--name": "lr makes no run",
}
"""Options of fit that have no use here, with the way out."""


def search_rate(options: Namespace, rest: Sequence[str]) -> int:
    """Run the range test, and report; UserError for options that cannot be."""
    try:
        space_rates(options.lowest, options.highest, options.steps)
    except ValueError as error:
        raise UserError(f"lr: {error}") from error
    if options.plot is not None:
        check_plot(PLOT, options.plot)
    if not rest[0].startswith("-"):
        raise UserError(f"lr {rest[0]}: a config is given with -c, and the weights of a run with --init_from RUN")
    for arg in rest:
        if (name := arg.partition("=")[0]) in INSTEAD:
            raise UserError(f"lr {name}: omit it; {INSTEAD[name]}")
    trainer = train("fit", [*rest, *_options_of_fit(options)]).trainer
    test = next(each for each in trainer.callbacks if isinstance(each, RangeTest))
    if trainer.is_global_zero:
        _report(find_rate(test.rates[: len(test.losses)], test.losses, options.steps), options)
    return 0


def _options_of_fit(options: Namespace) -> list[str]:
    """Return the options of a `fit` that tests a range, and writes nothing."""
    fixed = {
        "trainer.max_steps": options.steps,
        "trainer.fast_dev_run": "false",
        "trainer.log_every_n_steps": 1,
        "trainer.limit_val_batches": 0,
        "trainer.logger": "false",
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
        "standard.run_folder": "null",
        "sample_text": "null",
        "trainer.callbacks+": "RangeTest",
        "trainer.callbacks.lowest": options.lowest,
        "trainer.callbacks.highest": options.highest,
        "trainer.callbacks.steps": options.steps,
    }
    quiet = ["--standard.start_banner=null"] if options.json else []
    return [*(f"--{name}={value}" for name, value in fixed.items()), *quiet]


def _report(found: RateRange, options: Namespace) -> None:
    """Print the result, and draw it if asked, in this order: a disk that has become full leaves the result."""
    plot = None if options.plot is None else Path(options.plot)
    if options.json:
        facts = {name: getattr(found, name) for name in ("suggestion", "steepest", "minimum", "rates", "losses")}
        print(to_json(facts | {"plot": options.plot}), flush=True)
        if plot is not None:
            write_plot(_draw(found), PLOT, plot)
        return
    rows = sorted({round(at * (len(found.rates) - 1) / (LINES - 1)) for at in range(LINES)})
    top = max(found.smoothed)
    print(f"{'lr':>9}{'loss':>8}")
    for at in rows:
        loss = found.smoothed[at]
        print(f"{found.rates[at]:9.1e}{loss:8.3f}  {'#' * round(BAR * loss / top) if top > 0 else ''}")
    print(f"the loss falls fastest at lr {found.steepest:.1e}, and is least at {found.minimum:.1e}")
    print(
        f"try --model.optimizer.lr {found.suggestion:.1e}, the lower one of the first and a tenth of the second",
        flush=True,
    )
    if plot is not None:
        write_plot(_draw(found), PLOT, plot)
        print(f"plot={options.plot}")
    print(f"lr={found.suggestion:.6g}", flush=True)


def _draw(found: RateRange) -> Any:
    """Return a figure of the losses over the rates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.rates, found.losses, color="0.75", label="loss of a step")
    axes.plot(found.rates, found.smoothed, label="smoothed")
    for rate, style, name in ((found.suggestion, "-", "suggestion"), (found.minimum, ":", "minimum")):
        axes.axvline(rate, color="tab:red", linestyle=style, label=f"{name}: {rate:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend()
    return figure
