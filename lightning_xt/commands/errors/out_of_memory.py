"""Out-of-memory errors: a sentence that names the options to lower."""

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning_xt.checkpoints.runs import explain_restart
from lightning_xt.inference.memory_errors import NO_MEMORY
from lightning_xt.system.messages import walk_chain

LOWERED = MappingProxyType(
    {
        "training": ("data.batch_size", "data.max_tokens", "data.seq_len", "data.max_length"),
        "evaluation": (
            "data.eval_batch_size",
            "data.max_tokens",
            "data.seq_len",
            "data.max_length",
            "model.val_decode_pairs",
        ),
        "sampling": ("sample_text.generation.batch", "sample_text.generation.max_new_tokens"),
        "prediction": ("sampling.batch", "sampling.max_new_tokens"),
    }
)
"""Options that take less memory in a phase when they are lowered; a kind of data or model has some of these."""
DOING = MappingProxyType(
    {
        "training": "train a step",
        "evaluation": "evaluate a batch",
        "sampling": "draw the samples of a validation",
        "prediction": "predict",
    }
)


def explain_out_of_memory(
    error: BaseException, phase: str | None, options: dict[str, Any], folder: Path | None
) -> str | None:
    """Return a sentence about an error that ended a command; None if memory was enough, or its own sentence is better.

    The phase is `TransformerModule.phase` then, the options are plain values, and the folder is the run's, if any.
    """
    if not any(is_of_memory(each) for each in walk_chain(error)):
        return None
    if phase == "prediction" and isinstance(error, ValueError):
        return None
    again = explain_restart(folder)
    if phase is None:
        return (
            "there is not enough memory to begin; choose a smaller model, such as by --model.decoder.dim or "
            f"--model.decoder.depth, then {again}"
        )
    lowered = [f"--{name} (now {value})" for name, value in _list_options(phase, options)]
    way = f"lower {' or '.join(lowered)}" if lowered else "make the batches of the data smaller"
    if phase == "training":
        batches = options["trainer"].get("accumulate_grad_batches") or 1
        way += f", and raise --trainer.accumulate_grad_batches (now {batches}) as much to keep the size of a step"
    if phase == "sampling":
        way += ", or draw none: --sample_text.prompts []"
    return f"there is not enough memory to {DOING[phase]}; {way}; then {again}"


def _list_options(phase: str, options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in LOWERED[phase]:
        *sections, option = name.split(".")
        values = options
        for section in sections:
            values = values.get(section) or {}
            values = values.get("init_args", {}) if "class_path" in values else values
        value = values.get(option)
        if option == "eval_batch_size" and value is None:
            value = values.get("batch_size")
        if option == "max_new_tokens" and value is None and option in values:
            value = "null"
        if value is not None:
            yield name, value


def is_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory was not enough."""
    # torch.OutOfMemoryError is a RuntimeError; numpy's and C++'s are MemoryErrors.
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(said in str(error) for said in NO_MEMORY)
    )
