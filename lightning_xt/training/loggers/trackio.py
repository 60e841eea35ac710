from collections.abc import Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from jaxtyping import Float
from torch import Tensor

from lightning_xt.training.loggers.media import Image, MediaWriter, make_printable, make_writer, to_html
from lightning_xt.training.loggers.tracker import Outcome, Tracker


class Trackio(Tracker):
    """Logger of Trackio, whose dashboard runs on your machine (`trackio show`) or in a Space of Hugging Face.

    Args:
        project: project of the runs.
        run_name: name of the run. None = that of the run folder, such as `quickstart/0`, and six random digits, because
            Trackio continues runs by their names.
        space_id: Space that shows the runs. None = that of TRACKIO_SPACE_ID, else a local database (in TRACKIO_DIR).
    """

    package: ClassVar = "trackio"
    way_out: ClassVar = "log in by hf auth login for a Space, omit space_id for a local database, or omit the logger"

    def __init__(
        self, *, project: str = "lightning-xt", run_name: str | None = None, space_id: str | None = None
    ) -> None:
        super().__init__(project, run_name)
        self.space_id = space_id
        self.run: Any = None

    def open(self, name: str | None, run_id: str | None, config: Mapping[str, Any], folder: Path | None) -> str:
        import trackio

        if run_id is None and self.run_name is None:
            name = f"{name or 'run'}-{uuid4().hex[:6]}"
        # In a separate context, because Trackio would finish its current run again at the end of the process.
        self.run = copy_context().run(
            trackio.init,
            project=self.project,
            name=run_id or name,
            space_id=self.space_id,
            config=dict(config),
            resume="never" if run_id is None else "allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return str(self.run.name)

    def write(self, values: Mapping[str, Any], step: int) -> None:
        self.run.log(dict(values), step)

    def close(self, outcome: Outcome) -> None:
        self.run.finish()


class TrackioWriter(MediaWriter):
    """Writer of media for Trackio."""

    def write_image(self, name: str, image: Image, step: int) -> None:
        import trackio

        self.logger.log_values({name: trackio.Image(image)}, step)

    def write_text(self, name: str, text: str, step: int) -> None:
        import trackio

        self.logger.log_values({name: trackio.Html(to_html(text))}, step)

    def write_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], step: int) -> None:
        import trackio

        data = [[make_printable(text) for text in row] for row in rows]
        self.logger.log_values({name: trackio.Table(columns=list(columns), data=data)}, step)

    def write_histogram(self, name: str, values: Float[Tensor, "..."], step: int) -> None:
        import trackio

        self.logger.log_values({name: trackio.Histogram(values.detach().float().cpu().numpy().ravel())}, step)


@make_writer.register
def _(logger: Trackio) -> MediaWriter:
    return TrackioWriter(logger)
