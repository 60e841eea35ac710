"""Row of the table of an ablation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_xt.commands.ablation.mean_tests import Difference, Mean
from lightning_xt.commands.ablation.study_probes import ProbeCell

NOISE, SAME = "within the noise", "the same as the base"
ONE_SEED = "one seed: no interval is claimed"
RATIOS = ("time", "parameters", "memory", "flops")
"""Costs of a row, in multiples of the base's."""


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """Row of the table.

    Args:
        name: name of the variant.
        summary: one line about it.
        verdict: meaning of the row: (likely) better or worse, within the noise, or why it says nothing.
        values: metric of each repeat.
        seeds: their seeds.
        mean: their mean. None = there is none.
        difference: difference of the mean from the base's. None = it is not tested.
        p: its p-value by Welch's test, corrected for the number of rows.
        p_shared: that with the spread that all rows share, corrected.
        interaction: difference of a combination from the base beyond the sum of its parts' differences.
        p_interaction: its p-value, corrected for the number of combinations.
        by_seconds: estimated metric after as many seconds as the base is trained for. None = unknown.
        by_bytes: estimated metric after as many bytes.
        steps: steps of each repeat.
        rate: the tuned learning rate. None = its own.
        at_end: whether that is the first or last of those tried.
        ratios: costs in multiples of the base's.
        costs: costs by themselves.
        probes: results on probes, by their names.
    """

    name: str
    summary: str = ""
    verdict: str = ""
    values: Sequence[float] = ()
    seeds: Sequence[int] = ()
    mean: Mean | None = None
    difference: Difference | None = None
    p: float | None = None
    p_shared: float | None = None
    interaction: Difference | None = None
    p_interaction: float | None = None
    by_seconds: float | None = None
    by_bytes: float | None = None
    steps: int | None = None
    rate: float | None = None
    at_end: bool = False
    ratios: Mapping[str, float | None] = field(default_factory=dict)
    costs: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, ProbeCell] = field(default_factory=dict)
