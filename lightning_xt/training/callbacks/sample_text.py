import re
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.files import read_log, replace_file
from lightning_xt.training.callbacks.preemption import owes_validation
from lightning_xt.training.callbacks.run_folder import find_run_folder
from lightning_xt.training.loggers.media import log_text
from lightning_xt.training.text_module import TextModule

MOST_DIGITS = 18
"""Digits of a step that are read."""


class SampleText(Callback):
    """Generate texts for fixed prompts in each validation, for `samples.txt` and the loggers (TensorBoard: text tab).

    A language model continues the prompts, an encoder-decoder translates them. The random numbers are the same each
    time and not those of training, so texts differ only because the model does, and training does not change.

    Args:
        prompts: texts, none of them empty; [] generates nothing. None = the model's default: three prompts to continue,
            or the first pairs of the validation split.
        generation: options of the generation. A language model generates 128 tokens by default, fewer if it has no
            more positions, at a temperature of 0.8; an encoder-decoder has the defaults of `generate`.
    """

    def __init__(
        self, prompts: Sequence[str] | None = None, *, generation: GenerationOptions = GenerationOptions()
    ) -> None:
        if any(not prompt for prompt in prompts or ()):
            raise ValueError("sample_text.prompts: a prompt is empty; give at least one character, or no prompts: []")
        self.prompts, self.generation = prompts, generation

    def setup(self, trainer: Trainer, pl_module: TextModule, stage: str) -> None:  # type: ignore[override]
        """Limit the texts to the positions of the model; ValueError if a prompt has more tokens than that."""
        for name, part in pl_module.needed_inputs.items() if stage == "fit" and self._is_enabled else ():
            rank_zero_info(f"sample_text generates nothing, because {part} needs the input {name}, which prompts lack")
            self.prompts = ()
        if stage == "fit" and self._is_enabled:
            self.generation = pl_module.limit_length(self.prompts, self.generation)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = find_run_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            # An owed validation samples again for the step that was saved.
            _drop_later_samples(folder / "samples.txt", trainer.global_step - owes_validation(trainer))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: TextModule) -> None:  # type: ignore[override]
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._is_enabled:
            return
        # In all processes, because a sharded model runs on all together.
        pl_module.phase, before = "sampling", pl_module.phase
        texts = pl_module.draw_samples(self.prompts, self.generation)
        pl_module.phase = before
        if not trainer.is_global_zero:
            return
        for number, text in enumerate(texts):
            log_text(trainer.loggers, f"samples/{number}", text, trainer.global_step)
        folder = find_run_folder(trainer)
        if folder is not None:
            _append_samples(folder / "samples.txt", trainer.global_step, texts)

    @property
    def _is_enabled(self) -> bool:
        return self.prompts is None or len(self.prompts) > 0


def _drop_later_samples(file: Path, step: int) -> None:
    """Remove the samples after the step that the run resumes from, and repair those before it."""
    content, sentence = read_log(file)
    headers = re.finditer(rb"^=== step (\d+) ===$", content, re.MULTILINE)
    end = next((match.start() for match in headers if int(match[1][:MOST_DIGITS]) > step), len(content))
    text = content[:end].decode("utf-8", errors="replace")
    # A full disk or a crash cuts the last sample anywhere.
    repaired = text if not text or text.endswith("\n\n") else f"{text}\n\n"
    if repaired.encode("utf-8") != content[:end]:
        sentence = f"{file} was damaged: bytes that are not UTF-8 are replaced, and a cut sample is ended"
    if sentence is not None:
        rank_zero_info(sentence)
    if repaired.encode("utf-8") != content:
        with replace_file(file) as out:
            out.write(repaired.encode("utf-8"))


def _append_samples(file: Path, step: int, texts: Sequence[str]) -> None:
    with file.open("a", encoding="utf-8") as out:
        for text in texts:
            out.write(f"=== step {step} ===\n{text}\n\n")
