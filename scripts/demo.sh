#!/bin/sh
# Pretrains on a few thousand emoji, or on the images in DATA, and shows what was discovered.
set -eu

protonce=target/release/protonce
out=${OUT:-demo/run}
data=${DATA:-}
evaluation=
if [ -z "$data" ]; then
    python3 scripts/demo_data.py --out demo/data
    data=demo/data/train
    # The fallback set has no kinds and no held-out drawings.
    if [ -d demo/data/test ]; then
        evaluation="--eval-train demo/data/train --eval-test demo/data/test --eval-every 2"
    fi
fi

rm -rf "$out"
# What suits the images and the machine is chosen. Of drawings, colours and outlines say what they are: views that
# change these little teach more, and small ones can be seen more often. $SETTINGS come last and win.
drawings=
if [ -z "${DATA:-}" ]; then
    drawings="--image-size 32 --batch-size 64 --flip-probability 0 --grey-probability 0 --crop-scale 0.5,1 --jitter 0.3,0.3,0.1,0.02"
fi
# shellcheck disable=SC2086
"$protonce" pretrain "$data" --out "$out" --budget "${BUDGET:-4m}" $drawings $evaluation ${SETTINGS:-}
"$protonce" report "$out"

cat <<TEXT

What you see
  $out/report.html  Open it in a browser; it needs no network. Prototypes are groups of images
                    that the network found by itself: walk from coarse ones to fine ones, look
                    at the map of all images, and see how training went. The losses need not
                    fall: the better the encoder, the harder the negatives it is given.
TEXT
if [ -n "$evaluation" ]; then
    cat <<'TEXT'
  kNN               Twitter's drawings of emoji that were never trained on, each sorted into one
                    of 57 kinds (faces, flags, food, ...) by its nearest neighbours among
                    the training drawings. "Chance" is always guessing the most frequent
                    kind; an untrained network, a histogram of colours and the pixels
                    themselves are the floors that training has to beat. No label was used.
TEXT
fi
