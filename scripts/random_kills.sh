#!/usr/bin/env bash
# One run of two processes, of which one is killed again and again at a random moment and all are started anew, as
# `torchrun --max-restarts` does: that it comes to the bits of the run that nobody disturbed.
#
#   scripts/random_kills.sh PROTONCE DATA [KILLS]
set -euo pipefail

protonce=$1 data=$2 kills=${3:-20}
work=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT

settings=(--preset small --base-channels 16 --stem imagenet --image-size 16 --batch-size 16 --queue 50 --clusters 4,8
    --warmup-epochs 1 --threads 1 --tune off --log-every 1 --bn-splits 2 --epochs 12 --keep 2)

# Starts both processes; their numbers in `processes`.
start() {
    processes=()
    local port=$((20000 + RANDOM % 20000))
    for rank in 0 1; do
        RANK=$rank WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port "$protonce" pretrain "$data" --out "$1" \
            "${settings[@]}" --dist-timeout 30s "${@:2}" >"$work/said.$rank" 2>&1 &
        processes+=($!)
    done
}

begun=$(date +%s%N)
start "$work/whole"
wait "${processes[@]}"
length=$((($(date +%s%N) - begun) / 1000000))
echo "undisturbed: $length ms"

killed=0
while ((killed < kills)); do
    # While it starts, trains or writes, and often enough soon after the start of a run that is nearly done.
    wait_ms=$((RANDOM * RANDOM % (length / 2) + 50))
    start "$work/killed" --resume-or-begin --save-minutes 0.005
    sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
    victim=$((RANDOM % 2))
    if kill -9 "${processes[$victim]}" 2>/dev/null; then
        killed=$((killed + 1))
    else
        # It was through: from the beginning.
        rm -rf "$work/killed"
    fi
    wait "${processes[$((1 - victim))]}" || true
    wait "${processes[$victim]}" 2>/dev/null || true
    at=$(cat "$work/killed/checkpoints/last" 2>/dev/null || echo "no checkpoint")
    echo "kill $killed: process $victim after $wait_ms ms, at $at"
done
start "$work/killed" --resume-or-begin
wait "${processes[@]}"

for run in whole killed; do
    (cd "$work/$run" && cat "checkpoints/$(cat checkpoints/last)"/*.safetensors prototypes/* | sha256sum) >"$work/$run.sum"
done
cmp "$work/whole.sum" "$work/killed.sum" && echo "the same weights and prototypes after $kills kills"
