"""Checks of a checkpoint while Lightning restores it: a misfit is one sentence, before the first step."""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_xt.checkpoints.checkpoint_schema import MOMENTS
from lightning_xt.system.messages import UserError, find_own_sentence

KNOWN = frozenset(("step", *MOMENTS))
"""Entries that all parameters alike have, or none."""
NO_MEMORY = re.compile("out of memory|allocate memory|enough memory")
"""Words of errors that another handler explains."""
STEP_OF_LIGHTNING = "restore_"
"""Start of the names of Lightning's functions that restore one part each."""


class _MisfitError(Exception):
    """Raised for a part of a checkpoint that the run cannot continue from."""


@contextmanager
def explain_misfits(path: Any) -> Iterator[None]:
    """Turn what goes wrong while a checkpoint is restored into a UserError that names the file and the part."""
    try:
        yield
    except (MemoryError, UserError):
        raise
    except Exception as error:
        # Errors of this package are sentences already, and weights that do not fit become one later.
        if find_own_sentence(error) or "Error(s) in loading state_dict" in str(error) or NO_MEMORY.search(str(error)):
            raise
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        part = next((name for name in reversed(names) if name.startswith(STEP_OF_LIGHTNING)), "restore_state")
        reason = str(error) if isinstance(error, _MisfitError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{path} cannot be resumed from: its {part.removeprefix(STEP_OF_LIGHTNING)} cannot be restored "
            f"({' '.join(reason.split())[:200]}); give another checkpoint, or start a new run from its weights with "
            f"--init_from {quote(str(path))}"
        ) from error


def check_loops(saved: Any, own: Any, place: str = "loops") -> None:
    """Raise an error unless the saved counters of the loops have the form of the Trainer's."""
    if isinstance(own, Mapping):
        if not isinstance(saved, Mapping):
            raise _MisfitError(f"{place} is {saved!r}, not a mapping")
        for name, value in own.items():
            # Lightning would count from 0 again.
            if name not in saved:
                raise _MisfitError(f"{place} has no {name}")
            check_loops(saved[name], value, f"{place}.{name}")
    elif isinstance(own, bool):
        if not isinstance(saved, bool):
            raise _MisfitError(f"{place} is {saved!r}, not true or false")
    elif isinstance(own, int) and (not isinstance(saved, int) or isinstance(saved, bool) or saved < 0):
        raise _MisfitError(f"{place} is {saved!r}, not a count")


def check_moments(optimizers: Sequence[Optimizer]) -> None:
    """Raise an error unless parameters alike have the same moments, and moments the shapes of their parameters."""
    for optimizer in optimizers:
        entries: dict[Any, frozenset[str]] = {}
        for group in optimizer.param_groups:
            # Matrices may be updated by another rule than the rest.
            alike = frozenset(group), group.get("role") == "matrix"
            for state in (optimizer.state[each] for each in group["params"] if each in optimizer.state):
                # Adafactor has other entries for vectors than for matrices.
                found = KNOWN.intersection(state)
                if entries.setdefault(alike, found) != found:
                    raise _MisfitError(f"some parameters have {sorted(entries[alike])}, others {sorted(found)}")
        for parameter, state in optimizer.state.items():
            for name in MOMENTS:
                moment = state.get(name)
                if isinstance(moment, Tensor) and isinstance(parameter, Tensor) and moment.shape != parameter.shape:
                    raise _MisfitError(
                        f"{name} has shape {tuple(moment.shape)}, its parameter {tuple(parameter.shape)}"
                    )
