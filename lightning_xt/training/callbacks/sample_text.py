import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_xt.core.files import replacing
from lightning_xt.data.prompts import Prompt
from lightning_xt.training.callbacks.run_folder import run_folder
from lightning_xt.training.predictions import continue_prompts
from lightning_xt.training.sampling import Sampling


class SampleText(Callback):
    """Lets the model continue fixed prompts in each validation, for TensorBoard's text tab and `samples.txt`.

    The random numbers are its own and the same each time, so it changes nothing of the training, and texts differ
    only because the model does.

    Args:
        prompts: texts to continue, none of them empty; [] samples nothing.
        length: tokens to produce after each prompt; fewer where the model's positions reach no further.
        temperature: divides the logits before anything else; below 1 is more certain, 0 always takes the likeliest.
        top_k: only the so many likeliest tokens may be drawn. None = any.
        top_p: only the likeliest tokens that together have this share of the probability may be drawn. None = any.
        min_p: only tokens at least this share as likely as the likeliest may be drawn. None = any.
        seed: where the random numbers start.
    """

    def __init__(
        self,
        prompts: Sequence[str] = ("import ", "def ", "The "),
        length: int = 128,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int = 0,
    ) -> None:
        if any(not prompt for prompt in prompts):
            raise ValueError("sample_text.prompts: a prompt is empty; give at least one character, or no prompts: []")
        self.prompts = [Prompt(id=number, prompt=prompt) for number, prompt in enumerate(prompts)]
        self.sampling = Sampling(
            length=length, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Makes the texts as short as the model's positions are.

        Raises:
            ValueError: a prompt alone is too long for them.
        """
        limit: int | None = pl_module.decoder.max_length if stage == "fit" and self.prompts else None  # type: ignore[union-attr, assignment]
        if limit is None:
            return
        longest = max(len(pl_module.tokenizer.encode_prompt(prompt["prompt"])) for prompt in self.prompts)  # type: ignore[operator, union-attr]
        if longest >= limit:
            raise ValueError(
                f"sample_text.prompts: a prompt of {longest} tokens leaves no room for sample_text.length, because the "
                f"model's positions reach only {limit} (max_length); shorten it, or sample nothing: "
                "--sample_text.prompts []"
            )
        self.sampling = replace(self.sampling, length=min(self.sampling.length, limit - longest))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            _forget(folder / "samples.txt", trainer.global_step)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self.prompts:
            return
        # In all processes: a forward of a sharded model is the work of all.
        results = continue_prompts(pl_module.decoder, pl_module.tokenizer, self.prompts, self.sampling)  # type: ignore[arg-type]
        if not trainer.is_global_zero:
            return
        texts = [result["prompt"] + result["text"] for result in results]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for number, text in enumerate(texts):
                    logger.experiment.add_text(f"Sample/{number}", _fenced(text), trainer.global_step)
        folder = run_folder(trainer)
        if folder is not None:
            _append(folder / "samples.txt", trainer.global_step, texts)


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
