#!/bin/bash
# Hands a batch to SLURM without Snakemake: an array with one task per subject that is not complete,
# a second array with twice the memory for those that did not end, and the group job after them.
#
#   submit_slurm.sh DATA OUT [--table FILE] [arguments for every call of the program: --config FILE
#                             --engine NAME ...]
#
# Environment: PROGRAM (default: myosymmetry), MEMORY_MB of a first attempt (default 6000),
# CPUS per task (default 2), CONCURRENT tasks at most (default 100), OPTIONS: arguments
# of the subjects and the group alone, quoted as in a shell, SBATCH_PARTITION and the other variables
# of sbatch for what a site wants.
# Prints the number of the group job, which ends last.
set -euo pipefail

DATA="$(realpath "$1")"
mkdir -p "$2/batch"
OUT="$(realpath "$2")"
shift 2
PROGRAM="${PROGRAM:-myosymmetry}"
MEMORY_MB="${MEMORY_MB:-6000}"
PLAN="$OUT/batch/slurm_plan.tsv"
script="$(dirname "$(realpath "$0")")/slurm_array.sh"

"$PROGRAM" plan "$DATA" "$OUT" "$@" > "$PLAN.all"
awk -F'\t' 'NR == 1 || $4 != "complete"' "$PLAN.all" > "$PLAN"
rm "$PLAN.all"
rows=$(($(wc -l < "$PLAN") - 1))
# The whole array gets the memory of its largest subject.
memory=$(awk -F'\t' -v most="$MEMORY_MB" 'NR > 1 && $3 + 0 > most {most = $3} END {print most}' "$PLAN")

# What the plan was made with holds for the subjects and the group too, but for the table.
OPTIONS="${OPTIONS:-}"
while [ $# -gt 0 ]; do
  case "$1" in
    --table) shift 2 ;;
    --table=*) shift ;;
    # Quoted for the shell, as the array script reads it: a path may hold blanks.
    *) OPTIONS+=" $(printf '%q' "$1")"; shift ;;
  esac
done

export PLAN DATA OUT PROGRAM MEMORY_MB OPTIONS
common=(--parsable --job-name=myosymmetry "--output=$OUT/batch/slurm_%A_%a.log")
# Sites limit how many tasks an array may have; 1000 is what SLURM comes with.
largest=1000
before=()
for ((OFFSET = 0; OFFSET < rows; OFFSET += largest)); do
  count=$((rows - OFFSET < largest ? rows - OFFSET : largest))
  export OFFSET ATTEMPT=1
  array=("--array=1-$count%${CONCURRENT:-100}" "--cpus-per-task=${CPUS:-2}")
  first=$(sbatch "${common[@]}" "${array[@]}" "--mem=${memory}M" "$script")
  export ATTEMPT=2
  second=$(sbatch "${common[@]}" "${array[@]}" "--mem=$((memory * 2))M" \
    "--dependency=afterany:$first" "$script")
  before+=("$second")
done
dependency=()
if [ ${#before[@]} -gt 0 ]; then
  dependency=("--dependency=afterany$(printf ':%s' "${before[@]}")")
fi
GROUP=1 sbatch --parsable --job-name=myosymmetry-group "--output=$OUT/batch/slurm_group_%j.log" \
  --cpus-per-task=1 --mem=2000M "${dependency[@]}" "$script"
