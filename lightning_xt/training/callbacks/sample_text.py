import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_xt.generation.filters.base import FilterFactory
from lightning_xt.generation.methods.base import MethodFactory
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.files import replace_file
from lightning_xt.training.callbacks.preemption import owes_validation
from lightning_xt.training.callbacks.run_folder import find_run_folder
from lightning_xt.training.module import TransformerModule


class SampleText(Callback):
    """Lets the model answer fixed prompts in each validation, for TensorBoard's text tab and `samples.txt`.

    A language model continues them, an encoder-decoder translates them.

    The random numbers are its own and the same each time, so it changes nothing of the training, and texts differ
    only because the model does.

    Args:
        prompts: texts, none of them empty; [] samples nothing. None = what suits the model: three beginnings to go on
            with, or the first pairs of the validation split.
        max_new_tokens: tokens to produce. None = 128, and fewer where the model's positions reach no further; of an
            encoder-decoder at most twice those of the source and 32 more.
        temperature: divides the logits before anything else; below 1 is more certain, 0 always takes the likeliest.
            None = 0.8, of an encoder-decoder 0.
        filters: what changes the logits next, in order: penalties, banned words and others.
        top_k: only the so many likeliest tokens may be drawn. None = any.
        top_p: only the likeliest tokens that together have this share of the probability may be drawn. None = any.
        min_p: only tokens at least this share as likely as the likeliest may be drawn. None = any.
        method: how sequences are made from the scores of the next token. None = one token is drawn after the other.
        stop: texts before which an answer ends, wherever the borders of its tokens are.
        num_return_sequences: answers to each prompt; the first is shown.
        window: tokens that each layer may look back, for texts longer than those the model was trained on. None = as
            the model has it.
        batch: most rows decoded at once; no text depends on it.
        log_probs: of no effect on what is shown.
        seed: where the random numbers start.
    """

    def __init__(
        self,
        prompts: Sequence[str] | None = None,
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        filters: Sequence[FilterFactory] = (),
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        method: MethodFactory | None = None,
        stop: Sequence[str] = (),
        num_return_sequences: int = 1,
        window: int | None = None,
        batch: int = 64,
        log_probs: bool = False,
        seed: int = 0,
    ) -> None:
        if any(not prompt for prompt in prompts or ()):
            raise ValueError("sample_text.prompts: a prompt is empty; give at least one character, or no prompts: []")
        self.prompts = prompts
        self.sampling = GenerationOptions(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            filters=filters,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            method=method,
            stop=stop,
            num_return_sequences=num_return_sequences,
            window=window,
            batch=batch,
            log_probs=log_probs,
            seed=seed,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the texts as short as the model's positions are.

        Raises:
            ValueError: a prompt alone is too long for them.
        """
        if stage == "fit" and self._is_enabled:
            self.sampling = _module(pl_module).limit_length(self.prompts, self.sampling)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = find_run_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            # What a validation that is owed samples is of the step that was saved.
            _drop_later_samples(folder / "samples.txt", trainer.global_step - owes_validation(trainer))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._is_enabled:
            return
        # In all processes: a forward of a sharded model is the work of all.
        module = _module(pl_module)
        module.phase, before = "sampling", module.phase
        texts = module.draw_samples(self.prompts, self.sampling)
        module.phase = before
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for number, text in enumerate(texts):
                    logger.experiment.add_text(f"Sample/{number}", _to_code_block(text), trainer.global_step)
        folder = find_run_folder(trainer)
        if folder is not None:
            _append_samples(folder / "samples.txt", trainer.global_step, texts)

    @property
    def _is_enabled(self) -> bool:
        return self.prompts is None or len(self.prompts) > 0


def _module(pl_module: LightningModule) -> TransformerModule:
    # Lightning knows no more of a module than that it is one.
    return cast(TransformerModule, pl_module)


def _drop_later_samples(file: Path, step: int) -> None:
    """Takes away what was sampled after a step that the run goes back to."""
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8")
    starts = [match for match in re.finditer(r"^=== step (\d+) ===$", text, re.MULTILINE) if int(match[1]) > step]
    if starts:
        with replace_file(file) as out:
            out.write(text[: starts[0].start()].encode("utf-8"))


def _append_samples(file: Path, step: int, texts: Sequence[str]) -> None:
    with file.open("a", encoding="utf-8") as out:
        for text in texts:
            out.write(f"=== step {step} ===\n{text}\n\n")


def _to_code_block(text: str) -> str:
    """Text as a Markdown code block, control characters visible; TensorBoard would render anything else."""
    visible = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    # Indented, because a text of programs may hold the fence itself.
    return "\n".join("    " + line for line in visible.split("\n"))
