#!/bin/bash
#GOTGAN --name=train
#GOTGAN --project=public/nup/startup-077
#GOTGAN --nodes=1 --gpus-per-node=4 --cpus-per-node=1 --mem=512M
#GOTGAN --time=10m
#GOTGAN --signal=USR1@60
#GOTGAN --requeue
#
# Training with checkpoints. The directory of the checkpoints is named after the job, so every
# attempt of the job finds what the one before it left, on any node that sees the same file system.
# `exec` lets the signals reach Python itself.
set -euo pipefail

: "${GOTGAN_EXAMPLES:?give it with --env GOTGAN_EXAMPLES=DIR}"
: "${TRAIN_CHECKPOINTS:?give it with --env TRAIN_CHECKPOINTS=DIR}"
exec python3 "$GOTGAN_EXAMPLES/train/train.py" \
    --checkpoints "$TRAIN_CHECKPOINTS/job-$GOTGAN_JOB_ID" \
    --epochs "${TRAIN_EPOCHS:-60}" --epoch-seconds "${TRAIN_EPOCH_SECONDS:-0.1}"
