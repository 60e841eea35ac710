"""Numbers of an option on several devices."""

import torch

from lightning_xt.core.option_tensor import OptionTensor


def test_copies_serve_training_after_inference() -> None:
    numbers = OptionTensor([3, 1], torch.long)
    with torch.inference_mode():
        copy = numbers.to(torch.device("meta"))
        assert numbers.to(torch.device("cpu")).tolist() == [3, 1]
    assert not copy.is_inference() and numbers.to(torch.device("meta")) is copy
