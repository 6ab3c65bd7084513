#!/bin/sh
# Shows runs in TensorBoard with all their pictures: scripts/tensorboard.sh [FOLDER] [OPTIONS]
# FOLDER is runs unless given; OPTIONS are TensorBoard's own, such as --port 6007.
case "${1:--}" in -*) folder=runs ;; *) folder=$1 && shift ;; esac
exec tensorboard --logdir "$folder" --samples_per_plugin images=1000 "$@"
