"""Results of an ablation for TensorBoard's HPARAMS tab."""

import shutil

from lightning_xt.commands.ablation.study_folder import StudyFolder
from lightning_xt.commands.ablation.study_results import StudyResults

BOARD = "tensorboard"


def write_board(results: StudyResults, folder: StudyFolder) -> None:
    """Write the runs that TensorBoard's files of the folder lack, each with its options and metrics."""
    # Here, for they take long to import.
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for run in results.plan.list_repeats():
        result, place = folder.read_result(run.key), folder.path / BOARD / run.key
        if run.purpose != "repeat" or result is None or "error" in result or place.is_dir():
            continue
        costs = folder.read_speed(run.variant) or {}
        options: dict[str, float | str] = {"variant": run.variant, "seed": run.seed}
        if (rate := results.choose_rate(run.variant)) is not None:
            options["lr"] = rate
        metrics = {**result["metrics"], "cost/time_ratio": costs["time_ratio"], "cost/parameters": costs["parameters"]}
        # A kill leaves a part of it, which does not count.
        part = place.with_name(f".{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        with SummaryWriter(str(part)) as writer:
            for summary in hparams(options, metrics):
                writer.file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value, result["steps"])
        part.rename(place)
