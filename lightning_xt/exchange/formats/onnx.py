import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_xt.exchange.comparison import compare_logits
from lightning_xt.exchange.exported_model import ExportedModel
from lightning_xt.exchange.formats.base import ExportFormat
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.step.step_checks import check_step, explain_failure
from lightning_xt.exchange.step.step_folder import write_description
from lightning_xt.exchange.step.step_program import StepProgram, build_programs, silence_libraries
from lightning_xt.exchange.step.step_scorer import Runner, StepScorer
from lightning_xt.exchange.tokenizers.exported_tokenizers import compare_tokenizers, open_library
from lightning_xt.exchange.verification import Verification

OPSET = 18
"""Version of ONNX's operators; ONNX Runtime reads it from 1.14 on."""
LARGEST = 2**30
"""Most bytes of weights in the file itself, which ONNX limits to twice as many; more are a separate file."""


class ONNX(ExportFormat):
    """Decode step with its cache as an ONNX graph, for an encoder-decoder after the encoder."""

    name: ClassVar = "onnx"
    summary: ClassVar = "ONNX Runtime on any platform, in browsers too; a step with its cache, of most models"

    def check(self, model: ExportedModel) -> None:
        missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
        if missing:
            raise MisfitError(f"--format onnx needs {' and '.join(missing)}; pip install 'lightning-xt[onnx]'")
        check_step(model)

    def write(self, model: ExportedModel, folder: Path) -> None:
        programs = build_programs(check_step(model), model.max_length)
        for each in programs:
            try:
                _convert(each, folder / f"{each.name}.onnx")
            except Exception as error:
                raise explain_failure(model, "converted to ONNX", error) from error
        write_description(model, programs, "onnx", folder)

    def verify(self, model: ExportedModel, folder: Path) -> Verification:
        programs = build_programs(check_step(model), model.max_length)
        reader, open_file = _choose_reader()
        runners = [_make_runner(open_file(str(folder / f"{each.name}.onnx")), each) for each in programs]
        return compare_logits(model, StepScorer(programs, runners), reader)

    def verify_tokenizers(self, model: ExportedModel, folder: Path) -> list[str]:
        return compare_tokenizers(model, folder, open_library, apart=True)


def _convert(program: StepProgram, file: Path) -> None:
    """Write a program as an ONNX graph, without paths of this machine."""
    traced = program.trace()
    size = sum(each.numel() * each.element_size() for each in program.module.parameters())
    with silence_libraries():
        made: Any = torch.onnx.export(
            traced,
            program.examples,
            input_names=[port.name for port in program.inputs],
            output_names=[port.name for port in program.outputs],
            dynamic_shapes=program.dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        for node in made.model.graph.all_nodes():
            node.metadata_props.clear()
        made.save(str(file), external_data=size > LARGEST)


def _choose_reader() -> tuple[str, Callable[[str], Any]]:
    """Return the name of the program that reads the files, and the way to open one."""
    try:
        import onnxruntime
    except ImportError:
        from onnx import __version__
        from onnx.reference import ReferenceEvaluator

        return f"the reference evaluator of onnx {__version__}", ReferenceEvaluator
    return f"onnxruntime {onnxruntime.__version__}", _open_session


def _open_session(file: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _make_runner(session: Any, program: StepProgram) -> Runner:
    names = [port.name for port in program.inputs]

    def run(*inputs: Tensor) -> list[Tensor]:
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        return [torch.from_numpy(each) for each in session.run(None, given)]

    return run
