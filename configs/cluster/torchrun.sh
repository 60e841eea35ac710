#!/bin/bash
# Train on several machines without a scheduler: start this on each of them, in a folder that all see.
#
#     NODES=2 NODE_RANK=0 MASTER_ADDR=node0 configs/cluster/torchrun.sh -c configs/language/enwik8_base.yaml --name big
#     NODES=2 NODE_RANK=1 MASTER_ADDR=node0 configs/cluster/torchrun.sh -c configs/language/enwik8_base.yaml --name big
#
# All arguments are those of `lightning-xt fit`. In the environment:
#
#     NODES          machines; by default 1
#     NODE_RANK      number of this machine, from 0; by default 0
#     MASTER_ADDR    name or address of machine 0, which the others reach; by default 127.0.0.1
#     MASTER_PORT    a free port there; by default 29500
#     GPUS           processes on each machine; by default one for each GPU that nvidia-smi lists
#     WAIT           seconds until all machines must be there, at the start and after a preemption; by default 3600
#     MAX_RESTARTS   resumes after preemptions; by default 100
#
# To take a machine away, send this script SIGTERM or SIGUSR1 there: the run saves, and the script ends with exit code 75.
# The other machines wait for it. Once it is back, start the script there with the same command.

set -euo pipefail

nodes=${NODES:-1}
if [[ -z ${GPUS:-} ]] && ! command -v nvidia-smi > /dev/null; then
    echo "torchrun.sh: there is no nvidia-smi to count GPUs; set GPUS to the number of processes on this machine" >&2
    exit 2
fi
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
state=$(mktemp --directory)
trap 'rm -rf "$state"' EXIT

# torchrun would end its processes by SIGTERM and, 30 seconds later, by SIGKILL, however long a save takes. So the signal
# goes to the processes instead. Each leads a separate session, with the number of its shell in a file.
signalled=
launcher=
# shellcheck disable=SC2329
forward_signal() {
    signalled=1
    local file found=
    for file in "$state"/*.pid; do
        [[ -e $file ]] || continue
        found=1
        kill -USR1 -- "-$(<"$file")" 2>/dev/null || true
    done
    # torchrun still waits for the other machines.
    [[ -n $found || -z $launcher ]] || kill -TERM "$launcher" 2>/dev/null || true
}
trap forward_signal TERM USR1

# The command that torchrun starts. torchrun ends with 1 whatever its processes end with, so each leaves its exit code behind.
# ($$ would not work: torchrun removes one of the two dollars.)
# shellcheck disable=SC2016
worker='trap : TERM USR1
echo $BASHPID > "$0/$LOCAL_RANK.pid"
code=0
lightning-xt fit "$@" || code=$?
echo $code > "$0/$LOCAL_RANK.code"
exit $code'

for ((restart = 0; restart <= ${MAX_RESTARTS:-100}; restart++)); do
    rm -f "$state"/*
    # --max-restarts: this script decides on restarts. With `last` the first start begins a run and later ones resume it.
    torchrun --nnodes "$nodes" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$gpus" \
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" \
        --rdzv-conf "timeout=${WAIT:-3600}" --max-restarts 0 \
        --no-python bash -c "$worker" "$state" "$@" \
        --ckpt_path last --trainer.num_nodes "$nodes" --trainer.devices "$gpus" &
    launcher=$!
    # A signal that came meanwhile had nowhere to go.
    [[ -z $signalled ]] || kill -TERM "$launcher" 2>/dev/null || true
    # A signal ends `wait`, not the process.
    code=0
    wait "$launcher" || code=$?
    while kill -0 "$launcher" 2>/dev/null; do
        code=0
        wait "$launcher" || code=$?
    done
    [[ $code == 0 ]] && exit 0
    # 75: saved, to be resumed. 138: SIGUSR1 came before the process could listen. A fault would repeat.
    codes=$(cat "$state"/*.code 2>/dev/null || true)
    if ! grep -qxE '75|138' <<< "$codes"; then
        [[ -n $signalled && -z $codes ]] && exit 75
        exit "$code"
    fi
    [[ -n $signalled ]] && exit 75
done
echo "torchrun.sh: preempted more than ${MAX_RESTARTS:-100} times" >&2
exit 75
