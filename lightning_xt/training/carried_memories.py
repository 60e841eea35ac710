"""Memories from batch to batch of a text in lanes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_xt.core.batch import LaneBatch
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories
from lightning_xt.nn.segments.base import Segments

WAY_OUT = "begin a run with its weights: --init_from RUN"


class CarriedMemories:
    """Memories that batches in lanes leave to the batches that continue their rows.

    Each batch of an optimizer step has its own. No gradient flows from batch to batch. Memories that are not finite
    become zeros, so that a skipped step does no harm to later ones.

    Args:
        copies: True to copy memories out of what the next forward overwrites: the results of a CUDA graph.
    """

    def __init__(self, *, copies: bool = False) -> None:
        self.copies = copies
        self._groups: dict[int, Memories] = {}

    def add(self, batch: Any, inputs: Inputs | None) -> Inputs | None:
        """Add to the inputs what earlier rows left to the rows of a batch; nothing if the batch is in no lanes."""
        if not isinstance(batch, LaneBatch) or batch.begins or batch.group not in self._groups:
            return inputs
        return replace(inputs or Inputs(), memories=self._groups[batch.group])

    def keep(self, batch: Any, memories: Memories | None) -> None:
        """Keep what the rows of a batch leave; nothing if the batch is in no lanes, or the network has no memory."""
        if not isinstance(batch, LaneBatch) or memories is None:
            return
        kept = _flatten(memories.detach())
        self._groups[batch.group] = _restore({name: _replace_lost(each, self.copies) for name, each in kept.items()})

    def gather(self, trainer: Trainer) -> dict[str, Tensor]:
        """Return the latest memories of all rows, in the order of their lanes; all processes must call it.

        Nothing if some rows have left none yet, as in the middle of the first step. In the middle of a later step the
        memories are those at the saved sample, from which a run resumes without the gradients of the step.
        """
        groups = [_flatten(self._groups[number]) for number in sorted(self._groups)]
        shapes = [{name: each.shape for name, each in group.items()} for group in groups]
        if len(groups) != trainer.accumulate_grad_batches or any(each != shapes[0] for each in shapes):
            return {}
        world = trainer.world_size
        return {name: torch.cat([_gather_rows(group[name], world) for group in groups]) for name in groups[0]}

    def restore(self, state: Mapping[str, Tensor], trainer: Trainer, segments: Segments, calls: int) -> None:
        """Restore the memories of this process's rows from those of all rows.

        Args:
            state: memories of all rows, from `gather`.
            trainer: of the run that resumes.
            segments: of the model, which reads the memories.
            calls: number of the model's calls that read some.

        Raises:
            ValueError: the rows do not divide, or the memories are of another model.
        """
        if reason := _find_misfit(state, segments, calls):
            # The first error of a chain would be reported.
            raise ValueError(
                f"the checkpoint's memories are not of this model: {reason}; resume with the segments of its run, or "
                f"{WAY_OUT}"
            )
        batches, world, rows = trainer.accumulate_grad_batches, trainer.world_size, len(state["vectors.0"])
        size, rest = divmod(rows, batches * world)
        if rest or any(len(each) != rows for each in state.values()):
            raise ValueError(
                f"the checkpoint has memories of {rows} rows, which do not divide by {world} (processes) x {batches} "
                f"(--trainer.accumulate_grad_batches); resume with as many rows a step, or {WAY_OUT}"
            )
        for group in range(batches):
            first = (group * world + trainer.global_rank) * size
            own = {name: each[first : first + size] for name, each in state.items()}
            self._groups[group] = _restore({name: _copy(each, trainer) for name, each in own.items()})


def _flatten(memories: Memories) -> dict[str, Tensor]:
    """Return the tensors of memories by name."""
    state = memories.to_state()
    vectors = {f"vectors.{number}": each for number, each in enumerate(state.pop("vectors"))}
    return vectors | {name: each for name, each in state.items() if each is not None}


def _restore(tensors: Mapping[str, Tensor]) -> Memories:
    """Return the memories that `_flatten` took apart."""
    vectors = {name: each for name, each in tensors.items() if name.startswith("vectors.")}
    others = {name: each for name, each in tensors.items() if name not in vectors}
    return Memories.from_state({"vectors": [vectors[f"vectors.{number}"] for number in range(len(vectors))], **others})


def _find_misfit(state: Mapping[str, Tensor], segments: Segments, calls: int) -> str | None:
    """Return why memories are not those of a model; None if they are."""
    try:
        memories = _restore(state)
        segments.check_memories(memories, memories.num_rows, calls, memories.vectors[0].shape[-1])
    except (LookupError, TypeError, ValueError) as error:
        return str(error).partition("; ")[0]
    return None


def _replace_lost(tensor: Tensor, copies: bool) -> Tensor:
    """Replace what is not finite by zeros in a new tensor, without waiting for the device; `copies` copies others."""
    if tensor.is_floating_point():
        return torch.where(tensor.isfinite(), tensor, 0.0)
    return tensor.clone() if copies else tensor


def _gather_rows(rows: Tensor, world: int) -> Tensor:
    """Return the rows of all processes in main memory, in the order of the processes."""
    if world == 1:
        return rows.cpu()
    parts = [torch.empty_like(rows) for _ in range(world)]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts).cpu()


def _copy(rows: Tensor, trainer: Trainer) -> Tensor:
    # The file of a checkpoint is mapped.
    return rows.to(trainer.strategy.root_device, copy=True)
