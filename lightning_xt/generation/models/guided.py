"""Classifier-free guidance: the effect of a context or a condition on the scores is scaled."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.joint_cache import JointModel
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.system.option_checks import check_option


class Guided(JointModel):
    """Model that scores tokens by log p(token) + scale * (log p(token | inputs) - log p(token)).

    Sanchez et al., 2023. https://arxiv.org/abs/2306.17806
    Each token is run twice.

    Args:
        model: the wrapped model; it runs once with each row's inputs and once with the unconditional ones.
        unconditional: inputs without information, one row; its context and condition replace those of each row. For an
            encoder-decoder this is the encoding of a source with only an end token,
            `model.encode(torch.tensor([[end]]))`, and the wrapped model is the decoder.
        scale: 1 = the model's own scores; above 1 the inputs count more, at 0 they are ignored.
    """

    def __init__(self, model: Autoregressive, unconditional: Inputs, scale: int | float = 1.5) -> None:
        check_option("guidance", "scale", scale, least=0)
        _check_unconditional(unconditional)
        super().__init__(model, model)
        self.unconditional = unconditional
        self.scale = scale

    def combine(self, log_probs: list[Float[Tensor, "b _ v"]]) -> Float[Tensor, "b _ v"]:
        given, free = log_probs
        return free + self.scale * (given - free)

    def list_inputs(self, inputs: Inputs | None, rows: int) -> list[Inputs | None]:
        replaced, free = Inputs() if inputs is None else inputs, self.unconditional
        if free.condition is not None:
            replaced = replace(replaced, condition=free.condition.expand(rows, -1))
        # Decode steps come without a context, which is cached.
        if free.context is not None and replaced.context is not None:
            mask = None if free.context_mask is None else free.context_mask.expand(rows, -1)
            replaced = replace(replaced, context=free.context.expand(rows, -1, -1), context_mask=mask)
        return [inputs, replaced]


def _check_unconditional(unconditional: Inputs) -> None:
    named = {name: value for name, value in vars(unconditional).items() if value is not None}
    wrong = sorted(named.keys() - {"condition", "context", "context_mask"})
    if wrong or not named.keys() & {"condition", "context"}:
        given = f"Inputs({', '.join(f'{name}=...' for name in wrong)})"
        raise ValueError(
            f"guidance replaces the context or the condition of each row, but its unconditional inputs are {given}; "
            "give Inputs(context=...), Inputs(condition=...) or both"
        )
    for name, value in named.items():
        if value.shape[0] != 1:
            raise ValueError(
                f"the unconditional inputs of guidance have {value.shape[0]} rows in {name}; give one, which is "
                "used for all rows"
            )
