#!/bin/bash
#GOTGAN --name=allreduce
#GOTGAN --project=public/nup/startup-042
#GOTGAN --nodes=2 --gpus-per-node=8 --cpus-per-node=1 --mem=512M
#GOTGAN --time=5m
#
# A gang of two nodes. This script runs once, on the first of them; `gotgan run` starts two tasks
# on each node, which sum a vector round a ring. GOTGAN_EXAMPLES is the absolute path of examples/,
# given at submission with --env, because the script is copied and the Python file is not.
set -euo pipefail

echo "job $GOTGAN_JOB_ID attempt $GOTGAN_ATTEMPT on $GOTGAN_NODELIST"
gotgan run --tasks-per-node 2 -- \
    python3 "${GOTGAN_EXAMPLES:?give it with --env GOTGAN_EXAMPLES=DIR}/allreduce/allreduce.py"
