#!/bin/sh
# Environments of the peers of benchmarks/sae_step.py, a folder each: sh benchmarks/peers/make.sh FOLDER
# Each has the torch of constraints.txt, and none can change another's. About 1.5 GB a peer.
set -e
folder=${1:?give a folder for the environments}
torch=$(grep '^torch==' "$(dirname "$0")/../../constraints.txt")
mkdir -p "$folder"

make() {  # NAME PACKAGE...
    name=$1
    shift
    [ -x "$folder/$name/bin/python" ] || python3 -m venv "$folder/$name"
    "$folder/$name/bin/pip" install --quiet "$torch" numpy "$@"
}

make sparsify eai-sparsify==1.3.3
make sae_lens sae-lens==6.54.12
# Its dependencies would replace torch; these are what its TopK trainer imports.
make dictionary_learning einops tqdm datasets nnsight
"$folder/dictionary_learning/bin/pip" install --quiet --no-deps dictionary-learning==0.1.0
