"""Schema of checkpoints: what a file must hold before anything in it is used. Needs no Lightning."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from lightning_xt.checkpoints.migrations import METADATA_KEY

DEEPEST = 64
"""Lists and mappings within each other."""
MOST_VALUES = 2_000_000
"""Values of a checkpoint, where a list or mapping counts as often as it is named."""


class Kind(NamedTuple):
    """A kind of values.

    Args:
        name: its name in messages.
        holds: returns True for a value of the kind.
    """

    name: str
    holds: Callable[[Any], bool]


class Each(NamedTuple):
    """List of values of one kind, or mapping with keys and values of one kind each."""

    value: Any
    key: Kind | None = None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _is_recipe(value: Any) -> bool:
    """Return True if each class in a value has a name, and options by name."""
    if isinstance(value, list | tuple):
        return all(map(_is_recipe, value))
    if not isinstance(value, Mapping):
        return True
    options = value.get("init_args", {})
    named = isinstance(value.get("class_path", ""), str) and isinstance(options, Mapping)
    return named and all(isinstance(name, str) for name in options) and all(map(_is_recipe, value.values()))


TEXT = Kind("a text", lambda value: isinstance(value, str))
TEXT_OR_NONE = Kind("a text", lambda value: value is None or isinstance(value, str))
COUNT = Kind("a whole number of at least 0", _is_count)
COUNT_OR_NONE = Kind("a whole number of at least 0", lambda value: value is None or _is_count(value))
NUMBER = Kind("a number", _is_number)
EPS = Kind("a number", lambda value: all(each is None or _is_number(each) for each in _as_sequence(value)))
"""Adafactor has two, of which the first may be None."""
SCORE = Kind(
    "a tensor of one number", lambda value: value is None or (isinstance(value, Tensor) and value.numel() == 1)
)
VALUE = Kind("a tensor or a number", lambda value: value is None or isinstance(value, Tensor | bool | int | float))
OPTIONS = Kind(
    "a mapping of options",
    lambda value: isinstance(value, Mapping) and all(isinstance(name, str) for name in value) and _is_recipe(value),
)
MAPPING = Kind("a mapping", lambda value: isinstance(value, Mapping))

TENSOR = Kind("a tensor", lambda value: isinstance(value, Tensor))
MEMORIES_KEY = "memories"
"""Entry of a checkpoint with what the rows of a training in lanes leave to those that follow."""

CHECKPOINT_CALLBACK = {
    "best_model_score?": SCORE, "current_score?": SCORE, "kth_value?": SCORE, "best_k_models?": Each(SCORE, TEXT),
}  # fmt: skip
STATES: dict[str, Any] = {
    "ExactResume": {"seed": COUNT_OR_NONE},
    "NonFinite": {"skipped": COUNT, "in_a_row": COUNT, "ends?": Each(COUNT, COUNT)},
    "Preemption": {
        "owed": Kind("the metrics before a validation", lambda value: value is None or MAPPING.holds(value))
    },
    "BestCheckpoint": CHECKPOINT_CALLBACK,
    "LastCheckpoint": CHECKPOINT_CALLBACK,
    "ModelCheckpoint": CHECKPOINT_CALLBACK,
}
"""States of callbacks, by the name before the options."""
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")
"""Entries of an optimizer's state that have the shape of their parameter."""
STATE = {f"{name}?": VALUE for name in ("step", *MOMENTS)}
"""State of a parameter. Optimizers such as SOAP add lists that only they have."""
GROUP = {
    "params": Each(COUNT), "lr?": VALUE, "initial_lr?": VALUE, "eps?": EPS, "weight_decay?": NUMBER,
    "betas?": Each(VALUE), "momentum?": NUMBER,
}  # fmt: skip
SCHEDULE = {"last_epoch?": COUNT, "_step_count?": COUNT, "base_lrs?": Each(VALUE), "_last_lr?": Each(VALUE)}
FILE = {
    "epoch?": COUNT,
    "global_step?": COUNT,
    "pytorch-lightning_version?": TEXT,
    "hyper_parameters?": OPTIONS,
    "datamodule_hyper_parameters?": OPTIONS,
    "loops?": Each(MAPPING, TEXT),
    "callbacks?": Each(MAPPING, TEXT),
    "optimizer_states?": Each({"state": Each(STATE, COUNT), "param_groups": Each(GROUP)}),
    "lr_schedulers?": Each(SCHEDULE),
    f"{MEMORIES_KEY}?": Each(TENSOR, TEXT),
    METADATA_KEY: {
        "version?": TEXT,
        "kind?": TEXT,
        "trained_length?": COUNT_OR_NONE,
        "trained_parameters?": COUNT,
        "tokenizers?": Each({"class_path": TEXT, "init_args": OPTIONS}, TEXT),
        "versions?": Each(TEXT, TEXT),
        "trainer?": {"precision": TEXT, "strategy": TEXT, "device": TEXT, "processes": COUNT,
                     "accumulate_grad_batches": COUNT},
        "metrics?": Each(NUMBER, TEXT),
        "data?": {"class_path": TEXT, "hash": TEXT_OR_NONE},
    },
}  # fmt: skip
"""Entries of a checkpoint of lightning-xt; one whose name ends in a question mark may be absent."""
DATA = {
    "samples_seen": COUNT,
    "hash?": TEXT_OR_NONE,
    "order?": TEXT,
    "lanes?": COUNT,
    "seq_len?": COUNT,
    "seed?": COUNT,
}
"""State of a data module."""


def find_misfit(contents: dict[str, Any]) -> str | None:
    """Return what is wrong with the contents of a checkpoint, as the end of a sentence; None if nothing is.

    Of files of other programs only the size and the nesting are looked at.
    """
    if reason := _find_oversize(contents):
        return reason
    if not contents.get(METADATA_KEY):
        return None
    return next(_misfits(contents), None)


def _misfits(contents: dict[str, Any]) -> Iterator[str]:
    yield from _compare(contents, FILE, "")
    for name, state in contents.get("callbacks", {}).items():
        yield from _compare(state, STATES.get(name.partition("{")[0], {}), f"callbacks.{name.partition('{')[0]}")
    for name, state in contents.items():
        if isinstance(state, Mapping) and "samples_seen" in state:
            yield from _compare(state, DATA, str(name))


def _compare(value: Any, shape: Any, place: str) -> Iterator[str]:
    """Yield what in a value is not as its shape says."""
    if isinstance(shape, Kind):
        if not shape.holds(value):
            yield f"its {place} is {_shorten(value)}, not {shape.name}"
    elif isinstance(shape, Each) and shape.key is None:
        if not isinstance(value, list | tuple):
            yield f"its {place} is {_shorten(value)}, not a list"
            return
        for number, each in enumerate(value):
            yield from _compare(each, shape.value, f"{place}[{number}]")
    elif not isinstance(value, Mapping):
        yield f"its {place} is {_shorten(value)}, not a mapping"
    elif isinstance(shape, Each):
        for name, each in value.items():
            yield from _compare(name, shape.key, f"name in {place}")
            yield from _compare(each, shape.value, f"{place}.{name}")
    else:
        for name, inner in shape.items():
            path = f"{place}.{name}".removeprefix(".").removesuffix("?")
            if (key := name.removesuffix("?")) in value:
                yield from _compare(value[key], inner, path)
            elif key == name:
                yield f"it has no {path}"


def _shorten(value: Any) -> str:
    return repr(value)[:40] if value is None or isinstance(value, str | bool | int | float) else type(value).__name__


def _find_oversize(contents: Any) -> str | None:
    """Return what is wrong if values hold themselves, are nested too deep, or are named too often; else None."""
    counts: dict[int, int] = {}

    def count(value: Any, inside: tuple[int, ...]) -> int:
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return 1
        if id(value) in inside:
            raise _OversizeError("one of its values holds itself")
        if len(inside) == DEEPEST:
            raise _OversizeError(f"its lists and mappings are nested more than {DEEPEST} deep")
        if id(value) not in counts:
            children = value.values() if isinstance(value, Mapping) else value
            counts[id(value)] = 1 + sum(count(each, (*inside, id(value))) for each in children)
        if counts[id(value)] > MOST_VALUES:
            raise _OversizeError(f"it holds more than {MOST_VALUES:,} values where shared ones are written out")
        return counts[id(value)]

    try:
        count(contents, ())
    except _OversizeError as error:
        return str(error)
    return None


class _OversizeError(Exception):
    """Raised where counting ends early."""
