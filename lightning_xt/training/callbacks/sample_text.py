import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_xt.core.files import replacing
from lightning_xt.training.callbacks.run_folder import run_folder
from lightning_xt.training.module import Module
from lightning_xt.training.sampling import Sampling


class SampleText(Callback):
    """Lets the model answer fixed prompts in each validation, for TensorBoard's text tab and `samples.txt`.

    A language model continues them, an encoder-decoder translates them.

    The random numbers are its own and the same each time, so it changes nothing of the training, and texts differ
    only because the model does.

    Args:
        prompts: texts, none of them empty; [] samples nothing. None = what suits the model: three beginnings to go on
            with, or the first pairs of the validation split.
        sampling: options of `Sampling`; here a length of None = 128, and fewer where the model's positions reach no
            further; a temperature of None = 0.8; of an encoder-decoder both are as they are elsewhere.
    """

    def __init__(self, prompts: Sequence[str] | None = None, **sampling: Any) -> None:
        if any(not prompt for prompt in prompts or ()):
            raise ValueError("sample_text.prompts: a prompt is empty; give at least one character, or no prompts: []")
        self.prompts = prompts
        self.sampling = Sampling(**sampling)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the texts as short as the model's positions are.

        Raises:
            ValueError: a prompt alone is too long for them.
        """
        if stage == "fit" and self._asked:
            self.sampling = _module(pl_module).fitted(self.prompts, self.sampling)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            _forget(folder / "samples.txt", trainer.global_step)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._asked:
            return
        # In all processes: a forward of a sharded model is the work of all.
        texts = _module(pl_module).samples(self.prompts, self.sampling)
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for number, text in enumerate(texts):
                    logger.experiment.add_text(f"Sample/{number}", _fenced(text), trainer.global_step)
        folder = run_folder(trainer)
        if folder is not None:
            _append(folder / "samples.txt", trainer.global_step, texts)

    @property
    def _asked(self) -> bool:
        return self.prompts is None or len(self.prompts) > 0


def _module(pl_module: LightningModule) -> Module:
    # Lightning knows no more of a module than that it is one.
    return cast(Module, pl_module)


def _forget(file: Path, step: int) -> None:
    """Takes away what was sampled after a step that the run goes back to."""
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    starts = [match for match in re.finditer(r"^=== step (\d+) ===$", text, re.MULTILINE) if int(match[1]) > step]
    if starts:
        with replacing(file) as out:
            out.write(text[: starts[0].start()].encode("utf-8"))


def _append(file: Path, step: int, texts: Sequence[str]) -> None:
    with file.open("a", encoding="utf-8") as out:
        for text in texts:
            out.write(f"=== step {step} ===\n{text}\n\n")


def _fenced(text: str) -> str:
    """Text as a Markdown code block, control characters visible; TensorBoard would render anything else."""
    visible = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    # Indented, because a text of programs may hold the fence itself.
    return "\n".join("    " + line for line in visible.split("\n"))
