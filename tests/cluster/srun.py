"""Stand-in for srun: all tasks of a job run here, and a file holds their process ids for the tests that signal them.

Like srun it passes on signals, waits for all tasks, and ends with the highest code.
"""

import os
import signal
import subprocess
import sys

nodes, tasks_per_node = int(os.environ["SLURM_NNODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
options, program = sys.argv[1:3], sys.argv[3:]
assert options == ["--kill-on-bad-exit=0", "--wait=60"], options

tasks = []
for number in range(nodes * tasks_per_node):
    node, local = divmod(number, tasks_per_node)
    variables = {
        "SLURM_NTASKS": str(nodes * tasks_per_node),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(local),
        "SLURM_NODEID": str(node),
    }
    # A session each, as on separate machines.
    tasks.append(subprocess.Popen(program, env={**os.environ, **variables}, start_new_session=True))


def forward(number, frame):
    for task in tasks:
        task.send_signal(number)


for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, forward)
with open(os.path.join(os.environ["FAKE_SLURM"], "tasks.part"), "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
os.replace(file.name, os.path.join(os.environ["FAKE_SLURM"], "tasks"))
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
