"""Initial values of weights, as a table.

    weight                                   start
    token embedding, tables of embeddings    normal, standard deviation 0.02
    last linear map of a sublayer (to_out)   normal, 1 / sqrt(fan_in * sublayer calls): the stream starts calm
                                             however deep the model (Radford et al., 2019); zero with `zero_outputs`
    maps that a part's `output_maps` names   as every other linear map; zero with `zero_outputs`
    head (to_logits)                         zero: the first loss is log(vocabulary) for every seed
    every other linear map                   normal, 1 / sqrt(fan_in): a normed input keeps its size
    biases of linear maps                    zero

The table covers only linear maps and embedding tables. A part that needs another start has a bare parameter and sets
it itself.
"""

from torch import nn


def initialize(model: nn.Module, calls: int, *, zero_outputs: bool = False) -> None:
    """Initialize linear maps and embedding tables in place by the table; `calls` counts the sublayers of a forward."""
    output_maps = {
        f"{path}.{name}" for path, part in model.named_modules() for name in getattr(part, "output_maps", ())
    }
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Linear):
            std = module.in_features**-0.5
            if name.endswith("to_logits"):
                std = 0.0
            elif name.endswith("to_out"):
                std *= 0.0 if zero_outputs else calls**-0.5
            elif zero_outputs and name in output_maps:
                std = 0.0
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
