#!/usr/bin/env bash
# The tiny speaking model by one command, from synthesised speech and the folders of recordings that you have:
#
#     examples/tiny/recipe.sh runs/tiny path/to/kathleen path/to/speechocean762 path/to/librispeech
#
# It needs Debian's flite and wordnet-base, a C++ compiler, and `pip install pocketsphinx`. A step whose result is there
# is skipped and training is resumed, so the same command goes on after an interruption. What it makes lies in
# runs/tiny/model. About two hours on two cores that do nothing else; beside other work, three times as long.
set -euo pipefail
out=${1:?usage: examples/tiny/recipe.sh OUT [RECORDINGS ...]}
shift
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-.venv/bin/python}
vae=${VAE:-hub_cards/ditar-vae-tiny}
# shares of the speakers whose names begin so, among all examples
read -ra shares <<<"${SHARES:-flite=0.38 kathleen=0.12 lj=0.02 so=0.22 ls=0.26}"
export ONEDNN_PRIMITIVE_CACHE_CAPACITY=50000
mkdir -p "$out"

data=("$out/synthetic")
if [ ! -e "$out/synthetic.done" ]; then
    "$python" "$here/synthesize.py" --out "$out/synthetic" --num-sentences "${NUM_SENTENCES:-17600}"
    touch "$out/synthetic.done"
fi
for folder in "$@"; do
    name=$(basename "$folder")
    if [ ! -e "$out/$name.done" ]; then
        "$python" "$here/recordings.py" --data "$folder" --out "$out/$name"
        touch "$out/$name.done"
    fi
    data+=("$out/$name")
done

# The model that went before this one has learnt to follow a text already. It lies in the history of the repository.
before=$out/before/hub_cards/ditar-tiny-en
if [ ! -d "$before" ]; then
    commit=$(git -C "$here" log --format=%H --diff-filter=A -- ../../hub_cards/ditar-tiny-en/model.safetensors | tail -1)
    mkdir -p "$out/before"
    git -C "$here/../.." archive "$commit" hub_cards/ditar-tiny-en | tar -x -C "$out/before"
fi
if [ ! -d "$out/prepared/dataset" ]; then
    rm -rf "$out/prepared"
    "$python" "$here/prepare.py" --vae "$vae" --processor "$before" --out "$out/prepared" --data "${data[@]}"
fi
if [ ! -d "$out/start" ]; then
    "$python" "$here/warm_start.py" --model "$before" --vae "$vae" --data "${data[@]}" --out "$out/start"
fi
"$python" "$here/train.py" --vae "$vae" --prepared "$out/prepared" --start-from "$out/start" --out "$out/ditar" \
    --shares "${shares[@]}" --max-steps "${STEPS:-8300}" --decay-steps "${DECAY:-1500}" --compile --resume
"$python" "$here/export.py" --ditar "$out/ditar" --vae "$vae" --prepared "$out/prepared" --out "$out/model"
"$python" "$here/add_voices.py" --model "$out/model" --flite ada=slt ben=rms carl=awb --default ben
