"""The sbatch script, run for real in a fake SLURM."""

import os
import signal

import pytest
from chaos.compare import find_differences, last_step, load
from cluster.jobs import Job, write_inputs

# Records its arguments, and exits with the code of the file.
NOTES = """
echo "$SRUN_CPUS_PER_TASK $SLURM_PROCID/$SLURM_NTASKS $SLURM_NODEID $SLURM_LOCALID|$*" > "task.$SLURM_PROCID"
"""
LISTENS = "trap 'exit 75' TERM USR1\ntouch listens.$SLURM_PROCID\nwhile true; do sleep 0.05; done\n"


def test_each_task_gets_the_arguments_and_what_slurm_knows(tmp_path):
    job = Job(tmp_path, NOTES)
    with job.start("-c", "a b.yaml", "--trainer.devices", "7") as script:
        assert script.wait() == 0
    ours = f"--name job-{job.number} --ckpt_path last --trainer.num_nodes 2 --trainer.devices 1"
    for number in range(2):
        said = (tmp_path / f"task.{number}").read_text()
        assert said == f"3 {number}/2 {number} 0|fit -c a b.yaml --trainer.devices 7 {ours}\n"
    assert job.requeued == []
    with job.start("-c", "a.yaml", RUN_NAME="job-1") as script:
        assert script.wait() == 0
    assert "fit -c a.yaml --name job-1 --ckpt_path last" in (tmp_path / "task.0").read_text()


@pytest.mark.parametrize(
    ("codes", "state", "requeues"),
    [
        ((75, 75), "RUNNING", True),
        ((0, 75), "RUNNING", True),
        ((138, 138), "RUNNING", True),
        ((75, 75), "COMPLETING", False),
        ((2, 2), "RUNNING", False),
        ((1, 0), "RUNNING", False),
        ((75, 137), "RUNNING", False),
        ((143, 75), "RUNNING", False),
    ],
)
def test_only_a_resumable_job_is_queued_again(tmp_path, codes, state, requeues):
    job = Job(tmp_path, f"codes=({codes[0]} {codes[1]})\nexit ${{codes[$SLURM_PROCID]}}\n")
    job.state(state)
    with job.start() as script:
        assert script.wait() == max(codes)
    assert job.requeued == ([str(job.number)] if requeues else [])


@pytest.mark.parametrize("state", ["RUNNING", "CANCELLED"])
def test_the_shell_outlives_a_signal_to_see_how_the_tasks_end(tmp_path, state):
    job = Job(tmp_path, LISTENS)
    job.state(state)
    with job.start() as script:
        script.wait_for(lambda: len(job.tasks) == len(list(tmp_path.glob("listens.*"))) == 2)
        for process in (script.process.pid, *job.tasks):
            os.kill(process, signal.SIGTERM)
        assert script.wait() == 75
    assert len(job.requeued) == (state == "RUNNING")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=["SIGUSR1", "SIGTERM"])
def test_a_preempted_job_ends_as_an_uninterrupted_one(tmp_path, uninterrupted, number):
    """SLURM's processes train as Lightning's two do, and a job that is queued again resumes exactly."""
    write_inputs(tmp_path)
    folder = tmp_path / "job"
    folder.mkdir()
    job = Job(folder)
    run = folder / "runs/whole/0"
    with job.start("-c", "../check.yaml", RUN_NAME="whole") as script:
        script.wait_for(lambda: last_step(run) >= 20)
        for task in job.tasks:
            os.kill(task, number)
        assert script.wait() == 75
    assert job.requeued == [str(job.number)]
    stopped = load(run / "checkpoints/last.ckpt")["global_step"]
    assert 20 < stopped < 120
    said = script.output.read_text()
    assert said.count(f"stopped by {number.name} ") == 1
    with job.start("-c", "../check.yaml", RUN_NAME="whole", SLURM_RESTART_COUNT="1") as script:
        assert script.wait() == 0
    assert job.requeued == [str(job.number)]
    assert not list(folder.rglob("hpc_ckpt_*"))
    assert list(find_differences(uninterrupted, run)) == []
    assert [each.name for each in run.parent.iterdir()] == ["0"]
