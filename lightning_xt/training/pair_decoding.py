"""Decoding of the pairs of an evaluation, and texts of results."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.data.prompt_files import Prompt
from lightning_xt.generation.batching.row_state import pad_rows
from lightning_xt.generation.noise import derive_seed
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.translation import Translator
from lightning_xt.training.metrics.pair_scores import ShownPair


def decode_pairs(
    translator: Translator, batch: EvaluationPairs, rows: list[int], options: GenerationOptions
) -> tuple[Tensor, list[str] | None]:
    """Return the predicted ids of some rows, padded, and their texts: those that `predict` writes; None for other ids.

    No prediction depends on its batch.
    """
    # Memory that holds the sources' rows at once holds their targets too.
    options = options.widen(len(rows))
    if batch.sources is not None and batch.repeats is not None:
        prompts = [Prompt(id=row, prompt=batch.sources[row], repeat=batch.repeats[row]) for row in rows]
        best = [next(iter(each.completions), None) for each in translator.complete(prompts, options)]
        # A blank source has an empty target.
        empty = [] if translator.end is None else [translator.end]
        ids = [empty if each is None else each.tokens for each in best]
        return pad_rows(ids, batch.src.device, translator.pad), ["" if each is None else each.text for each in best]
    src, src_mask, numbers = batch.src[rows], batch.src_mask[rows], batch.index[rows].tolist()
    seeds = [
        derive_seed(options.seed, " ".join(map(str, row[real].tolist())), number)
        for row, real, number in zip(src, src_mask, numbers, strict=True)
    ]
    # Without an end token as long as the targets; otherwise the length must not depend on them.
    limit = batch.tgt.shape[1] - 1 if translator.end is None else None
    most, starts = options.max_new_tokens or limit, batch.tgt[rows, :1]
    return translator.decode(src, src_mask, starts=starts, max_new_tokens=most, options=options, seeds=seeds), None


def read_texts(results: Iterable[dict[str, Any]]) -> list[str]:
    """Return the texts of results, and report what of their sources is ignored."""
    texts = []
    for each in results:
        if each["problem"]:
            rank_zero_info(each["problem"])
        texts.append(each["text"])
    return texts


def describe_pairs(pairs: Iterable[ShownPair]) -> list[str]:
    """Describe pairs as samples: source, target and prediction."""
    return [f"source      {pair.source}\ntarget      {pair.target}\nprediction  {pair.prediction}" for pair in pairs]


def describe_results(results: Iterable[dict[str, Any]]) -> list[str]:
    """Describe results as samples: the source, the prediction, and what of the source is ignored."""
    texts = []
    for each in results:
        problem = f"\n({each['problem']})" if each["problem"] else ""
        texts.append(f"source      {each['source']}\nprediction  {each['text']}{problem}")
    return texts
