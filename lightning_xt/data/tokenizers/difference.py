"""Comparison of tokenizers."""

from lightning_xt.data.tokenizers.base import Tokenizer


def describe_difference(theirs: Tokenizer, ours: Tokenizer) -> str | None:
    """Describe the first difference in what ids mean, theirs first; None if there is none.

    Two that have learned the same may have different options.
    """
    kinds = type(theirs).__name__, type(ours).__name__
    if type(theirs) is not type(ours):
        return f"{kinds[0]} instead of {kinds[1]}"
    if theirs.trained_state != ours.trained_state:
        return _describe_ids(theirs, ours)
    if ours.trained_state is not None:
        return _describe_specials(theirs, ours)
    pairs = [(name, theirs.init_args.get(name), value) for name, value in ours.init_args.items()]
    differing = [f"{kinds[0]} with {name} {there} instead of {here}" for name, there, here in pairs if there != here]
    return next(iter(differing), None)


def _describe_specials(theirs: Tokenizer, ours: Tokenizer) -> str | None:
    """Describe a difference of the special ids in use; None if there is none, or texts are joined."""
    if theirs.init_args.get("specials") != ours.init_args.get("specials"):
        return None
    ids = [(use, getattr(theirs, use), getattr(ours, use)) for use in ("pad", "start", "end")]
    return next((f"the {use} id {there} instead of {here}" for use, there, here in ids if there != here), None)


def _describe_ids(theirs: Tokenizer, ours: Tokenizer) -> str:
    if theirs.trained_state is None or ours.trained_state is None:
        return f"a {type(ours).__name__} that has {'not ' if theirs.trained_state is None else ''}learned"
    counts = [each.vocab_size - len(each.unused) for each in (theirs, ours)]
    if counts[0] != counts[1]:
        return f"{counts[0]} ids with a meaning instead of {counts[1]}"
    texts = ((token, theirs.decode([token]), ours.decode([token])) for token in range(theirs.vocab_size))
    token, there, here = next((each for each in texts if each[1] != each[2]), (None, "", ""))
    return "other merges of the same ids" if token is None else f"id {token} is {there!r} instead of {here!r}"
