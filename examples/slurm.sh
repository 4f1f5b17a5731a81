#!/bin/bash
# One training over the GPUs of several nodes, in as many jobs as it takes. In a workspace on the shared disk:
#   sbatch slurm.sh vae && sbatch --dependency=afterok:JOB slurm.sh ldm
#SBATCH --job-name=latentart
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

what=${1:-ldm}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / SLURM_GPUS_ON_NODE))

# Ten minutes before the end, should --max-time not have stopped it: save, and end.
told=0
trap 'told=$((told + 1)); scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1

# One torchrun on each node starts one process for each GPU there; batch_size is the batch of all of them together.
result=latentart-$SLURM_JOB_ID.out
srun --kill-on-bad-exit=1 --open-mode=truncate --output="$result" torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
  --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
  -m latentart train "$what" --quiet --max-time 7h &
step=$!
waited=-1
while ((waited != told)); do # the trap cuts a wait short
  waited=$told
  wait $step
  code=$?
done
cat "$result"

# It names a checkpoint where it stopped before its end, and the model where it is finished.
if ((told)) || { [[ $code == 0 ]] && grep -q "/checkpoints/" "$result"; }; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
