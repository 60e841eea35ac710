"""Every variant of the catalogue in transformers, by hf-code: the same greedy tokens in float64."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import DEPTH, DIM, DIM_HEAD, HEADS, RECIPES, VOCAB
from remote_models import load_remote, randomize, write_remote

from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.system.discovery import import_path
from lightning_xt.training.language_model import LanguageModel

SMALL = {"dim": DIM, "depth": DEPTH, "attention": {"heads": HEADS, "dim_head": DIM_HEAD}}


def make_config(value: Any) -> Any:
    """Return the config of a recipe."""
    if isinstance(value, partial):
        options = {name: make_config(each) for name, each in value.keywords.items()}
        return {"class_path": import_path(value.func), "init_args": options}  # type: ignore[arg-type]
    if isinstance(value, type):
        return {"class_path": import_path(value)}
    return [make_config(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_variant_generates_the_same(name: str, tmp_path: Path) -> None:
    options = {option: make_config(value) for option, value in RECIPES[name].items()}
    vocab = {"source": VOCAB, "target": VOCAB}
    module = randomize(LanguageModel.from_config({"vocab": vocab, "decoder": {**SMALL, **options}}))
    if module.needed_inputs:
        with pytest.raises(MisfitError, match=r"needs Inputs\("):
            write_remote(module, tmp_path / "refused")
        return
    remote, module = load_remote(write_remote(module, tmp_path / "model")), module.double()
    prompts, mask = torch.randint(0, VOCAB, (2, 5)), torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    padded = torch.stack((prompts[0].roll(-2), prompts[1]))
    limit = module.network.max_length
    new = 9 if limit is None else min(9, limit - 5)
    ours = module.generate(padded, max_new_tokens=new, lengths=mask.sum(dim=1), temperature=0)
    theirs = remote.generate(prompts, attention_mask=mask, max_new_tokens=new)
    assert theirs[:, 5:].tolist() == ours.tolist()
