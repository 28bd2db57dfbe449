#!/usr/bin/env bash
# One run on two hosts, which are network namespaces of this machine with a cable between them: that it comes
# to the bits of one process, and what each side says, and after how long, when a process is killed, stopped
# or cut off. Needs root and `ip`.
#
#   scripts/two_hosts.sh PROTONCE DATA
set -euo pipefail

protonce=$1 data=$2
work=$(mktemp -d)
hosts=(protonce-a protonce-b)
cleanup() {
    for host in "${hosts[@]}"; do
        for process in $(ip netns pids "$host" 2>/dev/null); do kill -9 "$process" || true; done
        ip netns del "$host" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT
cleanup 2>/dev/null
mkdir -p "$work"

for host in "${hosts[@]}"; do
    ip netns add "$host"
    ip -n "$host" link set lo up
done
ip -n protonce-a link add cable type veth peer name cable netns protonce-b
ip -n protonce-a address add 10.77.0.1/24 dev cable
ip -n protonce-b address add 10.77.0.2/24 dev cable
for host in "${hosts[@]}"; do ip -n "$host" link set cable up; done

settings=(--preset small --stem imagenet --image-size 16 --batch-size 8 --queue 50 --clusters 4,8
    --warmup-epochs 1 --threads 1 --tune off --log-every 1 --bn-splits 2)

# Starts a process per host, the output of each in a file; their numbers in `processes`.
start() {
    local run=$1 port=$2
    shift 2
    processes=()
    for rank in 0 1; do
        RANK=$rank WORLD_SIZE=2 MASTER_ADDR=10.77.0.1 MASTER_PORT=$port \
            ip netns exec "${hosts[$rank]}" "$protonce" pretrain "$data" --out "$run" "${settings[@]}" \
            --dist-timeout 10s "$@" >"$work/said.$rank" 2>&1 &
        processes+=($!)
    done
}

# Waits until a run has made a step.
steps() {
    until grep -q '"step"' "$1/events.jsonl" 2>/dev/null; do sleep 0.05; done
}

# What each process says, and how long after `since`.
report() {
    local since=$1
    for rank in "${waited[@]}"; do
        wait "${processes[$rank]}" && status=0 || status=$?
        now=$(date +%s.%N)
        echo "  process $rank: exit $status after $(echo "$now - $since" | bc) s: $(tail -n 1 "$work/said.$rank")"
    done
}

sum() { cat "$1"/checkpoints/epoch-*/*.safetensors | sha256sum | cut -c 1-16; }

echo "one process:"
"$protonce" pretrain "$data" --out "$work/one" "${settings[@]}" --epochs 2 --quiet
echo "  weights $(sum "$work/one")"
echo "two hosts:"
start "$work/two" 29601 --epochs 2
waited=(0 1)
report "$(date +%s.%N)"
echo "  weights $(sum "$work/two")"

port=29610
for event in kill stop cut; do
    port=$((port + 1))
    echo "$event:"
    start "$work/$event" $port --epochs 1000
    steps "$work/$event"
    inner=$(ip netns pids protonce-b | tail -n 1)
    since=$(date +%s.%N)
    case $event in
        kill) kill -9 "$inner"; waited=(0) ;;
        stop) kill -STOP "$inner"; waited=(0) ;;
        cut) ip -n protonce-a link set cable down; waited=(0 1) ;;
    esac
    report "$since"
    kill -9 "$inner" 2>/dev/null || true
    wait
    ip -n protonce-a link set cable up
done
