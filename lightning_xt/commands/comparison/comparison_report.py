"""The command `compare`."""

import sys
from typing import Any

from lightning_xt.commands.comparison.comparison_output import collect_facts, format_table
from lightning_xt.commands.comparison.comparison_plot import draw
from lightning_xt.commands.comparison.run_comparison import choose_metric, compare_runs, describe_gaps
from lightning_xt.commands.comparison.run_records import read_runs
from lightning_xt.commands.plots.plot_files import check_plot, write_plot
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError, make_visible

OUTPUT = "compare: --output"


def report(options: Any, plot: str | None) -> int:
    """Print and plot a comparison; return the exit code.

    Args:
        options: those that `commands.compare` declares.
        plot: name of the plot to write. None = none.
    """
    if not options.runs:
        raise UserError("compare needs runs: lightning-xt compare runs/ONE runs/OTHER, or a folder of runs: runs")
    file = None if plot is None else check_plot(OUTPUT, plot)
    runs = read_runs(options.runs)
    metric = choose_metric(runs, options.metric)
    entries = compare_runs(runs, group=options.group)
    if file is not None:
        write_plot(draw(entries, metric), OUTPUT, file)
    if options.json:
        facts = collect_facts(entries, metric) | {"plot": None if file is None else str(file)}
        print(to_json(facts, indent=2, ascii_only=True))
        return 0
    for note in (*(note for each in runs for note in each.notes), *describe_gaps(entries, metric)):
        print(f"lightning-xt: {make_visible(note)}", file=sys.stderr)
    print(make_visible(format_table(entries, metric)))
    print(f"plot={file}")
    return 0
