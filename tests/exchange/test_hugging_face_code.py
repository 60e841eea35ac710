"""hf-code: models of any parts in transformers, with generate()."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_models import build_language_model, build_pair_model, load_remote, write_remote
from transformers import AutoConfig, AutoTokenizer

from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.hugging_face_code import HuggingFaceCode
from lightning_xt.exchange.importing import read_folder
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel

MANY = 80
"""More tokens than a cache has room for at first."""
MODELS: dict[str, dict[str, Any]] = {
    "experts": {"attention": {"position": "ALiBi"}, "feedforward": "MixtureOfExperts", "head": "TiedHead"},
    "hybrid": {"attention": {"class_path": "Cycle", "init_args": {"recipes": ["Mamba2", "Attention"]}}},
    "hyper_connections": {"residual": {"class_path": "HyperConnection", "init_args": {"num_streams": 2}}},
    "window": {"attention": {"window": 5}, "shift": "TokenShift"},
    "latent": {"attention": {"projection": "Latent"}, "embeddings": ["Smear"]},
    "segments": {"segments": {"class_path": "SegmentRecurrence", "init_args": {"length": 7, "memory": 5}}},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a language model of the usual parts."""
    return write_remote(build_language_model(), tmp_path_factory.mktemp("plain") / "model")


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=[] if each in ("hybrid", "segments") else pytest.mark.slow) for each in MODELS],
)
def test_generate_gives_our_tokens(name: str, tmp_path: Path) -> None:
    module, new = build_language_model(**MODELS[name]), 12
    remote = load_remote(write_remote(module, tmp_path / "model"))
    module = module.double()
    prompts = torch.randint(3, 23, (3, 9))
    # Padding on the left, and in one row in the middle.
    mask = torch.tensor([[1] * 9, [0] * 4 + [1] * 5, [0, 1, 1, 0, 1, 1, 1, 1, 1]])
    lengths = mask.sum(dim=1)
    rows = [row[real.bool()] for row, real in zip(prompts, mask, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    ours = module.generate(padded, max_new_tokens=new, lengths=lengths, temperature=0)
    theirs = remote.generate(prompts, attention_mask=mask, max_new_tokens=new)
    assert theirs[:, 9:].tolist() == ours.tolist()
    short = remote.generate(prompts, attention_mask=mask, max_new_tokens=6, use_cache=False)
    assert short.tolist() == theirs[:, :15].tolist()


@pytest.mark.parametrize(
    "options",
    [{"num_beams": 3}, pytest.param({"do_sample": True, "top_k": 5}, marks=pytest.mark.slow)],
    ids=["beams", "sampling"],
)
def test_caches_follow_beams_and_samples(options: dict[str, Any], tmp_path: Path) -> None:
    module = build_language_model(attention={"window": 6}, shift="TokenShift")
    remote = load_remote(write_remote(module, tmp_path / "model"))
    prompts, mask = torch.randint(3, 23, (2, 5)), torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    found = []
    for cached in (True, False):
        torch.manual_seed(0)
        found.append(remote.generate(prompts, attention_mask=mask, max_new_tokens=10, use_cache=cached, **options))
    assert found[0].tolist() == found[1].tolist()
    assert len(set(found[0][0, 5:].tolist())) > 1


def test_drafts_are_verified_and_cropped(plain: Path) -> None:
    remote = load_remote(plain)
    prompt = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
    plain = remote.generate(prompt, max_new_tokens=20)
    assert remote.generate(prompt, max_new_tokens=20, prompt_lookup_num_tokens=3).tolist() == plain.tolist()


def test_a_returned_cache_continues_and_grows(tmp_path: Path) -> None:
    remote = load_remote(write_remote(build_language_model(attention={"window": 40}), tmp_path / "model"))
    ids = torch.randint(3, 23, (2, MANY))
    first = remote(ids[:, :6], use_cache=True)
    second = remote(ids[:, 6:], past_key_values=first.cache)
    torch.testing.assert_close(second.logits, remote(ids).logits[:, 6:])
    first.cache.crop(-2)
    torch.testing.assert_close(remote(ids[:, -2:], cache=first.cache).logits, remote(ids).logits[:, -2:])


def test_an_encoder_decoder_generates_our_tokens(tmp_path: Path) -> None:
    module = build_pair_model(shared_embedding=True)
    remote = load_remote(write_remote(module, tmp_path / "model"), pairs=True)
    module = module.double()
    sources, mask = torch.randint(3, 23, (2, 7)), torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7])
    moved = sources.clone()
    moved[0] = sources[0].roll(-3)
    right = mask.flip(1).bool()
    ours = module.generate(moved, max_new_tokens=12, src_mask=right)
    theirs = remote.generate(sources, attention_mask=mask, max_new_tokens=12)
    assert theirs[:, 1:].tolist() == ours.tolist()
    found = [
        remote.generate(sources, attention_mask=mask, max_new_tokens=8, num_beams=3, use_cache=cached).tolist()
        for cached in (True, False)
    ]
    assert found[0] == found[1]
    labels = torch.tensor([[4, 5, 6], [7, 8, -100]])
    loss = remote(sources, attention_mask=mask, labels=labels).loss
    tgt = torch.tensor([[1, 4, 5, 6], [1, 7, 8, 0]])
    torch.testing.assert_close(loss, module.loss(moved, tgt, right))


def test_prompts_of_a_prefix_language_model_see_themselves_whole(tmp_path: Path) -> None:
    module = build_language_model()
    config = {**{name: value for name, value in module.hparams.items() if name[0] != "_"}}
    module = LanguageModel.from_config({**config, "objective": "PrefixNextToken"}).eval()
    remote = load_remote(write_remote(module, tmp_path / "model"))
    module = module.double()
    prompts, mask = torch.randint(3, 23, (2, 6)), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    padded = torch.stack((prompts[0].roll(-2), prompts[1]))
    ours = module.generate(padded, max_new_tokens=12, lengths=mask.sum(1), temperature=0)
    assert remote.generate(prompts, attention_mask=mask, max_new_tokens=12)[:, 6:].tolist() == ours.tolist()
    with pytest.raises(ValueError, match="generates with its cache only"):
        remote.generate(prompts, use_cache=False, max_new_tokens=2)


def test_it_trains_and_is_saved_again(tmp_path: Path) -> None:
    module = build_language_model(head="TiedHead")
    remote = load_remote(write_remote(module, tmp_path / "model"), torch.float32)
    ids, mask = torch.randint(3, 23, (2, 8)), torch.tensor([[0] * 3 + [1] * 5, [1] * 8])
    labels = ids.masked_fill(mask == 0, -100)
    loss = remote(ids, attention_mask=mask, labels=labels).loss
    alone = [remote(ids[:1, 3:], labels=ids[:1, 3:]).loss, remote(ids[1:], labels=ids[1:]).loss]
    torch.testing.assert_close(loss, (4 * alone[0] + 7 * alone[1]) / 11)
    # Labels that have padding too: it does not count, wherever it is.
    torch.testing.assert_close(remote(ids, attention_mask=mask, labels=ids).loss, loss)
    right = torch.tensor([[1] * 5 + [0] * 3, [1] * 8])
    moved = torch.stack((ids[0].roll(-3), ids[1]))
    torch.testing.assert_close(remote(moved, attention_mask=right, labels=moved).loss, loss)
    between = torch.tensor([[1, 0, 1, 0, 0, 1, 1, 1], [1] * 8])
    spread = torch.stack((ids[0].masked_fill(between[0] == 0, 0).masked_scatter(between[0] == 1, ids[0, 3:]), ids[1]))
    torch.testing.assert_close(remote(spread, attention_mask=between, labels=spread).loss, loss)
    summed = remote(ids, attention_mask=mask, labels=labels, num_items_in_batch=22).loss
    torch.testing.assert_close(summed, loss / 2)
    loss.backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in remote.parameters())
    with torch.no_grad():
        for each in remote.parameters():
            each -= 0.01 * each.grad
    remote.save_pretrained(tmp_path / "saved")
    again = load_remote(tmp_path / "saved", torch.float32)
    assert torch.equal(again(ids).logits, remote(ids).logits)
    back = read_folder(tmp_path / "saved").module
    assert torch.equal(back.network(ids), remote(ids).logits)
    assert back.hparams["decoder"] == module.hparams["decoder"]


def test_configs_and_types_are_known(plain: Path) -> None:
    config = AutoConfig.from_pretrained(plain, trust_remote_code=True)
    assert (config.vocab_size, config.eos_token_id, config.is_encoder_decoder) == (23, None, False)
    remote = load_remote(plain, torch.bfloat16)
    ids = torch.randint(3, 23, (1, 8))
    reference = read_folder(plain).module.bfloat16()
    assert torch.equal(remote(ids).logits, reference.network(ids))


def test_the_tokenizer_reads_as_ours(tmp_path: Path) -> None:
    module = LanguageModel.from_config({"decoder": {"dim": 16, "depth": 1}}).eval()
    folder = write_remote(module, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = tokenizer("grüße ", return_tensors="pt")
    assert given.input_ids[0].tolist() == module.tokenizer.encode_prompt("grüße ")
    assert load_remote(folder).generate(**given, max_new_tokens=3).shape == (1, 11)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs_embeds": torch.zeros(1, 2, 16)}, "inputs_embeds is given, but a model of lightning-xt has no"),
        ({}, "reads ids; give input_ids"),
        ({"input_ids": torch.ones(1, 2).long(), "cache": object()}, "the cache is a object"),
        ({"input_ids": torch.ones(1, 2).long(), "attention_mask": torch.zeros(1, 2)}, "0 in a whole row, number 0"),
        ({"input_ids": torch.ones(1, 2).long(), "attention_mask": torch.ones(2, 2)}, r"the shape \(2, 2\)"),
    ],
)
def test_inputs_that_there_are_not_are_refused(given: dict[str, Any], message: str, plain: Path) -> None:
    remote = load_remote(plain)
    with pytest.raises(ValueError, match=message):
        remote(**given)


def test_missing_and_fixed_parts_are_named(plain: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(plain, tmp_path / "model")
    with pytest.raises(ValueError, match="the vocabulary of a model of lightning-xt is fixed"):
        load_remote(folder).set_input_embeddings(torch.nn.Embedding(3, 3))
    tensors = load_file(folder / "model.safetensors")
    tensors["extra"] = tensors.pop("decoder.head.to_logits.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"to_logits.weight is missing; extra is left over; copy"):
        load_remote(folder)


def test_models_that_do_not_generate_are_refused() -> None:
    masked = MaskedLanguageModel.from_config({"encoder": {"dim": 16, "depth": 1}})
    with pytest.raises(MisfitError, match="is a MaskedLanguageModel, which generates nothing; use --format safetens"):
        HuggingFaceCode().check(ExportedModel("runs/x", masked, ExportOptions()))
    typed = build_language_model(norm={"class_path": "AdaptiveRMSNorm", "init_args": {"condition_dim": 4}})
    with pytest.raises(MisfitError, match=r"a AdaptiveRMSNorm, which needs Inputs\(condition=...\)"):
        HuggingFaceCode().check(ExportedModel("runs/x", typed, ExportOptions()))
