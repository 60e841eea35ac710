"""Numbers of 64 bits on devices with and without them."""

import torch

from lightning_xt.core.wide_floats import choose_widest, to_float64


class OnApple(torch.Tensor):
    """Tensor that says to be on Apple's GPU, where float64 fails."""

    device = torch.device("mps")

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)

    def double(self) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")


def test_apples_gpus_have_32_bits() -> None:
    assert choose_widest(torch.device("mps")) == torch.float32
    assert choose_widest(torch.device("cpu")) == choose_widest(torch.device("cuda")) == torch.float64


def test_what_needs_64_bits_is_computed_on_the_cpu() -> None:
    t = torch.tensor([0.1, 3.0])
    for each in (t, t.as_subclass(OnApple)):
        found = to_float64(each)
        assert found.dtype == torch.float64 and torch.equal(found, t.double())
