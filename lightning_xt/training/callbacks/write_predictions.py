import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lightning_xt.data.files.json_lines import ENDINGS
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.files import expand_home, open_new, replace_file
from lightning_xt.system.json_text import to_json
from lightning_xt.system.messages import make_visible
from lightning_xt.training.text_module import TextModule


class WritePredictions(BasePredictionWriter):
    """Write the results of `predict` in the order of their inputs, from any number of processes.

    A translation is a line of text, unless the file's name ends in .jsonl; other results are JSON objects, one a line.

    Args:
        output: the file.
        sampling: options of the generation.
    """

    def __init__(self, output: Path, sampling: GenerationOptions) -> None:
        super().__init__(write_interval="batch")
        self.output, self.sampling = output, sampling

    def setup(self, trainer: Trainer, pl_module: TextModule, stage: str) -> None:  # type: ignore[override]
        if stage != "predict":
            return
        if not self.output.absolute().parent.is_dir():
            raise FileNotFoundError(f"--output {self.output}: there is no folder {self.output.parent}; make it first")
        # A link stays a link.
        with self._explain_errors():
            target = self.output.resolve()
            regular = not target.exists() or target.is_file()
        if not regular:
            raise ValueError(f"--output {self.output} is not a regular file; name one, new or to be replaced")
        if self._writes_lines(pl_module) and (self.sampling.num_sequences > 1 or self.sampling.log_probs):
            lost = "log_probs" if self.sampling.log_probs else f"{self.sampling.num_sequences} sequences of each source"
            raise ValueError(
                f"--output {self.output} holds one line of text for each source, but {lost} are requested; name a file "
                "that ends in .jsonl, or omit them"
            )
        data = getattr(trainer, "datamodule", None)
        for option in ("predict_source", "predict_prompts"):
            read = getattr(data, option, None)
            if read is not None and expand_home(read, f"--data.{option} {read}").resolve() == target:
                raise ValueError(f"--output {self.output} is --data.{option} too; name another file")
        pl_module.sampling = self.sampling

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with self._explain_errors():
            open_new(self._part_file(trainer.global_rank)).close()

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, *args: Any, **kwargs: Any
    ) -> None:
        with self._explain_errors(), self._part_file(trainer.global_rank).open("a", encoding="utf-8") as file:
            file.writelines(to_json(result) + "\n" for result in prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: TextModule) -> None:  # type: ignore[override]
        trainer.strategy.barrier("predictions")
        if not trainer.is_global_zero:
            return
        parts = [self._part_file(rank) for rank in range(trainer.world_size)]
        lines = [line for part in parts for line in part.read_text(encoding="utf-8").split("\n") if line]
        results = sorted((json.loads(line) for line in lines), key=lambda result: result["id"])
        plain = self._writes_lines(pl_module)
        with self._explain_errors(), replace_file(self.output.resolve()) as file:
            file.writelines((_format_line(result, plain) + "\n").encode("utf-8", "replace") for result in results)
        for result in results:
            if result.get("problem"):
                print(make_visible(result["problem"]), file=sys.stderr)
        for part in parts:
            part.unlink()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        with suppress(OSError):
            self._part_file(trainer.global_rank).unlink(missing_ok=True)

    def _writes_lines(self, module: TextModule) -> bool:
        """Return True if a result is a line of text, and not an object."""
        return module.plain_lines and self.output.suffix.lower() not in ENDINGS

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Raise errors of the system in terms of the option."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"--output {self.output} cannot be written ({error.strerror or error}); make room, or name another file"
            ) from error

    def _part_file(self, rank: int) -> Path:
        return self.output.with_name(f".{self.output.name}.part{rank}")


def _format_line(result: dict[str, Any], plain: bool) -> str:
    """Format a result as one line."""
    # Many readers end a line at a carriage return.
    return re.sub(r"[\r\n]", " ", result["text"]) if plain else to_json(result)
