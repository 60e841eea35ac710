"""SLURM and torchrun: number of processes, handlers of signals, and checkpoints that are not touched."""

import signal

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from tiny_run import TIMES, load_weights, read_rows

from lightning_xt.cli import main
from lightning_xt.commands.trainer.cluster import adopt_trainer, choose_environments
from lightning_xt.system.messages import UserError

TASK = {
    "SLURM_JOB_ID": "4321",
    "SLURM_JOB_NAME": "train",
    "SLURM_NNODES": "1",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
"""Environment of the only task of a job."""
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "1"}
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


@pytest.fixture
def task(monkeypatch):
    """Make this process the only task of a job."""
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)


def handlers():
    """Return the names of the handlers of the two signals."""
    for number in (signal.SIGUSR1, signal.SIGTERM):
        handler = signal.getsignal(number)
        yield [getattr(each, "__name__", str(each)) for each in getattr(handler, "signal_handlers", [handler])]


@pytest.mark.parametrize("whose", ["ours", "lightnings"])
def test_lightning_requeues_nothing(task, whose):
    before = list(handlers())
    trainer = Trainer(**QUIET, plugins=choose_environments("auto", []) if whose == "ours" else None)
    assert type(trainer._accelerator_connector.cluster_environment) is SLURMEnvironment
    trainer._signal_connector.register_signal_handlers()
    user, term = handlers()
    trainer._signal_connector.teardown()
    requeues, ignores = "_slurm_sigusr_handler_fn" in user, "_sigterm_handler_fn" in term
    assert (requeues, ignores) == ((False, False) if whose == "ours" else (True, True))
    assert list(handlers()) == before


def test_an_environment_of_the_users_stays(task):
    assert [type(each) for each in choose_environments("ddp", [TorchCheckpointIO()])] == [SLURMEnvironment]
    assert choose_environments("auto", [LightningEnvironment()]) == []
    assert choose_environments(DDPStrategy(cluster_environment=LightningEnvironment()), []) == []
    assert [type(each) for each in choose_environments(DDPStrategy(), [])] == [SLURMEnvironment]


@pytest.mark.parametrize("variables", [{}, TORCHRUN, {**TASK, **TORCHRUN}, {**TASK, "SLURM_JOB_NAME": "bash"}])
def test_elsewhere_lightning_chooses(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_environments("auto", []) == []
    chosen = Trainer(**QUIET)._accelerator_connector.cluster_environment
    assert type(chosen) is (TorchElasticEnvironment if "RANK" in variables else LightningEnvironment)


def test_tasks_without_nodes_are_refused(task, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(UserError, match=r"SLURM: You set `--ntasks=2` .* Use `--ntasks-per-node=2` instead"):
        choose_environments("auto", [])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, r"You set `devices=1` .*`--ntasks-per-node=2`"),
        ({"SLURM_NTASKS": "2", "SLURM_NNODES": "2"}, r"You set `num_nodes=1` .*`--nodes=2`"),
        ({**TORCHRUN, "WORLD_SIZE": "2"}, r"You set `devices=1` and `num_nodes=1` .* world size \(2\)"),
    ],
    ids=["devices", "nodes", "torchrun"],
)
def test_processes_that_would_train_alone_are_refused(task, monkeypatch, variables, message):
    """Unconnected processes are refused, because each would be a whole run and write the same files."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    trainer = Trainer(**QUIET, devices=1)
    with pytest.raises(UserError, match=f"trainer: {message}"):
        adopt_trainer(trainer)


def test_the_command_line_refuses_them(task, fresh, monkeypatch, capsys):
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    assert main(["fit", "-c", "tiny.yaml"]) == 2
    assert "lightning-xt: error: trainer: You set `devices=1`" in capsys.readouterr().err
    assert not (fresh / "runs").exists()
    # Printed once in the log of all tasks.
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert main(["fit", "-c", "tiny.yaml"]) == 2
    assert capsys.readouterr().err == ""


def leave_strays(run):
    """Write intact checkpoints of Lightning's SLURM handler, with other weights, in all possible places."""
    stray = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    for weight in stray["state_dict"].values():
        weight.add_(1)
    for folder in (run, run.parent, run.parent.parent, run.parent.parent.parent):
        torch.save(stray, folder / "hpc_ckpt_1.ckpt")


@pytest.mark.parametrize(("place", "root"), [("slurm", "runs"), ("slurm", "runs/tiny/0"), ("elsewhere", "runs")])
def test_a_stray_checkpoint_trains_nothing(trained, monkeypatch, place, root):
    if place == "slurm":
        for name, value in TASK.items():
            monkeypatch.setenv(name, value)
    leave_strays(trained / "runs/tiny/0")
    assert main(["fit", "-c", "tiny.yaml", "--trainer.default_root_dir", root, "--name=other"]) == 0
    run = f"{root}/other/0"
    for kind in ("last", "best"):
        assert all(map(torch.equal, load_weights(run, kind).values(), load_weights("runs/tiny/0", kind).values()))
    assert [row | TIMES for row in read_rows(run)] == [row | TIMES for row in read_rows("runs/tiny/0")]


@pytest.mark.slow
def test_a_stray_checkpoint_measures_and_predicts_nothing(trained, task, capsys):
    def measure(command, *options):
        assert main([command, "-c", "runs/tiny/0/config.yaml", "--ckpt_path", "best", *options]) == 0
        return capsys.readouterr().out.splitlines()

    predict = ["--data.predict_prompts=prompts.txt", "--output=out.jsonl"]
    plain = measure("validate"), measure("test"), measure("predict", *predict)
    said = (trained / "out.jsonl").read_text()
    leave_strays(trained / "runs/tiny/0")
    assert (measure("validate"), measure("test"), measure("predict", *predict)) == plain
    assert (trained / "out.jsonl").read_text() == said
    for command in ("validate", "test"):
        assert main([command, "-c", "runs/tiny/0/config.yaml"]) == 2
        assert f"{command} needs weights: give --ckpt_path" in capsys.readouterr().err


def test_lightnings_name_for_requeueing_is_not_ours(trained, task, capsys):
    leave_strays(trained / "runs/tiny/0")
    assert main(["fit", "-c", "tiny.yaml", "--ckpt_path=hpc"]) == 2
    assert "--ckpt_path: hpc is not a run" in capsys.readouterr().err


@pytest.mark.parametrize("function", ["fit", "validate", "test", "predict"])
def test_lightning_would_take_it(tmp_path, task, function):
    """The reason for the tests above: Lightning loads the file if no checkpoint is named."""
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    trainer = Trainer(**QUIET, default_root_dir=tmp_path)

    def choose():
        arguments = {"ckpt_path": None, "model_provided": True, "model_connected": True}
        return trainer._checkpoint_connector._parse_ckpt_path(TrainerFn(function), **arguments)

    assert choose() == str(tmp_path / "hpc_ckpt_1.ckpt")
    adopt_trainer(trainer)
    assert choose() is None
