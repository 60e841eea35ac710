"""Classifier-free guidance: what the context adds to a score counts more than once."""

from dataclasses import replace

from jaxtyping import Float, Int
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.models.joint_cache import JointCache, score_jointly
from lightning_xt.generation.models.wrapper import ModelWrapper
from lightning_xt.generation.protocol import Autoregressive, DecodingCache
from lightning_xt.system.option_checks import check_option


class Guided(ModelWrapper):
    """Scores words by log p(word) + scale * (log p(word | given) - log p(word)).

    Sanchez et al., 2023. https://arxiv.org/abs/2306.17806
    It keeps the protocol of a model, so the methods of decoding work with it, but for ContrastiveSearch, which needs a
    Decoder's vectors and refuses it. Each token is read twice.

    Args:
        model: reads the tokens, once with what each row is given and once without.
        unconditional: one row of what stands for nothing given: its context and its condition take the place of each
            row's. Of an encoder-decoder it is the encoding of a source that is empty but for its end token,
            `model.encode(torch.tensor([[end]]))`, and the decoder is what is guided.
        scale: 1 = as the model has it; above 1 words that what is given makes likelier gain, at 0 it is forgotten.
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
        """Guided log-probabilities of the token after each of the given ones; arguments as of the model."""
        readers = [(self.model, inputs), (self.model, self._without(inputs, tokens.shape[0]))]
        given, free = score_jointly(readers, tokens, lengths=lengths, cache=cache, last_only=last_only)
        return free + self.scale * (given - free)

    def new_cache(self, batch: int, capacity: int, *, slack: int = 64, window: int | None = None) -> JointCache:
        """An empty memory for decoding; arguments as of the model."""
        return JointCache([self.model.new_cache(batch, capacity, slack=slack, window=window) for _ in range(2)])

    def _without(self, inputs: Inputs | None, rows: int) -> Inputs:
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
                f"the unconditional inputs of guidance have {value.shape[0]} rows in {name}; give one, which serves "
                "for all"
            )
