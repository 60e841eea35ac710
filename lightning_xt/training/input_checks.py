"""Checks of the inputs besides ids that a network needs and data bring."""

from collections.abc import Mapping, Sequence


def check_inputs(needed: Mapping[str, str], given: Sequence[str]) -> None:
    """Refuse an input that a part needs and the data lack, or that the data bring and no part reads, by a ValueError.

    Args:
        needed: inputs that the network needs, each with the class of a part that needs it.
        given: inputs that the data bring.
    """
    for name, part in needed.items():
        if name not in given:
            raise ValueError(
                f"--model: {part} needs the input {name}, which these data do not give; choose another part, or "
                f"bring it with --data CustomData and --data.inputs '[{name}]'"
            )
    for name in given:
        if name.removesuffix("_mask") not in needed:
            raise ValueError(
                f"--data.inputs names {name}, but no part of the network reads it; choose a part that does, such as "
                "an adaptive norm for condition or TypeEmbedding for types, or omit it"
            )
