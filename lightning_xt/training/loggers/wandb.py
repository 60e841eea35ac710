import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from lightning_xt.training.loggers.media import Image, MediaWriter, make_writer, to_html
from lightning_xt.training.loggers.tracker import Outcome, Tracker

SECONDS_TO_START = 30.0


class WandB(Tracker):
    """Logger of Weights & Biases.

    Args:
        project: project of the runs.
        run_name: name of the run. None = that of the run folder, such as `quickstart/0`.
        entity: user or team. None = your default.
        mode: "offline" writes into the run folder only, for `wandb sync` later. None = that of WANDB_MODE, else
            "online".
        tags: tags of the run.
    """

    package: ClassVar = "wandb"
    way_out: ClassVar = "run wandb login, set WANDB_MODE=offline, or omit the logger"

    def __init__(
        self,
        *,
        project: str = "lightning-xt",
        run_name: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        super().__init__(project, run_name)
        self.entity, self.mode, self.tags = entity, mode, tags
        self.run: Any = None

    def open(self, name: str | None, run_id: str | None, config: Mapping[str, Any], folder: Path | None) -> str:
        import wandb

        with _without_input():
            self.run = wandb.init(
                project=self.project,
                entity=self.entity,
                name=name,
                id=run_id,
                resume="allow",
                config=dict(config),
                dir=None if folder is None else str(folder),
                mode=self.mode,
                tags=list(self.tags),
                reinit="finish_previous",
                # The output has progress bars, and the run folder its samples.
                settings=wandb.Settings(init_timeout=SECONDS_TO_START, console="off"),
            )
        # A resumed run repeats the steps after its checkpoint, for which the steps of wandb itself have no room.
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step", step_sync=True)
        self.run.config.update(dict(config), allow_val_change=True)
        return str(self.run.id)

    def write(self, values: Mapping[str, Any], step: int) -> None:
        self.run.log({**values, "step": step})

    def close(self, outcome: Outcome) -> None:
        if outcome == "preempted":
            self.run.mark_preempting()
        self.run.finish(exit_code=0 if outcome == "finished" else 1)


class WandBWriter(MediaWriter):
    """Writer of media for Weights & Biases, ours or Lightning's logger."""

    def __init__(self, log: Callable[[dict[str, Any], int], None]) -> None:
        super().__init__(None)
        self.log = log

    def write_image(self, name: str, image: Image, step: int) -> None:
        import wandb

        self.log({name: wandb.Image(image)}, step)

    def write_text(self, name: str, text: str, step: int) -> None:
        import wandb

        self.log({name: wandb.Html(to_html(text), inject=False)}, step)

    def write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int) -> None:
        import wandb

        self.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step)

    def write_histogram(self, name: str, values: Float[Tensor, "..."], step: int) -> None:
        import wandb

        self.log({name: wandb.Histogram(values.detach().float().cpu().numpy())}, step)


@make_writer.register
def _(logger: WandB) -> MediaWriter:
    return WandBWriter(logger.log_values)


@make_writer.register
def _(logger: WandbLogger) -> MediaWriter:
    return WandBWriter(logger.log_metrics)


@contextmanager
def _without_input() -> Iterator[None]:
    """Close standard input, from which wandb would read a key, so that nothing waits for an answer."""
    before = sys.stdin
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before
