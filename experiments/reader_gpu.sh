#!/usr/bin/env bash
# A reader on a GPU in half an hour, in calls of at most ten minutes; a call that is cut off is simply made again.
#   reader_gpu.sh RUN prepare      unpack crops, render a million words on all cores (needs RUN/packs and RUN/fonts)
#   reader_gpu.sh RUN speed        what the card does: experiments/throughput.py
#   reader_gpu.sh RUN pretrain     MNSP
#   reader_gpu.sh RUN finetune     reading; make this call until it says that all steps are done
#   reader_gpu.sh RUN package      weights in RUN/weights, validation printed
# The steps below are for 10,000 pictures a second; scale them by what `speed` says. SIZE=nano WORDS=200 … tries it out.
set -euo pipefail
run=$1 size=${SIZE:-medium} words=${WORDS:-1000000} batch=${BATCH:-512} cores=${CORES:-$(nproc)}
reader="python $(dirname "$0")/reader.py"
stop="timeout --signal=INT ${SECONDS_A_CALL:-540}" # a checkpoint is written then
case $2 in
    prepare)
        $reader unpack "$run" --out "$run/packs" --workers "$cores"
        $reader fonts "$run" --fonts "$run/fonts"
        $reader render "$run" --fonts "$run/fonts.txt" --words "$words" --per-part $((words/4)) --workers "$cores" ;;
    speed) python "$(dirname "$0")/throughput.py" ;;
    pretrain) $stop $reader pretrain "$run" --size "$size" --steps "${STEPS:-4000}" --batch-size "$batch" ;;
    finetune) $stop $reader finetune "$run" --start-from "$run/pretrain/encoder" --size "$size" --steps "${STEPS:-12000}" --batch-size "$batch" ;;
    package) $reader package "$run" --out "$run/weights" ;;
esac
