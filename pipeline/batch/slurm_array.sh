#!/bin/bash
# One task of a SLURM array: one subject, or the group. submit_slurm.sh hands it over.
#
# Environment: PLAN, DATA, OUT, PROGRAM, OPTIONS as there; OFFSET: rows of the plan before the first
# of this array; ATTEMPT: 1 or 2; GROUP: 1 for the group job.
set -euo pipefail

# OPTIONS holds several words, quoted for the shell; an environment carries no arrays.
eval "options=(${OPTIONS:-})"

# Paths of folders, which the program prints on standard output, stand in no log.
if [ "${GROUP:-0}" = 1 ]; then
  exec "$PROGRAM" "$DATA" "$OUT" group "${options[@]}" > /dev/null
fi

# Row 1 is the header.
row=$((OFFSET + SLURM_ARRAY_TASK_ID + 1))
IFS=$'\t' read -r subject session memory state measures < <(sed -n "${row}p" "$PLAN")

# A second attempt is for what the first could not finish, and would not help a broken input.
log_folder="$OUT/$(dirname "$measures")/log"
name="$(basename "$measures" _measures.json)"
if [ "$ATTEMPT" -gt 1 ]; then
  if [ "$OUT/$measures" -nt "$PLAN" ]; then exit 0; fi
  if grep -qsE '"exit_code": (2|3|4),' "$log_folder/${name}_failure.json"; then exit 0; fi
fi

if [ "$memory" = n/a ]; then memory="$MEMORY_MB"; fi
# The limit on data holds where SLURM does not enforce the memory that was asked for.
ulimit -d $((memory * ATTEMPT * 1024))
mkdir -p "$log_folder"
labels=(--participant-label "$subject")
if [ "$session" != n/a ]; then labels+=(--session-label "$session"); fi
exec "$PROGRAM" "$DATA" "$OUT" participant "${labels[@]}" "${options[@]}" \
  > /dev/null 2> "$log_folder/${name}_batch.log"
