"""Encoding of sources on the engine's thread."""

from collections.abc import Sequence

from lightning_xt.inference.serving.generation_task import GenerationTask
from lightning_xt.inference.serving.step_failures import explain_failure
from lightning_xt.inference.translation import Translator


def encode_tasks(translator: Translator | None, tasks: Sequence[GenerationTask]) -> None:
    """Encode the sources of tasks together; a source that fails ends only its own job."""
    missing = [task for task in tasks if not task.encoded]
    if translator is None or not missing:
        return
    try:
        encoded = translator.encode_sources([task.source or [] for task in missing], len(missing))
    except Exception as error:
        if len(missing) == 1:
            missing[0].fail(explain_failure(error))
            return
        for task in missing:
            encode_tasks(translator, [task])
        return
    for task, inputs in zip(missing, encoded, strict=True):
        task.set_inputs(inputs)
