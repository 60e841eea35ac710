import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import warm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_pairs import sentences, write_pairs
from tiny_run import TIMES, load_weights, read_rows, write_inputs

from lightning_xt.cli import main
from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.training.callbacks import figures, run_results
from lightning_xt.training.callbacks.figures import Figures
from lightning_xt.training.figures.example import choose_pair

ON = ["--figures=Figures", "--figures.attention_tokens=5", "--figures.step_sizes_every=2"]


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    write_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))


def fit(name, *options):
    assert main(["fit", "-c", "tiny.yaml", "--name", name, *options]) == 0
    return f"runs/{name}/0"


def read_metrics(run):
    rows = [{name: value for name, value in row.items() if name not in TIMES and value} for row in read_rows(run)]
    return [{name: value for name, value in row.items() if not name.startswith("updates/")} for row in rows]


def check_same(one, other):
    left, right = load_weights(one), load_weights(other)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    assert read_metrics(one) == read_metrics(other)
    assert Path(one, "samples.txt").read_text() == Path(other, "samples.txt").read_text()


def test_figures_of_a_language_model_change_nothing(inputs):
    plain, drawn = fit("plain"), fit("drawn", *ON)
    check_same(plain, drawn)
    events = EventAccumulator(drawn, size_guidance={"images": 0, "histograms": 0}).Reload()
    tags = events.Tags()
    assert set(tags["images"]) == {"attention/decoder_0", "losses/tokens"}
    assert not EventAccumulator(plain).Reload().Tags()["images"]
    for tag in tags["images"]:
        assert [image.step for image in events.Images(tag)] == [4, 6]
    (image, _) = events.Images("attention/decoder_0")
    # Two heads of five tokens side by side, of 28 pixels each.
    assert 2 * 140 < image.width < 2 * 140 + 120 and 140 < image.height < 140 + 80
    layers = {"decoder.0_attention", "decoder.0_feedforward", "decoder.token_embedding", "decoder.head.to_logits"}
    assert {f"gradients/{layer}" for layer in layers} <= set(tags["histograms"])
    assert [each.step for each in events.Histograms("gradients/decoder.0_attention")] == [2, 4, 6]
    assert {f"update_values/{layer}" for layer in layers} <= set(tags["histograms"])
    updates = events.Histograms("update_values/decoder.0_attention")
    gradients = events.Histograms("gradients/decoder.0_attention")[0]
    assert [each.step for each in updates] == [2, 4, 6]
    for each in updates:
        # One value a weight, and none larger than the learning rate lets it be.
        values = each.histogram_value
        assert values.num == gradients.histogram_value.num and -0.01 < values.min < 0 < values.max < 0.01
    (ratios,) = {tuple(each.step for each in events.Scalars(f"updates/{layer}")) for layer in layers}
    assert ratios == (2, 4, 6) and all(0 < each.value < 1 for each in events.Scalars("updates/decoder.0_attention"))
    assert "epoch" not in tags["scalars"]


def test_vectors_of_tokens_have_labels(inputs):
    run = Path(fit("drawn", "--figures=Figures", "--figures.show=[embeddings]"))
    events = EventAccumulator(str(run)).Reload()
    assert not events.Tags()["images"]
    config = (run / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "projector/text_tokens.bytes"' in config and "tensor_shape: 256\n  tensor_shape: 8\n" in config
    labels = (run / "projector/text_tokens.tsv").read_text(encoding="utf-8").split("\n")
    assert len(labels) == 257 and (labels[32], labels[97], labels[10]) == ("␣", "a", "↵")
    vectors = torch.frombuffer(bytearray((run / "projector/text_tokens.bytes").read_bytes()), dtype=torch.float32)
    assert torch.equal(vectors.view(256, 8), load_weights(run)["decoder.token_embedding.weight"])


def test_a_fault_of_a_display_costs_no_checkpoint(inputs, monkeypatch, caplog):
    def fail(*args):
        Path("runs/drawn/0/config.yaml").unlink(missing_ok=True)
        raise OSError(28, "No space left on device")

    for name in ("log_attention", "log_embeddings", "StepSizes"):
        monkeypatch.setattr(figures, name, fail)
    monkeypatch.setattr(run_results, "log_results", fail)
    plain = fit("plain")
    with caplog.at_level("INFO"):
        drawn = fit("drawn", *ON)
    check_same(plain, drawn)
    reports = [message for message in caplog.messages if message.endswith("; training continues")]
    fault = "OSError: [Errno 28] No space left on device; training continues"
    assert reports == [f"results of the run: {fault}", f"figures: {fault}", f"results of the run: {fault}"]


def test_results_are_logged_without_the_config(inputs, monkeypatch):
    def remove(*args):
        Path("runs/drawn/0/config.yaml").unlink(missing_ok=True)

    found = {}
    monkeypatch.setattr(figures, "log_attention", remove)
    monkeypatch.setattr(run_results, "log_results", lambda loggers, options, metrics: found.update(options))
    fit("drawn", "--figures=Figures")
    assert not Path("runs/drawn/0/config.yaml").exists() and found["trainer.max_steps"] == 6


@pytest.mark.slow
def test_figures_of_a_translation(inputs):
    options = ["--figures=Figures", "--figures.every=2", "--trainer.max_steps=6", "--validate_every=2"]
    assert main(["fit", "-c", "pairs.yaml", *options]) == 0
    events = EventAccumulator("runs/pairs/0", size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    parts = {f"attention/{part}_0" for part in ("decoder", "cross", "encoder")}
    assert parts | {"alignment/layer_0", "losses/tokens"} == set(tags["images"])
    # The second validation, and the last.
    assert [image.step for image in events.Images("alignment/layer_0")] == [4, 6]
    table = events.Tensors("pairs/text_summary")[-1].tensor_proto.string_val[0].decode("utf-8").splitlines()
    assert table[0] == "| source | target | prediction |" and len(table) == 2 + 8
    labels = Path("runs/pairs/0/projector/source_tokens.tsv").read_text(encoding="utf-8").split("\n")
    assert labels[:3] == ["⟨pad⟩", "⟨start⟩", "⟨end⟩"]
    assert Path("runs/pairs/0/projector_config.pbtxt").read_text().count("embeddings {") == 2


@pytest.mark.slow
def test_figures_of_a_masked_language_model(inputs):
    options = ["--model=MaskedLanguageModel", "--model.encoder.dim=8", "--model.encoder.depth=1"]
    options += ["--model.encoder.attention.heads=2", "--data=TextFiles", "--data.path=corpus.txt", "--data.seq_len=8"]
    options += ["--trainer.max_steps=1", "--trainer.accelerator=cpu", "--sample_text=null", "--figures=Figures"]
    assert main(["fit", *options, "--name=masked"]) == 0
    events = EventAccumulator("runs/masked/0").Reload()
    assert events.Tags()["images"] == ["attention/encoder_0"]
    assert Path("runs/masked/0/projector/text_tokens.tsv").read_text(encoding="utf-8").endswith("\nid 256\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.callbacks+=ExponentialAverage", "--trainer.callbacks.decay=0.5"],
        ["--trainer.accumulate_grad_batches=2"],
        ["--data.documents=separator"],
    ],
    ids=["average", "accumulation", "documents"],
)
def test_figures_change_nothing_in_other_runs(options, inputs):
    check_same(fit("plain", *options), fit("drawn", *ON, *options))


@pytest.mark.slow
def test_the_first_of_two_processes_draws(inputs):
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_steps=3", "--validate_every=2"]
    for name, options in (("plain", []), ("drawn", ["--figures=Figures"])):
        done = warm.run(["fit", "-c", "pairs.yaml", "--name", name, *two, *options])
        assert done.returncode == 0, done.stderr
    check_same("runs/plain/0", "runs/drawn/0")
    events = EventAccumulator("runs/drawn/0", size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("alignment/layer_0")] == [2, 3]
    # The pairs of both processes, in order.
    table = events.Tensors("pairs/text_summary")[-1].tensor_proto.string_val[0].decode("utf-8").splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {source}" for source, _ in sentences(60)[45:53]]


@pytest.mark.slow
def test_figures_change_nothing_in_a_compiled_run(inputs):
    for name, options in (("plain", []), ("drawn", ON)):
        # Another process, because shapes that are checked cannot be compiled.
        command = [sys.executable, "-m", "lightning_xt", "fit", "-c", "tiny.yaml", "--name", name, *options]
        subprocess.run([*command, "--model.compile={backend: aot_eager}"], check=True, capture_output=True)
    check_same("runs/plain/0", "runs/drawn/0")


@pytest.mark.slow
def test_a_resumed_run_draws_what_the_uninterrupted_one_does(inputs):
    fit("stopped", *ON, "--trainer.max_steps=4", "--model.schedule=null")
    fit("resumed", *ON, "--model.schedule=null")
    assert main(["fit", "runs/stopped", "--resume", "--trainer.max_steps=6"]) == 0
    check_same("runs/resumed/0", "runs/stopped/0")
    found = [read_images(f"runs/{name}/0") for name in ("resumed", "stopped")]
    assert found[0] == found[1] and [step for step, _ in found[0]] == [4, 6]


def read_images(run):
    events = EventAccumulator(run, size_guidance={"images": 0}).Reload()
    return [(each.step, each.encoded_image_string) for each in events.Images("attention/decoder_0")]


def test_a_long_pair_is_chosen():
    src = torch.tensor([[3, 4, 0], [5, 6, 7], [8, 0, 0]])
    tgt = torch.tensor([[1, 3, 2, 0, 0], [1, 3, 4, 5, 2], [1, 3, 4, 2, 0]])
    pairs = EvaluationPairs(src, tgt, src != 0, torch.arange(3), None)
    real = tgt[:, 1:] != 0
    for most, row, length in ((4, 1, 4), (3, 2, 3), (2, 0, 2)):
        source, target = choose_pair(pairs, real, most)
        assert source.tolist() == [src[row][src[row] != 0][:most].tolist()]
        assert target.tolist() == [tgt[row, : length + 1].tolist()]
    # All are longer, and the first is cut.
    assert choose_pair(pairs, real, 1)[1].tolist() == [[1, 3]]
    assert choose_pair(pairs, None, 4)[1].shape == (1, 5)


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"figures\.show: unknown figure 'atention'; did you mean attention"):
        Figures(["atention"])
    with pytest.raises(ValueError, match="every"):
        Figures(every=0)
    with pytest.raises(ValueError, match="step_sizes_every"):
        Figures(step_sizes_every=0)


@pytest.mark.parametrize(
    ("mesh", "needed", "reason"),
    [
        (object(), {}, "the weights are sharded over processes"),
        (None, {"types": "TypeEmbedding"}, "TypeEmbedding needs"),
    ],
)
def test_obstacles_are_reported_once(mesh, needed, reason, caplog):
    module = SimpleNamespace(device_mesh=mesh, needed_inputs=needed)
    trainer = SimpleNamespace(is_global_zero=True, loggers=[None], global_step=1)
    figures = Figures(step_sizes_every=1)
    with caplog.at_level("INFO"):
        figures.on_fit_start(trainer, module)
    assert f"figures draws nothing, because {reason}" in caplog.text
    figures.on_before_optimizer_step(trainer, module, None)
    figures.on_train_batch_end(trainer)
    figures.on_train_end(trainer, module)
