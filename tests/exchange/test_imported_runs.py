"""Runs of imports and of adapters: they hold their tokenizers, and are used from any folder."""

import shutil
from pathlib import Path

import pytest
import yaml
from foreign_models import SMALL, save_foreign
from peft import LoraConfig, get_peft_model
from tiny_pairs import write_pairs
from tokenizers import Tokenizer as Library
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_xt.cli import main
from lightning_xt.commands.models.loading import load
from lightning_xt.commands.options.config_files import ConfigFiles
from lightning_xt.commands.transfer.imported_run import write_run
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.difference import describe_difference
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.formats.safetensors import Safetensors
from lightning_xt.exchange.imported_model import make_data
from lightning_xt.exchange.importing import read_folder
from lightning_xt.training.seq2seq import Seq2Seq

SIZES = {"dim": 16, "depth": 1, "attention": {"heads": 2}}


def write_library(folder: Path) -> None:
    library = Library(WordLevel({"</s>": 0, **{f"w{number}": number for number in range(1, 61)}}, unk_token="w1"))
    library.pre_tokenizer = Whitespace()
    library.add_special_tokens(["</s>"])
    library.save(str(folder / "tokenizer.json"))


def write_two_tokenizers(folder: Path) -> dict[str, Tokenizer]:
    """Export an encoder-decoder with two tokenizers, and return these by use."""
    write_pairs(folder)
    made: dict[str, Tokenizer] = {"source": BPE(280), "target": BPE(290)}
    for each, language in zip(made.values(), ("en", "de"), strict=True):
        lines = (folder / f"pairs.{language}").read_text(encoding="utf-8").splitlines()
        each.train(lambda lines=lines: lines)
    sizes = {use: each.vocab_size for use, each in made.items()}
    vocab = {**sizes, "pad": 0, "start": 1, "end": 2, "separator": None}
    module = Seq2Seq.from_config({"encoder": SIZES, "decoder": SIZES, "vocab": vocab})
    module._trained_with = made
    (folder / "out").mkdir()
    Safetensors().write(ExportedModel("model", module.eval(), ExportOptions()), folder / "out")
    return made


def test_a_run_holds_both_tokenizers_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = write_two_tokenizers(tmp_path)
    run = write_run(read_folder(Path("out")), Path("runs/back"))
    config = run / "config.yaml"
    found = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]["init_args"]
    assert not found["shared_tokenizer"]
    options = {"source": "tokenizer", "target": "target_tokenizer"}
    files = {use: Path(found[option]["init_args"]["file"]) for use, option in options.items()}
    assert files == {use: tmp_path / f"runs/back/0/{use}_tokenizer.json" for use in options}
    for use, tokenizer in made.items():
        assert describe_difference(BPE(tokenizer.vocab_size, file=str(files[use])), tokenizer) is None
    # The parser takes configs as this class has them.
    assert ConfigFiles([config], []).contents[config]["data"]["init_args"] == found
    moved = Path(shutil.move(run, tmp_path / "moved")) / "config.yaml"
    again = ConfigFiles([moved], []).contents[moved]["data"]["init_args"]
    for use, option in options.items():
        assert Path(again[option]["init_args"]["file"]) == tmp_path / f"moved/{use}_tokenizer.json"


def test_sides_of_two_sizes_have_two_tokenizers_in_the_config() -> None:
    """A model of x-transformers states sizes only."""
    source, target = Numbers(17), Numbers(19)
    data, files = make_data({"source": source, "target": target}, None)
    options = data["init_args"]
    assert not files and not options["shared_tokenizer"]
    assert options["tokenizer"]["init_args"] == source.init_args
    assert options["target_tokenizer"]["init_args"] == target.init_args
    assert "target_tokenizer" not in make_data({"source": source, "target": source}, None)[0]["init_args"]


@pytest.mark.slow
def test_a_run_is_measured_and_fine_tuned_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = write_two_tokenizers(tmp_path)
    assert main(["import", "out", "--name", "back"]) == 0
    (tmp_path / "elsewhere/runs").mkdir(parents=True)
    shutil.move("runs/back", "elsewhere/moved")
    shutil.rmtree("out")
    monkeypatch.chdir(tmp_path / "elsewhere")
    data = ["--data", "ParallelText", "--data.path", "../pairs.en", "--data.target_path", "../pairs.de"]
    data += ["--data.validation", "0.1", "--data.max_tokens", "256"]
    assert main(["validate", "moved", *data]) == 0
    steps = ["--trainer.max_steps", "1", "--sample_text", "null", "--name", "tuned"]
    assert main(["fit", "-c", "moved/0/config.yaml", "--init_from", "moved", *data, *steps]) == 0
    assert load("runs/tuned").cpu().tokenizers["target"].init_args == made["target"].init_args


# Of the use that peft makes of transformers.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_run_of_an_adapter_does_not_need_its_base(tmp_path: Path) -> None:
    theirs = save_foreign(LlamaConfig(**{**SMALL, "num_hidden_layers": 1}), LlamaForCausalLM, tmp_path / "theirs")
    write_library(tmp_path / "theirs")
    runs, adapter = tmp_path / "runs", tmp_path / "adapter"
    assert main(["import", str(tmp_path / "theirs"), "--name", "base", "--output", str(runs)]) == 0
    get_peft_model(theirs, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)
    assert main(["import", str(adapter), "--base", str(runs / "base"), "--name", "own", "--output", str(runs)]) == 0
    content = (runs / "base/0/text_tokenizer.json").read_bytes()
    shutil.rmtree(runs / "base")
    config = yaml.safe_load((runs / "own/0/config.yaml").read_text(encoding="utf-8"))
    file = Path(config["data"]["init_args"]["tokenizer"]["init_args"]["file"])
    assert file == runs / "own/0/text_tokenizer.json" and file.read_bytes() == content
