"""Verdicts of the rows of an ablation: which differ from the base by more than noise."""

from collections.abc import Sequence
from dataclasses import replace

from lightning_xt.commands.ablation.mean_tests import (
    SIGNIFICANT,
    Spread,
    compare_means,
    compute_contrast,
    correct_for_number,
    find_spread,
)
from lightning_xt.commands.ablation.shared_spread import share_spread
from lightning_xt.commands.ablation.study_plan import Variant
from lightning_xt.commands.ablation.study_rows import NOISE, ONE_SEED, StudyRow


def judge_rows(base: StudyRow, rows: Sequence[StudyRow], variants: Sequence[Variant] = ()) -> list[StudyRow]:
    """Return rows with their verdicts and corrected p-values, those of combinations with their interactions.

    Args:
        base: row of the base.
        rows: the others, with their differences from the base.
        variants: their variants; parts of a combination are rows too.
    """
    spread = _share_spread([base, *rows])
    tested = [row for row in rows if row.difference is not None and not row.verdict]
    own = correct_for_number([row.difference.p for row in tested if row.difference is not None])
    shared = correct_for_number([each.p for row in tested if (each := compare_means(row.values, base.values, spread))])
    corrected = {row.name: both for row, both in zip(tested, zip(own, shared, strict=True), strict=True)}
    return _add_interactions([_judge(row, *corrected.get(row.name, ())) for row in rows], base, variants, spread)


def _share_spread(rows: Sequence[StudyRow]) -> Spread | None:
    """Return the spread of single runs that rows share; None if no row shows one."""
    return share_spread([find_spread(row.values) for row in rows if len(row.values) > 1])


def _judge(row: StudyRow, p: float | None = None, p_shared: float | None = None) -> StudyRow:
    """Return a row with its verdict, from its corrected p-values.

    A row is better or worse by both tests only. Welch's alone has false alarms where few repeats agree by chance, and
    after a correction for many rows these are most of its small p-values.
    """
    if row.verdict or row.mean is None:
        return row
    if row.difference is None or p is None or p_shared is None:
        return replace(row, verdict=ONE_SEED)
    verdict = "better" if row.difference.value < 0 else "worse"
    if p_shared >= SIGNIFICANT:
        verdict = NOISE
    elif p >= SIGNIFICANT:
        verdict = f"likely {verdict}"
    return replace(row, verdict=verdict, p=p, p_shared=p_shared)


def _add_interactions(
    rows: Sequence[StudyRow], base: StudyRow, variants: Sequence[Variant], spread: Spread | None
) -> list[StudyRow]:
    """Return the rows, those of combinations with what they gain or lose beyond the sum of their parts."""
    by_name, found = {row.name: row for row in rows}, {}
    for variant in variants:
        row, parts = by_name[variant.name], [by_name[part].values for part in variant.parts]
        if parts and row.p is not None:
            # Their differences from the base, whose weight is 1 less for each.
            weighted = [(1.0, row.values), *((-1.0, each) for each in parts), (len(parts) - 1.0, base.values)]
            if (test := compute_contrast(weighted, spread)) is not None:
                found[row.name] = test
    corrected = dict(zip(found, correct_for_number([test.p for test in found.values()]), strict=True))
    return [replace(row, interaction=found.get(row.name), p_interaction=corrected.get(row.name)) for row in rows]
