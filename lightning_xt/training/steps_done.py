"""Steps in logs: the optimizer steps done, as the console, samples and checkpoints count them."""

from typing import Any

from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

from lightning_xt.training.step_boundaries import is_logged


class StepsDone(_LoggerConnector):
    """Connector that logs a step's metrics and its validation at the steps done; Lightning's logs at one less.

    Callbacks that log by themselves read Lightning's counter, `_batches_that_stepped`, which is here the step in
    progress from the start of its first batch.
    """

    def on_batch_start(self, *args: Any, **kwargs: Any) -> None:
        super().on_batch_start(*args, **kwargs)
        if self.trainer.training:
            if self._first_loop_iter is False:
                # Lightning reads it only in the first batch of a loop; each logged value sets it.
                self._current_fx = None
            self._count(self.trainer.global_step + 1)

    def on_batch_end(self) -> None:
        results = self.trainer._results
        again = self.trainer.training and self._first_loop_iter is False
        if not again or self._current_fx is not None or results is None:
            super().on_batch_end()
            return
        # Nothing was logged since the batch began, so that the metrics are those of an earlier one.
        results.batch = results.batch_size = None

    @property
    def should_update_logs(self) -> bool:
        # Lightning's is also True at steps of a Trainer that should stop, for which nothing new has been logged.
        return is_logged(self.trainer, self._step) if self.trainer.training else super().should_update_logs

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log metrics, at the steps done unless another step is given."""
        before = self._count(self.trainer.global_step)
        try:
            super().log_metrics(metrics, step)
        finally:
            self._count(before)

    @property
    def _step(self) -> int:
        return self.trainer.fit_loop.epoch_loop._batches_that_stepped

    def _count(self, step: int) -> int:
        """Set Lightning's counter, and return its value before."""
        before = self._step
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = step
        return before
