"""Old names of options and classes, for messages about configs, checkpoints and command lines that use them."""

from collections.abc import Iterable
from types import MappingProxyType

RENAMED = MappingProxyType(
    {
        "length": "max_new_tokens",
        "seq_len": "max_new_tokens",
        "share": "fraction",
        "min_share": "min_fraction",
        "max_share": "max_fraction",
        "decay_share": "decay",
        "decay_steps": "decay",
        "scaling": "rope_scaling",
        "decoded": "val_decode_pairs",
        "validation_path": "validation",
        "validation_fraction": "validation",
        "test_path": "test",
        "test_fraction": "test",
        "validate_at_end": "validation_schedule",
        "ValidateAtEnd": "ValidationSchedule",
        "Epsilon": "EpsilonCutoff",
        "Progress": "StepProgressBar",
    }
)
"""New names, by old ones."""
REPLACED = MappingProxyType(
    {
        "stochastic": "choose the method StochasticBeamSearch",
        "stable_steps": "the other phases, warmup_steps and decay, say how many steps are left",
        "ns_steps": "set steps in orthogonalizer: {class_path: NewtonSchulz, init_args: {steps: 5}}",
        "condition_dim": "set it in norm: {class_path: AdaptiveRMSNorm, init_args: {condition_dim: 64}}",
    }
)
"""Ways out for options that are gone."""


def explain_rename(name: str, known: Iterable[str]) -> str | None:
    """Return what to use in place of an old option or class, if that is `known` today; None for any other name."""
    place, dot, leaf = name.rpartition(".")
    bare = leaf.lstrip("-")
    if RENAMED.get(bare) in {each.rpartition(".")[2].lstrip("-") for each in known}:
        return f"it is called {place}{dot}{leaf.removesuffix(bare)}{RENAMED[bare]} now"
    return f"it is gone: {REPLACED[bare]}" if bare in REPLACED else None


def find_old_names(known: Iterable[str]) -> dict[str, str]:
    """Return the names of today, by their old names in lower case."""
    return {
        (each.removesuffix(new) + old).lower(): each
        for each in known
        for old, new in RENAMED.items()
        if each.rpartition(".")[2].lstrip("-") == new
    }
