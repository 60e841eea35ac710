import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_xt.core.call_cache import CallCache
from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.base import Embedding
from lightning_xt.system.option_checks import check_option


class TypeEmbedding(Embedding):
    """Add a learned vector for the type of each token (speaker, segment, language), read from `Inputs.types`.

    Types come from Python, or from data with `CustomData(inputs=["types"])`.
    The segment embedding of Devlin et al., 2018. https://arxiv.org/abs/1810.04805
    In x-transformers: embed_num_tokens, embed_ids.

    Args:
        num_types: number of types.
    """

    needed_input = "types"

    def __init__(self, shape: LayerShape, *, num_types: int = 2) -> None:
        super().__init__()
        check_option("embeddings: TypeEmbedding", "num_types", num_types, least=1)
        self.table = nn.Embedding(num_types, shape.dim)

    def forward(
        self, x: Float[Tensor, "b n D"], where: Where, inputs: Inputs, cache: CallCache | None = None
    ) -> Float[Tensor, "b n D"]:
        types = inputs.require("types", self)
        # Elsewhere the look would wait for the device.
        if types.device.type == "cpu" and not torch.compiler.is_compiling() and types.numel():
            low, high = (int(each) for each in types.aminmax())
            if low < 0 or high >= self.table.num_embeddings:
                raise ValueError(
                    f"embeddings: TypeEmbedding has num_types {self.table.num_embeddings}, but there is type "
                    f"{low if low < 0 else high}; raise num_types, or change the types"
                )
        return x + self.table(types)
