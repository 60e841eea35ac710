"""export and import as commands: a run that goes to transformers and comes back, and what they refuse."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import list_names, write_inputs
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_xt.cli import main
from lightning_xt.commands.models.loading import load
from lightning_xt.exchange.formats.format_choice import list_formats

LLAMA = ["--model.decoder.feedforward", "SwiGLU", "--model.decoder.attention.kv_heads", "1"]
FOLDER = Path("runs/llama/0/export/hf")


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run in Llama's shape, its export, and the run that was imported from that."""
    folder, here = tmp_path_factory.mktemp("exchanged"), Path.cwd()
    write_inputs(folder)
    os.chdir(folder)
    try:
        assert main(["fit", "-c", "tiny.yaml", "--name", "llama", *LLAMA]) == 0
        assert main(["export", "runs/llama", "--format", "hf"]) == 0
        assert main(["import", str(FOLDER), "--name", "back"]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def exchanged_here(exchanged: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return that folder, as the current folder, for a test that writes nothing."""
    monkeypatch.chdir(exchanged)
    return exchanged


@pytest.fixture
def place(exchanged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder, as the current folder."""
    folder = shutil.copytree(exchanged, tmp_path / "place")
    monkeypatch.chdir(folder)
    return folder


def test_a_run_comes_back_from_transformers_with_the_same_bits(place: Path) -> None:
    foreign = AutoModelForCausalLM.from_pretrained(FOLDER)
    foreign.save_pretrained("theirs")
    AutoTokenizer.from_pretrained(FOLDER).save_pretrained("theirs")
    assert main(["import", "theirs"]) == 0
    ours, again = (load(f"runs/{name}").cpu().state_dict() for name in ("llama", "theirs"))
    assert ours.keys() == again.keys()
    assert all(torch.equal(ours[name], again[name]) for name in ours)


def test_transformers_generates_the_text_of_the_run(exchanged_here: Path) -> None:
    network, tokenizer = AutoModelForCausalLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer("the qüick <|endoftext|>", return_tensors="pt").input_ids
    assert ids[0].tolist() == list("the qüick <|endoftext|>".encode())
    text = tokenizer.decode(network.double().generate(ids, max_new_tokens=20)[0])
    ours = load("runs/llama").cpu().double().generate("the qüick <|endoftext|>", max_new_tokens=20, temperature=0)
    assert text == "the qüick <|endoftext|>" + ours


def test_an_imported_run_generates_as_its_origin(exchanged_here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "runs/back", "--prompt", "the ", "--max_new_tokens", "8", "--temperature", "0"]) == 0
    assert main(["generate", "runs/llama", "--prompt", "the ", "--max_new_tokens", "8", "--temperature", "0"]) == 0
    first, second = capfd.readouterr().out.splitlines()
    assert first == second


@pytest.mark.slow
def test_an_imported_run_is_evaluated_and_tuned(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = ["--data", "TextFiles", "--data.path", "corpus.txt", "--data.batch_size", "2", "--data.seq_len", "8"]
    assert main(["validate", "runs/back", *data]) == 0
    assert main(["validate", "runs/llama"]) == 0
    found = [line for line in capfd.readouterr().out.splitlines() if line.startswith("val/")]
    assert found[: len(found) // 2] == found[len(found) // 2 :]
    config = [
        "-c",
        "runs/back/0/config.yaml",
        "--init_from",
        "runs/back",
        "--name",
        "tuned",
        "--trainer.max_steps",
        "2",
    ]
    assert main(["fit", *config, *data, "--sample_text.prompts", "[]"]) == 0
    assert Path("runs/tuned/0/checkpoints/best.ckpt").is_file()


def test_formats_are_listed_with_what_stands_in_the_way(
    exchanged_here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "runs/llama"]) == 0
    lines = capfd.readouterr().out.splitlines()
    found = {line[:13].rstrip(): line[14:] for line in lines if line[14:].startswith(("yes: ", "no: "))}
    assert found.keys() == {each.name for each in list_formats()}
    assert found["hf"].startswith("yes: transformers")
    assert found["peft"].startswith("no: runs/llama has no adapter, which --format peft writes; ")
    assert found["ctranslate2"].startswith("no: ")


def test_bfloat16_halves_the_weights(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "runs/llama", "--format", "hf", "--dtype", "bfloat16", "--output", "half"]) == 0
    printed = capfd.readouterr().out
    assert "(tolerance 1e-04)" in printed and "\ntokenizer: transformers " in printed
    whole, half = (load_file(Path(folder, "model.safetensors")) for folder in (FOLDER, "half"))
    assert whole.keys() == half.keys()
    for name, each in half.items():
        assert each.dtype == torch.bfloat16 and torch.equal(each, whole[name].bfloat16()), name
    assert AutoModelForCausalLM.from_pretrained("half").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["runs/llama", "--format", "hff"], "--format: unknown format 'hff'; did you mean hf?"),
        (
            ["runs/llama", "--format", "hf"],
            "runs/llama/0/export/hf exists already; remove it, or name another folder with --output",
        ),
        (["runs/llama", "--format", "hf", "--output", "corpus.txt"], "corpus.txt exists already"),
        (["runs/llama", "--format", "hf", "--output", "corpus.txt/hf"], "--output corpus.txt/hf cannot be made"),
        (["runs/nothing", "--format", "hf"], "runs/nothing is not a run"),
        (["runs/llama", "--format", "hf", "--tokens", "0"], "--tokens is 0; it must be at least 1 token"),
    ],
)
def test_an_export_is_refused(
    options: list[str], sentence: str, exchanged_here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = list_names("runs/llama/0/export")
    assert main(["export", *options]) == 2
    assert sentence in capfd.readouterr().err
    assert list_names("runs/llama/0/export") == before


def test_a_refusal_names_the_options_that_would_fit(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "runs/tiny", "--format", "hf"]) == 2
    error = capfd.readouterr().err
    assert "Closest is" in error
    assert "model.decoder.feedforward is MLP instead of SwiGLU" in error
    assert "such as by -c architectures/" in error
    assert not Path("runs/tiny/0/export").exists()


def test_a_wrong_export_is_noticed_and_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from lightning_xt.exchange.pretrained import gated_decoder

    # As if the two norms of a layer were mistaken for each other.
    rules = gated_decoder.list_gated_decoder_rules
    swapped = {"attention.placement.norm_before": "post_attention_layernorm"}
    swapped["feedforward.placement.norm_before"] = "input_layernorm"
    monkeypatch.setattr(gated_decoder, "list_gated_decoder_rules", lambda settings, norms: [*rules(settings, swapped)])
    with torch.no_grad():
        checkpoint = torch.load("runs/llama/0/checkpoints/best.ckpt", weights_only=True)
        checkpoint["state_dict"]["decoder.stack.sublayers.0_attention.placement.norm_before.gain"] *= 3
        torch.save(checkpoint, "runs/llama/0/checkpoints/best.ckpt")
    assert main(["export", "runs/llama", "--format", "hf", "--output", "wrong"]) == 2
    assert "the logits of transformers" in capfd.readouterr().err
    assert not list(Path().glob("*wrong*"))


def test_a_setting_that_differs_changes_what_is_read(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(FOLDER, "other")
    config = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    assert main(["import", "other"]) == 2
    assert "hidden_act is 'gelu', but only 'silu' has a counterpart here" in capfd.readouterr().err
    assert not Path("runs/other").exists()
