"""Stand-in for scontrol: shows the state that a file holds, and records each requeue."""

import os
import sys
from pathlib import Path

place = Path(os.environ["FAKE_SLURM"])
job = os.environ["SLURM_JOB_ID"]
if sys.argv[1:] == ["show", "job", job]:
    print(f"JobId={job} JobName=train\n   UserId=me(1000)\n   JobState={(place / 'state').read_text()} Reason=None")
elif sys.argv[1:] == ["requeue", job]:
    with (place / "requeued").open("a") as file:
        file.write(f"{job}\n")
else:
    sys.exit(f"scontrol: invalid: {sys.argv[1:]}")
