"""Trained encoder-decoders in transformers and CTranslate2: texts in, the same translations out."""

import json
from pathlib import Path

import ctranslate2
import pytest
import torch
from foreign_models import export_run, import_run
from tiny_pairs import sentences, write_pairs
from tokenizers import Tokenizer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lightning_xt.cli import main
from lightning_xt.commands.models.loading import load

RECIPE = Path(__file__).parents[2] / "configs/translation/marian_small.yaml"
SIZES = [
    f"--model.{side}.{name}={value}"
    for side in ("encoder", "decoder")
    for name, value in {"dim": 16, "depth": 1, "feedforward.init_args.hidden_dim": 24}.items()
]
TEXTS = [source for source, _ in sentences(4)]
LENGTH = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe, made small."""
    folder = tmp_path_factory.mktemp("marian")
    write_pairs(folder)
    data = {"path": folder / "pairs.en", "target_path": folder / "pairs.de", "validation": 0.2, "max_tokens": 256}
    data["tokenizer.vocab_size"] = 280
    options = [f"--data.{name}={value}" for name, value in data.items()]
    steps = [
        "--model.schedule.init_args.warmup_steps=5",
        "--trainer.max_steps=40",
        "--validate_every=40",
        f"--trainer.default_root_dir={folder / 'runs'}",
    ]
    given = ["fit", "-c", str(RECIPE), "--data", "ParallelText", "--data.tokenizer=BPE", *options, *SIZES, *steps]
    assert main(given) == 0
    return folder / "runs/marian_small/0"


@torch.no_grad()
def test_transformers_translates_texts_as_here(run: Path, tmp_path: Path) -> None:
    folder = export_run(run, tmp_path / "hf")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert [config[f"{name}_token_id"] for name in ("pad", "decoder_start", "eos")] == [0, 1, 2]
    given = tokenizer(TEXTS, return_tensors="pt", padding=True)
    assert all(row[row != 0][-1] == 2 for row in given.input_ids)
    # Without a limit here, since the folder has that of this package: 20 tokens are its default.
    made = model.generate(input_ids=given.input_ids, attention_mask=given.attention_mask, max_length=1 + LENGTH)
    ours = load(str(run)).cpu().double().translate(TEXTS, max_new_tokens=LENGTH)
    assert tokenizer.batch_decode(made, skip_special_tokens=True) == ours
    assert any(ours)
    assert json.loads((folder / "generation_config.json").read_text())["max_length"] == 2 * config_length(run) + 33


def config_length(run: Path) -> int:
    found = load(str(run)).trained_length
    assert found is not None
    return found


@pytest.mark.slow
def test_an_export_comes_back(run: Path, tmp_path: Path) -> None:
    folder = export_run(run, tmp_path / "hf")
    again, before = import_run(folder, tmp_path / "runs"), load(str(run)).cpu()
    assert again.trained_length == before.trained_length
    assert again.network.state_dict().keys() == before.network.state_dict().keys()
    assert all(
        torch.equal(value, again.network.state_dict()[name]) for name, value in before.network.state_dict().items()
    )
    assert again.translate(TEXTS, max_new_tokens=LENGTH) == before.translate(TEXTS, max_new_tokens=LENGTH)


@pytest.mark.slow
def test_c_translate2_translates_texts_as_here(run: Path, tmp_path: Path) -> None:
    folder = export_run(run, tmp_path / "ct2", form="ctranslate2")
    translator, tokenizer = ctranslate2.Translator(str(folder)), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = [each.tokens for each in tokenizer.encode_batch(TEXTS)]
    found = translator.translate_batch(tokens, beam_size=1, min_decoding_length=0, max_decoding_length=LENGTH)
    ids = [[tokenizer.token_to_id(token) for token in each.hypotheses[0]] for each in found]
    assert tokenizer.decode_batch(ids) == load(str(run)).cpu().translate(TEXTS, max_new_tokens=LENGTH)
