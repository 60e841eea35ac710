"""Small weights, gradients and models for tests of optimizers of matrices."""

import io

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_xt.models.decoder import Decoder

SHAPES = [(7, 7), (5, 11), (11, 5), (13, 3), (3, 13), (5, 11), (1, 6), (6, 1)]

EVERY_OPTION = {"orthogonalizer": "PolarExpress", "row_norm": True, "neuron_beta": 0.9, "cautious": True}
"""All options of a config that change the steps of matrices."""


def group(parameters, role="matrix", **options):
    return {"params": [(f"p{number}", p) for number, p in enumerate(parameters)], "role": role, **options}


def matrices(shapes=SHAPES, dtype=torch.float32):
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]


def give_gradients(parameters, step):
    generator = torch.Generator().manual_seed(step)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


SCALES = {
    "original": lambda rows, columns: max(1, rows / columns) ** 0.5,
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
}


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stacked_rows = {"to_qkv": (6, 3, 3)}
        self.to_qkv = nn.Linear(4, 12, bias=False)


def decoder():
    torch.manual_seed(3)
    return Decoder(11, dim=16, depth=2)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def take_step(model, optimizer, number):
    torch.manual_seed(number)
    logits = model(torch.randint(0, 11, (2, 7)))
    logits.square().mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    optimizer.zero_grad()


class Calls(TorchDispatchMode):
    """Mode that records the operations that ran."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **kwargs or {})
