"""Options in which runs differ, with names as short as they are clear."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_xt.checkpoints.flat_config import format_value

SEEDS = ("seed_everything", "data.seed")
# Not those of which the compared metrics depend, such as data.stride and trainer.limit_val_batches.
WITHOUT_EFFECT = (
    "name", "output", "validate_every", "checkpoint_every", "keep_checkpoints", "sampling", "sample_text", "figures",
    "inference",
    *(f"data.{name}" for name in (
        "eval_batch_size", "num_workers", "resident", "predict_prompts", "predict_source",
    )),
    # Not exact_resume and restore_trained_weights, which are parts of a resumed run.
    *(f"standard.{name}" for name in (
        "run_folder", "start_banner", "tensor_board", "metrics_file", "throughput", "run_results",
        "validation_schedule", "best_checkpoint", "last_checkpoint", "disk_space_check", "preemption", "progress_bar",
        "write_predictions", "checkpoint_io",
    )),
    *(f"trainer.{name}" for name in (
        "default_root_dir", "logger", "log_every_n_steps", "enable_checkpointing", "enable_progress_bar",
        "enable_model_summary", "enable_autolog_hparams", "profiler", "detect_anomaly", "inference_mode",
        "num_sanity_val_steps", "val_check_interval", "check_val_every_n_epoch", "limit_test_batches",
        "limit_predict_batches",
    )),
)  # fmt: skip
"""Options and sections that change no weight, bit for bit."""
LONGEST = 40
"""Most characters of a value in a label."""


def find_differences(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Find the options in which configs differ, and return for each config its values by dotted name.

    An option of a class is compared only between the configs that have the class.
    """
    names = list(dict.fromkeys(name for config in configs for name in config))
    kept = (name for name in names if not all(is_without_effect(name, config) for config in configs))
    differing = [name for name in kept if _differs(name, configs)]
    return [{name: config[name] for name in differing if name in config} for config in configs]


def is_without_effect(name: str, config: Mapping[str, Any]) -> bool:
    """Return whether an option of a config changes no weight."""
    if name == "data.num_workers" and config.get("data") == "CustomData":
        # Each worker draws other random numbers, and reads all of a dataset without a length.
        return False
    return any(name == each or name.startswith(f"{each}.") for each in WITHOUT_EFFECT)


def make_labels(differences: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return a label for each run: the values in which it differs, or its name if others have the same."""
    short = shorten_names(list(dict.fromkeys(name for each in differences for name in each)))
    labels = [", ".join(f"{short[name]} {_shorten(value)}" for name, value in each.items()) for each in differences]
    repeated = {label for label in labels if labels.count(label) > 1 or not label}
    return [
        (f"{name}: {label}" if label else name) if label in repeated else label
        for label, name in zip(labels, names, strict=True)
    ]


def shorten_names(names: Sequence[str]) -> dict[str, str]:
    """Return for each dotted name as many of its last words as distinguish it from the others."""
    found = {}
    for name in names:
        words = name.split(".")
        ends = (".".join(words[-count:]) for count in range(1, len(words) + 1))
        found[name] = next(
            end for end in ends if sum(f".{each}".endswith(f".{end}") for each in names) == 1 or end == name
        )
    return found


def _differs(name: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    values = [format_value(config[name]) for config in configs if name in config]
    return len(set(values)) > 1


def _shorten(value: Any) -> str:
    text = format_value(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
