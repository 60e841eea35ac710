"""Files for Kubernetes, SkyPilot and dstack: published fields only, and shell lines that start torchrun.sh.

Facts of Kubeflow Trainer v2 (trainer.kubeflow.org/v1alpha1, Apache-2.0), SkyPilot (docs: SkyPilot YAML) and dstack
(TaskConfiguration, ProfileParams), read in November 2026. Nothing here was run by them.
"""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from lightning_xt.cli import main

CLUSTER = Path(__file__).parents[2] / "configs" / "cluster"
TRAIN_JOB = {"runtimeRef", "initializer", "trainer", "runtimePatches", "suspend", "activeDeadlineSeconds", "managedBy"}
TRAINER = {"image", "command", "args", "env", "numNodes", "resourcesPerNode", "numProcPerNode"}
RUNTIME = {"mlPolicy", "podGroupPolicy", "template"}
SKY = {
    "name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts", "volumes", "setup", "run", "config",
    "service", "inputs", "outputs", "event_callback", "experimental",
}  # fmt: skip
SKY_RESOURCES = {
    "infra", "cloud", "region", "zone", "accelerators", "accelerator_args", "cpus", "memory", "instance_type",
    "use_spot", "disk_size", "disk_tier", "network_tier", "image_id", "ports", "labels", "autostop", "any_of",
    "ordered", "job_recovery",
}  # fmt: skip
DSTACK = {
    "type", "name", "nodes", "python", "image", "nvcc", "docker", "privileged", "entrypoint", "shell", "user",
    "working_dir", "home_dir", "registry_auth", "env", "commands", "ports", "volumes", "files", "repos", "resources",
    "backends", "regions", "availability_zones", "instance_types", "reservation", "spot_policy", "retry",
    "max_duration", "stop_duration", "max_price", "creation_policy", "idle_duration", "utilization_policy",
    "startup_order", "stop_criteria", "priority", "schedule", "single_branch", "fleets", "tags",
}  # fmt: skip
LAUNCHER = '#!/bin/bash\nprintf \'%s\\n\' "$NODES" "$NODE_RANK" "$MASTER_ADDR" "${GPUS-}" "$@"\n'


def read(name):
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def launch(command, folder, **variables):
    """Run a shell command with a stand-in for torchrun.sh; return what it was given."""
    script = folder / "configs" / "cluster" / "torchrun.sh"
    script.parent.mkdir(parents=True)
    script.write_text(LAUNCHER)
    script.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def kubernetes(folder):
    _, job = read("kubernetes.yml")
    trainer, given = job["spec"]["trainer"], {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "first"}
    return launch([*trainer["command"], *trainer["args"]], folder, **given, PET_MASTER_PORT="29400")


def skypilot(folder):
    (task,) = read("skypilot.yml")
    given = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "8"}
    return launch(["bash", "-c", task["run"]], folder, **given, SKYPILOT_NODE_IPS="first\nsecond")


def dstack(folder):
    (task,) = read("lightning-xt.dstack.yml")
    given = {"DSTACK_NODES_NUM": "2", "DSTACK_NODE_RANK": "1", "DSTACK_MASTER_NODE_IP": "first"}
    command = " && ".join(task["commands"][1:])
    return launch(["bash", "-c", command], folder, **given, DSTACK_GPUS_PER_NODE="8")


@pytest.mark.parametrize(("file", "gpus"), [(kubernetes, ""), (skypilot, "8"), (dstack, "8")])
def test_torchrun_is_started_with_options_that_fit_takes(file, gpus, tmp_path, monkeypatch, capsys):
    nodes, rank, address, given, *arguments = file(tmp_path)
    assert (nodes, rank, address, given) == ("2", "1", "first", gpus)
    assert arguments[0] == "-c" and "--trainer.default_root_dir" in " ".join(arguments)
    monkeypatch.chdir(tmp_path)
    # The script adds the first.
    assert main(["fit", *arguments, "--ckpt_path=last", "--trainer.num_nodes=2", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["default_root_dir"] == "/shared/runs"


def test_kubernetes_has_the_fields_of_its_schema():
    runtime, job = read("kubernetes.yml")
    assert {each["apiVersion"] for each in (runtime, job)} == {"trainer.kubeflow.org/v1alpha1"}
    assert (runtime["kind"], job["kind"]) == ("TrainingRuntime", "TrainJob")
    assert runtime["spec"].keys() <= RUNTIME and job["spec"].keys() <= TRAIN_JOB
    assert job["spec"]["trainer"].keys() <= TRAINER
    assert job["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org",
        "kind": runtime["kind"],
        "name": runtime["metadata"]["name"],
    }
    assert runtime["spec"]["mlPolicy"].keys() <= {"numNodes", "torch", "mpi", "jax", "xgboost", "flux"}
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert node["name"] == "node"
    assert node["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    inner = node["template"]["spec"]
    pod = inner["template"]["spec"]
    # A policy for failures needs pods that never restart by themselves.
    assert inner["podFailurePolicy"] and pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    (rule,) = [each["onExitCodes"] for each in inner["podFailurePolicy"]["rules"] if "onExitCodes" in each]
    assert rule["containerName"] == container["name"] and 75 not in rule["values"]


def test_skypilot_has_the_fields_of_its_schema():
    (task,) = read("skypilot.yml")
    assert task.keys() <= SKY and task["resources"].keys() <= SKY_RESOURCES
    assert task["resources"]["job_recovery"].keys() <= {"strategy", "max_restarts_on_errors"}
    assert task["resources"]["job_recovery"]["strategy"] in ("FAILOVER", "EAGER_NEXT_REGION")
    (mount,) = task["file_mounts"].values()
    assert mount.keys() <= {"name", "source", "store", "persistent", "mode", "config"}
    assert mount["mode"] in ("MOUNT", "COPY", "MOUNT_CACHED")


def test_dstack_has_the_fields_of_its_schema():
    (task,) = read("lightning-xt.dstack.yml")
    assert task.keys() <= DSTACK and task["type"] == "task"
    assert task["spot_policy"] in ("spot", "on-demand", "auto")
    assert set(task["retry"]["on_events"]) <= {"no-capacity", "interruption", "error"}
    assert all(volume.keys() == {"instance_path", "path"} for volume in task["volumes"])
    assert (CLUSTER / task["repos"][0]).resolve() == CLUSTER.parents[1]
