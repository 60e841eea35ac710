"""Facts about a checkpoint, read only from its file."""

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import torch

from lightning_xt.checkpoints.checkpoint import Checkpoint
from lightning_xt.checkpoints.runs import find_checkpoint
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import UserError, make_visible

WIDTH = 110
"""Characters of a line."""
TOGETHER = "\u00a0"
"""Space between an option and its value, at which no line is broken."""


def print_facts(run: str, *, tree: bool, seq_len: int | None, as_json: bool) -> int:
    """Print what a checkpoint holds, and with `tree` the stages of its model; return the exit code.

    Rows of the tree have `seq_len` tokens. None = those of the run's data.
    """
    checkpoint = Checkpoint(find_checkpoint(run))
    found = facts(checkpoint)
    text = make_visible("\n".join(_format_lines(found)))
    if tree:
        # The only part that needs the model's classes, and with them Lightning.
        from lightning_xt.commands.models.import_lightning import import_lightning

        import_lightning()
        from lightning_xt.commands.models.model_tree import tree as describe_tree

        found["tree"], drawn = describe_tree(checkpoint, found, seq_len)
        text += f"\n\n{drawn}"
    print(to_json(found, indent=2, ascii_only=True) if as_json else text, flush=True)
    return 0


def facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """Collect the facts that a checkpoint holds, None for others; UserError if lightning-xt did not write it."""
    file, own, contents = checkpoint.path, checkpoint.metadata, checkpoint.contents
    if not own:
        raise UserError(
            f"{file} was not written by lightning-xt: it is {_describe_foreign(contents)}; give a .ckpt file of a run"
        )
    progress = next((v for v in contents.values() if isinstance(v, dict) and "samples_seen" in v), {})
    status = file.stat()
    return {
        "file": str(file),
        "bytes": status.st_size,
        "written": datetime.fromtimestamp(status.st_mtime).astimezone().isoformat(timespec="seconds"),
        "kind": None if checkpoint.module_class is None else _get_class_name(checkpoint.module_class),
        "step": contents.get("global_step"),
        "epoch": contents.get("epoch"),
        "samples_seen": progress.get("samples_seen"),
        "parameters": _measure_sizes(contents.get("state_dict") or {}),
        "trained_parameters": own.get("trained_parameters"),
        "average": _describe_average(contents, own),
        "trainer": own.get("trainer"),
        "metrics": own.get("metrics"),
        "data": _describe_data(contents, own, progress),
        "tokenizers": checkpoint.tokenizers,
        "model": checkpoint.config,
        "versions": {
            "lightning_xt": own.get("version"),
            "lightning": contents.get("pytorch-lightning_version"),
            **(own.get("versions") or {}),
        },
        "format": own.get("format"),
    }


def _describe_average(contents: dict[str, Any], own: dict[str, Any]) -> str | None:
    """Describe what the weights are a mean of; None if they are those of one step."""
    if "averaged" in own:
        return f"mean of the steps {', '.join(map(str, own['averaged']['steps']))}"
    return "moving average, next to the weights that train" if "current_model_state" in contents else None


def _describe_foreign(contents: dict[str, Any]) -> str:
    """Describe a checkpoint that lightning-xt did not write."""
    if "pytorch-lightning_version" in contents:
        version, step = contents["pytorch-lightning_version"], contents.get("global_step")
        tensors = len(contents.get("state_dict") or {})
        return f"a checkpoint of Lightning {version} at step {step} with {tensors} tensors"
    names = ", ".join(map(str, list(contents)[:3])) or "nothing"
    if contents and all(isinstance(value, torch.Tensor) for value in contents.values()):
        return f"a bare state_dict of {len(contents)} tensors ({names}, ...)"
    return f"a mapping of {len(contents)} entries ({names}, ...)"


def _measure_sizes(state: dict[str, Any]) -> dict[str, Any]:
    """Count parameters and bytes; tensors that share their memory count once."""
    tensors = {}
    for value in state.values():
        if isinstance(value, torch.Tensor):
            place = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride())
            # Tensors without elements all have the same place.
            tensors[place if value.numel() else id(value)] = value
    return {
        "count": sum(value.numel() for value in tensors.values()),
        "bytes": sum(value.numel() * value.element_size() for value in tensors.values()),
        "types": sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values()}),
    }


def _describe_data(contents: dict[str, Any], own: dict[str, Any], progress: dict[str, Any]) -> dict[str, Any] | None:
    options = contents.get("datamodule_hyper_parameters") or {}
    metadata = own.get("data") or {}
    path = metadata.get("class_path") or options.get("_class_path")
    if path is None:
        return None
    return {
        "class_path": path,
        "init_args": {name: value for name, value in options.items() if not name.startswith("_")},
        "hash": metadata.get("hash") or progress.get("hash"),
    }


def _format_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the facts as aligned text."""
    rows = [(name, text) for name, text in _list_rows(found) if text]
    indent = max(len(name) for name, _ in rows) + 2
    for name, text in rows:
        broken = textwrap.wrap(
            text,
            WIDTH,
            initial_indent=name.ljust(indent),
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (line.replace(TOGETHER, " ") for line in broken)


def _list_rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each fact; the text of an unknown fact is empty."""
    size, data, model = found["parameters"], found["data"] or {}, found["model"]
    yield "file", f"{found['file']}, {found['bytes']:,} bytes, written {found['written'][:19].replace('T', ' ')}"
    yield "kind", found["kind"] or ""
    seen = "" if found["samples_seen"] is None else f", {found['samples_seen']:,} samples seen"
    yield "step", "" if found["step"] is None else f"{found['step']:,}{seen}"
    part = "" if (some := found["trained_parameters"]) is None else f", {some:,} of them trained"
    yield "parameters", f"{size['count']:,} ({', '.join(size['types'])}), {size['bytes']:,} bytes{part}"
    yield "weights", found["average"] or ""
    yield "trained", _describe_training(found["trainer"]) if found["trainer"] else ""
    yield "metrics", ", ".join(f"{name} {value:.6f}" for name, value in (found["metrics"] or {}).items())
    yield "data", _format_recipe(data, ": ") if data else ""
    yield "data hash", data.get("hash") or ""
    for use, tokenizer in found["tokenizers"].items():
        # The merges of a tokenizer fill pages.
        options = {name: value for name, value in tokenizer["init_args"].items() if len(str(value)) < WIDTH}
        yield (
            "tokenizer" if use == "text" else f"{use} tokenizer",
            _format_recipe({**tokenizer, "init_args": options}, ": "),
        )
    for name, value in model.items():
        # Parts of a network that have parts themselves get separate lines.
        deep = _find_deep_parts(value) if name in ("encoder", "decoder") else {}
        yield name, _format_recipe(value, ": ", deep) if value else ""
        for part, recipe in deep.items():
            yield f"  {part}", _format_recipe(recipe, ": ")
    versions = {**found["versions"], "format": found["format"]}
    yield "versions", ", ".join(f"{name} {value}" for name, value in versions.items() if value)


def _describe_training(trainer: dict[str, Any]) -> str:
    processes, batches = trainer["processes"], trainer["accumulate_grad_batches"]
    return (
        f"{trainer['precision']}, {processes} process{'es' if processes > 1 else ''} by {trainer['strategy']} on "
        f"{trainer['device']}, {batches} batch{'es' if batches > 1 else ''} of each a step"
    )


def _find_deep_parts(value: Any) -> dict[str, Any]:
    def has_parts(part: Any) -> bool:
        return isinstance(part, dict) and any(isinstance(each, dict) for each in part.get("init_args", {}).values())

    options = value.get("init_args", {}) if isinstance(value, dict) else {}
    return {name: part for name, part in options.items() if has_parts(part)}


def _format_recipe(value: Any, before: str = "(", without: Any = ()) -> str:
    """Format a value of a config on one line, without options that are null, empty or false."""
    if isinstance(value, list):
        return f"[{', '.join(_format_recipe(each) for each in value)}]"
    if not isinstance(value, dict):
        return str(value)
    name = _get_class_name(value["class_path"]) if "class_path" in value else ""
    options = value.get("init_args", {}) if name else value
    shown = ", ".join(
        f"{option}{TOGETHER}{_format_recipe(each)}"
        for option, each in options.items()
        if not (each is None or each is False or each in ("", [], {}) or option in without)
    )
    if not name or not shown:
        return name or shown
    return f"{name}{before}{shown}" + (")" if before == "(" else "")


def _get_class_name(path: str) -> str:
    return path.rpartition(".")[2]
