"""Every YAML in configs/ parses, and trains two steps of a tiny model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lightning_xt.cli import main
from lightning_xt.data.probes.mqar import MQAR
from lightning_xt.training.language_model import LanguageModel

CONFIGS = Path(__file__).parent.parent / "configs"
TUNING = CONFIGS / "language" / "finetune_lora.yaml"
BASES = sorted(file for file in (CONFIGS / "language").glob("*.yaml") if file != TUNING)
OVERLAYS = sorted(file for folder in ("variants", "trainer") for file in (CONFIGS / folder).glob("*.yaml"))
VARIANTS = [file for file in OVERLAYS if file.parent.name == "variants"]
QUICKSTART = CONFIGS / "language" / "quickstart.yaml"
ABLATION = CONFIGS / "language" / "ablation_base.yaml"


TRANSLATION = sorted((CONFIGS / "translation").glob("*.yaml"))
PROBES = sorted((CONFIGS / "probes").glob("*.yaml"))
DENOISING = sorted((CONFIGS / "denoising").glob("*.yaml"))
TINY_PAIRS = """
model:
  init_args:
    compile: false
    encoder: {dim: 16, depth: 1}
    decoder: {dim: 16, depth: 1}
    schedule: {init_args: {warmup_steps: 1}}
trainer:
  max_steps: 2
  accelerator: cpu
  devices: 1
  precision: 32-true
  enable_progress_bar: false
  logger: false
"""
TINY = """
data:
  class_path: TextFiles
  init_args: {path: corpus.txt, seq_len: 16, stride: null, batch_size: 2, eval_batch_size: 2}
model:
  init_args:
    decoder: {dim: 48, depth: 2}
    schedule: {init_args: {warmup_steps: 1}}
trainer:
  max_steps: 2
  accelerator: cpu
  devices: 1
  limit_val_batches: 1
  enable_progress_bar: false
  logger: false
sample_text: {generation: {max_new_tokens: 4}}
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Return options that make any config tiny, for use after the config files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return ["-c", "tiny.yaml"]


def merge(*configs: dict) -> dict:
    """Return the configs laid over each other, as `-c` does."""
    result = {}
    for config in configs:
        for key, value in config.items():
            before = result.get(key)
            both = isinstance(value, dict) and isinstance(before, dict)
            # Options of another class are removed.
            both = both and value.get("class_path", before.get("class_path")) == before.get("class_path")
            result[key] = merge(before, value) if both else value
    return result


@pytest.mark.parametrize(
    "name", ["deep_embed", "feed_forward_cycle", "layerwise_feed_forward", "mixture_of_experts", "nested_mlp"]
)
def test_an_overlay_that_holds_feedforwards_keeps_the_activation(name, capsys):
    """Else an ablation would compare activations too."""
    main(["fit", "-c", str(ABLATION), "-c", str(CONFIGS / f"variants/{name}.yaml"), "--print_config"])
    config = capsys.readouterr().out
    assert "ReLUSquared" in config and "GELU" not in config


@pytest.mark.parametrize("overlay", VARIANTS, ids=lambda file: file.stem)
def test_a_variant_builds_and_takes_a_step(overlay):
    """A variant's overlay builds and takes a step, in a tenth of a command's time; the slow suite runs the commands."""
    config = merge(*(yaml.safe_load(text) for text in (QUICKSTART.read_text(), TINY, overlay.read_text())))
    module = LanguageModel.from_config(config["model"]["init_args"])
    tokens = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    before = module.score(module.decoder, tokens, None)
    before.minimised.backward()
    optimizer.step()
    assert 0 < before.mean.item() < 20
    assert module.loss(tokens) < before.minimised


# One variant and everything that sets the trainer in the default suite, all variants in the slow one.
WHOLE = [
    pytest.param(
        overlay,
        id=f"{overlay.parent.name}/{overlay.stem}",
        marks=pytest.mark.slow if overlay.parent.name == "variants" and overlay.stem != "forgetting" else (),
    )
    for overlay in OVERLAYS
    if overlay.stem != "compile"
]


@pytest.mark.parametrize("overlay", WHOLE)
def test_an_overlay_trains_two_steps(overlay, tiny, capsys):
    # A variant may need its own depth; what sets the trainer must not take more than two steps.
    over = ["-c", str(overlay)]
    options = [*tiny, *over] if overlay.parent.name == "variants" else [*over, *tiny]
    assert main(["fit", "-c", str(QUICKSTART), *options]) == 0
    *before, loss, perplexity, bits = capsys.readouterr().out.splitlines()
    # It leaves no run.
    assert before[-1:] == ([] if overlay.stem == "debug" else ["run=runs/quickstart/0"])
    assert loss.startswith("val/loss=")
    assert perplexity.startswith("val/perplexity=")
    assert bits.startswith("val/bits_per_byte=")


@pytest.mark.parametrize("documents", [pytest.param("joined", marks=pytest.mark.slow), "separator"])
def test_nothing_is_compiled_twice(tiny, documents):
    # In a separate process: the shape checks of this one do not compile. The backend makes it cheap.
    # Steps, validation with a batch that is shorter than the others, sampling, and steps again.
    overlay = CONFIGS / "trainer" / "compile.yaml"
    options = ["fit", "-c", str(QUICKSTART), "-c", str(overlay), *tiny, "--model.compile.backend=eager"]
    options += ["--trainer.max_steps=4", "--validate_every=2", "--trainer.limit_val_batches=null"]
    options += ["--data.eval_batch_size=3", f"--data.documents={documents}", "--trainer.accumulate_grad_batches=2"]
    # Another dropout in each step.
    options += ["--model.decoder.dropout=0.2", "--trainer.callbacks+=DropoutSchedule"]
    code = "import torch._dynamo, sys; torch._dynamo.config.error_on_recompile = True; "
    # Evaluations are compiled as if they were long, the batch that is shorter than the others not.
    code += "from lightning_xt.training import evaluation_forward; evaluation_forward.LONG['cpu'] = 1; "
    code += "from lightning_xt.cli import main; failed = main(sys.argv[1:]); torch._dynamo.reset(); "
    code += "sys.exit(failed or main(['validate', 'runs/quickstart', '--ckpt_path=last']))"
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiling the network for evaluation") == 2
    found = [line for line in done.stdout.splitlines() if line.startswith("val/")]
    # The last checkpoint is that of the last validation.
    assert found[: len(found) // 2] == found[len(found) // 2 :]
    assert "val/bits_per_byte=" in found[-1]


@pytest.mark.parametrize("missing", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_compiler_that_does_not_work_is_reported_once(tiny, tmp_path, missing):
    options = ["fit", "-c", str(QUICKSTART), *tiny, "--model.compile=true"]
    there = {"PATH": str(tmp_path), "CC": "", "CXX": ""} if missing else {"CXX": "/bin/false"}
    environment = {**os.environ, **there, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    command = [sys.executable, "-m", "lightning_xt", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "model.compile" in line]
    if missing:
        assert "a C++ compiler (g++ or clang++, or the variable CXX) is not installed: training without it" in told
    else:
        assert "it does not work here (" in told and "install g++ and Python's headers" in told
    assert "val/bits_per_byte=" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("config", BASES, ids=lambda file: file.stem)
def test_a_config_trains_two_steps(config, tiny, tmp_path):
    if "MaskedLanguageModel" in config.read_text():
        (tmp_path / "tiny.yaml").write_text(TINY.replace("decoder:", "encoder:"))
    # The shape checks of this process do not compile.
    assert main(["fit", "-c", str(config), *tiny, "--model.compile=false"]) == 0


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_an_overlay_holds_one_idea(overlay):
    lines = overlay.read_text().splitlines()
    assert len(lines) <= 10
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("config", TRANSLATION, ids=lambda file: file.stem)
def test_a_translation_recipe_trains_two_steps(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path))
    (tmp_path / "multi30k").mkdir()
    for name in ("train", "val"):
        for language, lines in (("en", "a dog runs\na cat\n"), ("de", "ein Hund rennt\neine Katze\n")):
            (tmp_path / "multi30k" / f"{name}.{language}").write_text(lines * 9)
    (tmp_path / "tiny.yaml").write_text(TINY_PAIRS)
    of_data = "--data.validation_size=4" if config.stem.startswith("copy") else "--data.tokenizer.vocab_size=280"
    assert main(["fit", "-c", str(config), "-c", "tiny.yaml", of_data]) == 0
    values = dict(line.split("=") for line in capsys.readouterr().out.splitlines() if line.startswith(("val/", "run=")))
    assert values.pop("run") == f"runs/{config.stem}/0"
    of_text = set() if config.stem.startswith("copy") else {"val/bleu", "val/chrf"}
    assert set(values) == {"val/loss", "val/perplexity", "val/token_accuracy", "val/exact_match"} | of_text


@pytest.mark.parametrize(
    "config",
    [pytest.param(file, id=file.stem, marks=() if file.stem == "mixture" else pytest.mark.slow) for file in DENOISING],
)
def test_a_denoising_recipe_trains_two_steps(config, tiny, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY_PAIRS)
    corpus = ["--data.corpus", "TextFiles", "--data.corpus.path", "corpus.txt", "--data.corpus.seq_len", "32"]
    options = [*corpus, "--model.val_decode_pairs", "2", "--trainer.limit_val_batches", "1"]
    assert main(["fit", "-c", str(config), *tiny, *options]) == 0
    values = dict(line.split("=") for line in capsys.readouterr().out.splitlines() if line.startswith(("val/", "run=")))
    assert values.pop("run") == f"runs/{config.stem}/0"
    assert set(values) == {"val/loss", "val/perplexity", "val/token_accuracy", "val/exact_match"}
    # The tokenizer travels with the checkpoint, and reads sentinels.
    assert main(["generate", f"runs/{config.stem}", "--prompt", "the <extra_id_0> fox", "--max_new_tokens", "3"]) == 0


@pytest.mark.parametrize("config", PROBES, ids=lambda file: file.stem)
def test_a_probe_trains_two_steps(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sizes = ["--data.validation_size=4", "--data.test_size=3", "--data.batch_size=2"]
    fit = ["--model.decoder.dim=16", "--trainer.max_steps=2", "--validate_every=2", "--sample_text.prompts=[]"]
    assert main(["fit", "-c", str(config), *sizes, *fit, "--trainer.enable_progress_bar=false"]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = dict(line.split("=") for line in lines if line.startswith(("val/", "run=")))
    assert values.pop("run") == f"runs/{config.stem}/0"
    names = ("loss", "perplexity", "bits_per_byte", "token_accuracy", "exact_match")
    assert set(values) == {f"val/{name}" for name in names}
    assert main(["test", f"runs/{config.stem}", "--trainer.enable_progress_bar=false"]) == 0
    assert "test/exact_match=" in capsys.readouterr().out
    size = sum(each.numel() for each in LanguageModel.from_config(str(config)).parameters())
    assert 50_000 < size < 200_000


@pytest.mark.parametrize(
    "overlay",
    [
        pytest.param(file, id=file.stem, marks=() if file.stem in ("forgetting", "swiglu") else pytest.mark.slow)
        for file in VARIANTS
    ],
)
def test_a_variant_takes_a_step_on_a_probe(overlay):
    config = merge(*(yaml.safe_load(file.read_text()) for file in (CONFIGS / "probes" / "mqar.yaml", overlay)))
    data = MQAR(**config["data"]["init_args"] | {"batch_size": 2})
    module = LanguageModel.from_config({"vocab": data.vocab, **config["model"]["init_args"]})
    loss = module.score(module.network, *module.read_packed(next(iter(data.train_dataloader()))))
    loss.minimised.backward()
    assert loss.count > 0 and 0 < loss.mean.item() < 20


def test_cases_n3_a_shipped_config_is_named_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = []
    for name in ("language/quickstart.yaml", "configs/language/quickstart.yaml", str(QUICKSTART)):
        assert main(["fit", f"--config={name}", "-c", "variants/alibi.yaml", "--print_config"]) == 0
        shown.append(yaml.safe_load(capsys.readouterr().out))
    assert shown[0] == shown[1] == shown[2]
    assert shown[0]["model"]["init_args"]["decoder"]["init_args"]["attention"]["init_args"]["position"][
        "class_path"
    ].endswith("ALiBi")
    assert shown[0]["trainer"]["max_steps"] == yaml.safe_load(QUICKSTART.read_text())["trainer"]["max_steps"]
    small = LanguageModel.from_config("language/quickstart.yaml")
    assert sum(each.numel() for each in small.parameters()) == pytest.approx(0.9e6, rel=0.1)
    # A local file comes first.
    (tmp_path / "language").mkdir()
    (tmp_path / "language" / "quickstart.yaml").write_text("trainer: {max_steps: 77}\n")
    assert main(["fit", "-c", "language/quickstart.yaml", "--data", "StandardLibrary", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_steps"] == 77


def test_cases_n3_a_bare_fit_says_how_to_start(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit"]) == 2
    out, error = capsys.readouterr()
    assert error == "lightning-xt: error: fit needs a config, such as -c language/quickstart.yaml\n"
    assert "\n  lightning-xt fit -c language/quickstart.yaml\n" in out
    assert max(map(len, out.splitlines())) <= 80
    for file in (*BASES, *TRANSLATION, *DENOISING, *PROBES):
        first = file.read_text().splitlines()[0].removeprefix("# ")
        assert first.endswith(".")
        assert f"  {file.parent.name}/{file.name}\n      {first[:40]}" in out
    assert all(overlay.name in out for overlay in OVERLAYS)
