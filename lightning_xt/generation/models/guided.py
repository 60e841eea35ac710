"""Classifier-free guidance: the effect of a context or a condition on the scores is scaled."""

from dataclasses import replace

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.joint_cache import JointCache, score_jointly
from lightning_xt.generation.models.model_wrapper import ModelWrapper
from lightning_xt.generation.protocol import Autoregressive, DecodingCache
from lightning_xt.system.option_checks import check_option


class Guided(ModelWrapper):
    """Model that scores tokens by log p(token) + scale * (log p(token | inputs) - log p(token)).

    Sanchez et al., 2023. https://arxiv.org/abs/2306.17806
    It keeps the protocol of a model, so decoding methods work with it, except ContrastiveSearch, which needs a
    Decoder's hidden states. Each token is run twice.

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
        super().__init__(model)
        self.unconditional = unconditional
        self.scale = scale

    def __call__(
        self,
        tokens: Int[Tensor, "b n"],
        *,
        lengths: Int[Tensor, " b"] | None = None,
        inputs: Inputs | None = None,
        cache: DecodingCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "b _ v"]:
        """Return guided log-probabilities of the token after each given token; arguments as of the model."""
        readers = [(self.model, inputs), (self.model, self._replace_inputs(inputs, tokens.shape[0]))]
        given, free = score_jointly(readers, tokens, lengths=lengths, cache=cache, last_only=last_only)
        return free + self.scale * (given - free)

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> JointCache:
        """Return an empty cache; arguments as of the model."""
        return JointCache([self.model.new_cache(batch, capacity, slack=slack, window=window) for _ in range(2)])

    def _replace_inputs(self, inputs: Inputs | None, rows: int) -> Inputs:
        inputs, free = Inputs() if inputs is None else inputs, self.unconditional
        if free.condition is not None:
            inputs = replace(inputs, condition=free.condition.expand(rows, -1))
        if free.context is not None:
            mask = None if free.context_mask is None else free.context_mask.expand(rows, -1)
            inputs = replace(inputs, context=free.context.expand(rows, -1, -1), context_mask=mask)
        return inputs


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
