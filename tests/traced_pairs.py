"""Compilation of encoder-decoders as one graph, in a process without run-time checks of shapes.

test_encoder_families.py runs this file, with their names.
"""

import os
import sys

os.environ["LIGHTNING_XT_NO_SHAPE_CHECKS"] = "1"

import torch

import lightning_xt
from lightning_xt.system.discovery import import_submodules

import_submodules(lightning_xt)

from catalogue import randomise
from encoder_catalogue import PAIRS, make_inputs, source

torch.set_num_threads(1)


@torch.no_grad()
def check_compilation(name: str) -> None:
    torch._dynamo.reset()
    model, (src, mask), inputs = randomise(PAIRS[name]), source(2, 7), make_inputs(2, 6)
    tgt = torch.tensor([[1, 4, 2, 5, 3, 6], [2, 7, 1, 8, 2, 9]])
    expected = model(src, tgt, mask, inputs=inputs)
    actual = torch.compile(model, fullgraph=True, backend="eager")(src, tgt, mask, inputs=inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10, msg=name)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        check_compilation(each)
    print(f"{len(sys.argv) - 1} compiled")
