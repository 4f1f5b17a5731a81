#!/bin/bash
# One training on two machines that see the same workspace. The same line on both, there:
#   bash two_nodes.sh FIRST-MACHINE [GPUS]
set -euo pipefail

first=${1:?"name the first machine, as the other one knows it"}
gpus=${2:-$(nvidia-smi --list-gpus | wc -l)}

exec torchrun --nnodes 2 --nproc-per-node "$gpus" \
  --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id latentart \
  -m latentart train ldm "${@:3}"
