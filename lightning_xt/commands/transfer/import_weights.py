"""Import of the weights of an x-transformers model with the call that builds it."""

from pathlib import Path

from lightning_xt.commands.transfer.import_folder import save_import
from lightning_xt.commands.x_transformers.architectures import Architecture, translate
from lightning_xt.commands.x_transformers.call_text import read_call_text
from lightning_xt.commands.x_transformers.config_text import check, complete_model
from lightning_xt.commands.x_transformers.expression import parse
from lightning_xt.exchange.x_transformers.state_dict_import import read_state_dict
from lightning_xt.system.messages import UserError


def import_weights(given: str, call: str, name: str | None, root: str) -> int:
    """Make a run of a state dict, and print it; return the exit code.

    Args:
        given: the file of the weights.
        call: the call of the model, a file with it, or - for standard input.
        name: name of the run; that of the file if there is none.
        root: folder of the runs.

    Raises:
        UserError: the call cannot be read, the model has no equal here, or the weights do not fit.
    """
    file = Path(given)
    if not file.is_file():
        raise UserError(f"{given} is not a file; --call belongs to the weights of an x-transformers model, in one file")
    architecture = translate_call(read_call_text(call, "--call"))
    imported = read_state_dict(
        file, architecture.kind, complete_model(architecture.options), architecture.stacks, architecture.pad
    )
    imported.remarks += [f"--call: {line}" for line in (*architecture.remarks.differing,)]
    return save_import(imported, Path(root) / (name or file.stem))


def translate_call(text: str) -> Architecture:
    """Return the model of a call that computes the same here.

    Raises:
        UserError: the call cannot be read, or the model has no equal here; the message names the options.
    """
    try:
        architecture = translate(parse(text))
        check(architecture)
    except UserError as error:
        raise UserError(f"--call: {str(error).removeprefix('from-xt: ')}") from error
    remarks = architecture.remarks
    reasons = [*remarks.missing, *(line for line, exact in remarks.differing.items() if not exact)]
    if architecture.kind == "MaskedLanguageModel":
        reasons.append("an Encoder alone: a MaskedLanguageModel has a further token, the mask")
    if reasons:
        more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
        raise UserError(
            f"--call: no model here gives the numbers of this one: {'; '.join(reasons[:SHOWN])}{more}; `lightning-xt "
            "from-xt` prints the closest config, to train"
        )
    return architecture


SHOWN = 4
"""Options in a message."""
