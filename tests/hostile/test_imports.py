"""Modules that configs, options and checkpoints may import."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_xt.cli import main
from lightning_xt.system.imports import NotAllowedError, find, guarded_imports, refusal
from lightning_xt.training.from_config import build_tokenizer
from lightning_xt.training.language_model import LanguageModel

RULE = (
    "is not imported: configs and checkpoints may name what is in lightning_xt, lightning, torch, torchmetrics and in "
)


@pytest.mark.parametrize(
    "path",
    ["os.system", "subprocess.Popen", "builtins.eval", "sys.exit", "posix.system", "http.server.HTTPServer",
     "yaml.YAMLObject", "numpy.load", "tokenizers.Tokenizer", "pytest.main", "importlib.import_module"],
)  # fmt: skip
def test_what_is_installed_is_refused(path: str) -> None:
    assert refusal(path) == (
        f"{path} {RULE}modules of your own, nothing else that is installed; if you trust it, set the environment "
        f"variable LIGHTNING_XT_ALLOW={path.partition('.')[0]}"
    )


@pytest.mark.parametrize(
    "path",
    ["lightning_xt.nn.positions.alibi.ALiBi", "lightning.pytorch.Trainer", "torch.optim.AdamW", "torchmetrics.Metric",
     "there_is_no_such_module.Mine", f"{__name__}.Mine"],
)  # fmt: skip
def test_ours_and_the_users_own_are_allowed(path: str) -> None:
    assert refusal(path) is None


def test_a_script_of_the_users_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The test runner is always installed.
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    assert refusal("__main__.Mine") is None


@pytest.mark.parametrize("form", ["mine_a.py", "mine_a/__init__.py", "mine_a/part.py"])
def test_a_module_of_the_folder_is_the_users_own(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / form).parent.mkdir(exist_ok=True)
    (tmp_path / form).write_text("raise RuntimeError('it is imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal("mine_a.Thing") is None
    assert refusal("mine_a.part.Thing") is None


def test_a_folder_of_the_name_of_a_known_module_allows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "subprocess.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert RULE in (refusal("subprocess.Popen") or "")


def test_others_are_allowed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_XT_ALLOW", "yaml, os")
    assert refusal("os.system") is None and refusal("yaml.YAMLObject") is None
    assert refusal("subprocess.Popen") is not None


def test_what_a_module_only_passes_on_is_refused() -> None:
    with pytest.raises(NotAllowedError, match=r"torch\.os\.system is os\.system, and os\.system is not imported"):
        find("torch.os.system")
    with pytest.raises(NotAllowedError, match=r"torch\.os is a module; name a class in it"):
        find("torch.os")
    assert find("torch.optim.AdamW") is torch.optim.AdamW


TRAP = "from pathlib import Path\nPath(__file__).with_name('sprung').touch()\nclass Trap: pass\n"


def test_nothing_is_imported_to_refuse_it(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "trap_of_a_stranger.py").write_text(TRAP)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("lightning_xt.system.own_modules.site.getusersitepackages", lambda: str(site))
    for slot in ("--model.optimizer", "--model.decoder.attention.position", "--data", "--trainer.callbacks+"):
        assert main(["fit", "-c", "tiny.yaml", slot, "trap_of_a_stranger.Trap"]) == 2
        assert f"lightning-xt: error: trap_of_a_stranger.Trap {RULE}" in capsys.readouterr().err
    assert not (site / "sprung").exists() and "trap_of_a_stranger" not in sys.modules
    # With permission the module is imported, and then refused by its type.
    monkeypatch.setenv("LIGHTNING_XT_ALLOW", "trap_of_a_stranger")
    assert main(["fit", "-c", "tiny.yaml", "--model.optimizer", "trap_of_a_stranger.Trap"]) == 2
    assert "trap_of_a_stranger.Trap is not a subclass of Optimizer" in capsys.readouterr().err
    assert (site / "sprung").exists()


def test_from_config_and_tokenizers_of_checkpoints_keep_the_rule() -> None:
    with pytest.raises(ValueError, match=r"subprocess\.Popen is not imported"):
        LanguageModel.from_config({"decoder": {"dim": 8, "depth": 1, "attention": {"position": "subprocess.Popen"}}})
    with pytest.raises(ValueError, match=r"the checkpoint's tokenizer: subprocess\.Popen is not imported"):
        build_tokenizer({"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "sprung"]}})


def test_the_parser_is_as_before_outside_the_block() -> None:
    from jsonargparse import _typehints

    before = _typehints.import_object
    with guarded_imports():
        assert _typehints.import_object is not before
        with guarded_imports(), pytest.raises(ModuleNotFoundError):
            _typehints.import_object("there_is_no_such_module.Mine")
    assert _typehints.import_object is before
    with pytest.raises(ValueError, match=r"os\.system is not imported"), guarded_imports():
        _typehints.import_object("os.system")
    assert _typehints.import_object is before


def test_a_checkpoint_of_a_stranger_has_nothing_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoint refuses a stranger's class without the command line too."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/trap_of_another.py").write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr("lightning_xt.system.own_modules.site.getusersitepackages", lambda: str(tmp_path / "site"))
    model = LanguageModel.from_config({"decoder": {"dim": 8, "depth": 1, "attention": {"heads": 2}}})
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["optimizer"] = {"class_path": "trap_of_another.Trap", "init_args": {}}
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=re.escape(f"trap_of_another.Trap {RULE}")):
        LanguageModel.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert not (tmp_path / "site/sprung").exists() and "trap_of_another" not in sys.modules


def test_modules_are_those_of_the_folder_one_stands_in_not_of_a_configs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    source = "from pathlib import Path\nfrom lightning_xt.nn.positions.base import Position\n"
    source += "Path(f'{__file__}.imported').touch()\nclass Mine(Position): ...\n"
    (here / "module_of_mine.py").write_text(source)
    (there / "module_of_theirs.py").write_text(source)
    monkeypatch.chdir(here)
    for module, code in (("module_of_mine", 0), ("module_of_theirs", 2)):
        position = f"{{class_path: {module}.Mine}}"
        (there / "config.yaml").write_text(
            "model:\n  class_path: LanguageModel\n  init_args:\n    decoder: {dim: 8, depth: 1, "
            f"attention: {{heads: 2, position: {position}}}}}\n"
        )
        given = ["-c", "../there/config.yaml", "--data", "StandardLibrary", "--print_config"]
        assert main(["fit", *given]) == code
    assert "No module named 'module_of_theirs'" in capsys.readouterr().err
    assert (here / "module_of_mine.py.imported").exists()
    assert not (there / "module_of_theirs.py.imported").exists()
