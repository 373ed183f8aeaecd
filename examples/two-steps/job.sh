#!/bin/bash
#GOTGAN --name=two-steps
#GOTGAN --project=public/nup/startup-042
#GOTGAN --nodes=2 --gpus-per-node=2 --cpus-per-node=1 --mem=512M
#GOTGAN --time=5m
#
# Two steps in one allocation, one after the other: one task a node, then two tasks a node. Each
# step has its own exit codes, output and times in `gotgan job`. `set -e` ends the script, and so
# the job, with the first step that fails.
set -euo pipefail

: "${GOTGAN_EXAMPLES:?give it with --env GOTGAN_EXAMPLES=DIR}"
gotgan run --name warm-up -- python3 "$GOTGAN_EXAMPLES/two-steps/work.py" warm-up 2000
gotgan run --name count --tasks-per-node 2 -- python3 "$GOTGAN_EXAMPLES/two-steps/work.py" count 20000
echo "both steps are done"
