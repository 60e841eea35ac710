import html
import re
from types import SimpleNamespace

import markdown
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tiny_run import write_inputs

from lightning_xt.cli import main
from lightning_xt.training.loggers import media
from lightning_xt.training.loggers.metrics_file import MetricsFile
from lightning_xt.training.loggers.tensor_board import TensorBoard


@pytest.mark.parametrize("kind", [TensorBoard, lambda folder: TensorBoardLogger(folder, name="", version="")])
def test_media_are_read_back(kind, tmp_path):
    # Loggers that hold only numbers are passed over.
    loggers = [MetricsFile(tmp_path), CSVLogger(tmp_path), kind(tmp_path)]
    figure = Figure(figsize=(2, 1), dpi=50)
    media.log_figure(loggers, "attention/decoder", figure, 3)
    media.log_text(loggers, "samples/0", "a\x00b\n```\n", 4)
    media.log_table(loggers, "val/pairs", ["source", "target"], [["a|b", "*c*\nd"]], 5)
    media.log_histogram(loggers, "gradients/0", torch.arange(4.0), 6)
    loggers[-1].finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    (image,) = events.Images("attention/decoder")
    assert (image.step, image.width, image.height) == (3, 100, 50)
    (text,) = events.Tensors("samples/0/text_summary")
    assert (text.step, text.tensor_proto.string_val) == (4, [b"    a\\x00b\n    ```\n    "])
    (table,) = events.Tensors("val/pairs/text_summary")
    assert table.step == 5 and table.tensor_proto.string_val[0].startswith(b"| source | target |\n| --- | --- |\n")
    (histogram,) = events.Histograms("gradients/0")
    assert histogram.step == 6 and histogram.histogram_value.num == 4


@pytest.mark.parametrize("cell", ["a|b", "<b>x</b>", "*a* _b_ `c` ~~d~~", "# &lt; [x](y) ![z](w)", "\\| \\*", "ä 日"])
def test_cells_of_a_table_are_read_literally(cell):
    table = media.to_markdown_table(["one", "two"], [[cell, "x"]])
    page = markdown.markdown(table, extensions=["markdown.extensions.tables"])
    found = page.partition("<tbody>")[2].partition("<td>")[2].partition("</td>")[0]
    assert "<" not in found and page.count("<td>") == 2
    assert html.unescape(found) == cell


def test_line_breaks_and_spaces_of_a_cell_are_visible():
    table = media.to_markdown_table(["a"], [["x  y\n\tz\x07"]])
    assert table.splitlines()[-1] == "| x&#160; y&#8629;&#8594;z&#92;x07 |"


def test_only_the_first_process_logs(monkeypatch):
    written = []
    monkeypatch.setattr(
        media, "make_writer", lambda logger: SimpleNamespace(write_text=lambda *args: written.append(args))
    )
    for rank in (1, 0):
        monkeypatch.setattr(media.rank_zero_only, "rank", rank)
        media.log_text([None], "a", "b", 3 + rank)
    assert written == [("a", "b", 3)]


def test_a_figure_is_drawn_without_a_display():
    figure = Figure(figsize=(1, 1), dpi=20)
    figure.patch.set_facecolor("#102030")
    image = media.render(figure)
    assert image.shape == (20, 20, 3) and image.dtype == np.uint8 and image[0, 0].tolist() == [16, 32, 48]


def test_options_stand_next_to_the_final_metrics(tmp_path, monkeypatch):
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.max_steps=3", "--sample_text=null", "--trainer.enable_checkpointing=false"]
    assert main(["fit", "-c", "tiny.yaml", *options, "--model.decoder.attention.position=ALiBi"]) == 0
    events = EventAccumulator("runs/tiny/0").Reload()
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    shown = HParamsPluginData.FromString(plugin).session_start_info.hparams
    assert shown["model.decoder.attention.position"].string_value == "ALiBi"
    assert shown["model.decoder.dim"].number_value == 8 and shown["trainer.max_steps"].number_value == 3
    assert "model.decoder.attention.kv_heads" not in shown and "sample_text" not in shown
    plugin = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = HParamsPluginData.FromString(plugin).experiment
    assert {each.name for each in experiment.hparam_infos if each.differs} == {
        *("model.decoder.dim", "model.decoder.depth", "model.decoder.attention.position"),
        *("model.optimizer", "model.optimizer.lr"),
    }
    metrics = {each.name.tag for each in experiment.metric_infos}
    assert metrics == {"val/loss", "val/bits_per_byte", "val/perplexity"} <= set(events.Tags()["scalars"])


def test_vectors_are_not_written_through_links(tmp_path, caplog):
    (tmp_path / "elsewhere").mkdir()
    (run := tmp_path / "run").mkdir()
    (run / "projector").symlink_to(tmp_path / "elsewhere")
    logger = TensorBoard(run)
    with caplog.at_level("INFO"):
        for name in ("b", "a", "b"):
            media.log_embedding([logger], name, torch.ones(2, 3), ["x", "y"], 1)
    assert "it is a link" in caplog.text and not any((tmp_path / "elsewhere").iterdir())
    assert (run / "projector/a.tsv").read_text() == "x\ny\n"
    assert re.findall('tensor_name: "(.)"', (run / "projector_config.pbtxt").read_text()) == ["a", "b"]
