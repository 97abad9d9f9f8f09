#!/usr/bin/env bash
# Renders pictures on a machine's cores, then trains on its GPU, in one go of less than ten minutes; the checkpoint comes out, and the
# next go takes it in. The config, the command and the checkpoints are those of training anywhere else.
#
#   tools/train_on_gpu.sh --out FOLDER [--checkpoint FILE] [--start FILE] [--config FILE] [--pictures 2000] [--minutes 9] [--seed 21]
#                         [--shards FOLDER] [--workers CORES] [--finish STEPS] [--dry-run [--steps N]] [-- --set section.key=value ...]
#
#   --out FOLDER        gets run/checkpoint.pt, run/weights.safetensors and run/log.jsonl (default: $OUT)
#   --checkpoint FILE   go on from there; without it a run begins
#   --start FILE        weights to begin with (default: what the config names)
#   --pictures N        to render; series --seed, which the long run's own pictures do not use. 0 trains on what --shards holds
#   --shards FOLDER     where pictures are and go (default: FOLDER of --out, /shards)
#   --minutes M         for everything together (default: 9); what rendering leaves is trained
#   --finish STEPS      ends with a decay of so many steps, in run/finish-<step>; its time comes on top
#   --dry-run           the whole path on the CPU with tiny numbers, to step --steps (default: 4)
#
# It uses the present python when that has the requirements, else makes a virtual environment in .venv-gpu.
set -euo pipefail
cd "$(dirname "$0")/.."

out="${OUT:-}" checkpoint="" start="" config="densemarks_model/configs/lite_long.yaml" pictures=2000 minutes=9 seed=21
shards="" workers="$(python3 -c 'import os; print(len(os.sched_getaffinity(0)))' 2>/dev/null || echo 4)" finish="" steps=4 dry=0 more=()
fail() { echo "error: $1" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case "$1" in
    --out | --checkpoint | --start | --config | --pictures | --minutes | --seed | --shards | --workers | --finish | --steps)
      [ $# -ge 2 ] || fail "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"; shift 2 ;;
    --dry-run) dry=1; shift ;;
    --) shift; more=("$@"); break ;;
    -h | --help) sed -n '2,20p' "$0"; exit 0 ;;
    *) fail "$1: no such option; --help lists them" ;;
  esac
done
[ -n "$out" ] || fail "--out FOLDER is needed"
[ -z "$checkpoint" ] || [ -f "$checkpoint" ] || fail "$checkpoint: no such checkpoint"
shards="${shards:-$out/shards}"
began=$SECONDS

python="${PYTHON:-python3}"
if ! "$python" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, "torch transformers cv2 numba yaml safetensors".split())))'; then
  [ -x .venv-gpu/bin/python ] || "$python" -m venv .venv-gpu
  python=.venv-gpu/bin/python
  "$python" -m pip install --quiet -r requirements.txt
fi

settings=(--set "data.synthetic=$shards/train" --set "data.held_out=$shards/held_out" --set "run.out=$out/run" --set "data.workers=$workers"
  --set run.checkpoint_minutes=2)
[ -z "$start" ] || settings+=(--set "network.start=$start")
if [ $dry = 1 ]; then
  [ "$pictures" = 0 ] || pictures=4
  workers=1 minutes=60
  size=(--image-size 64 --map-size 16)
  # shards of few pictures; its processes are forked and know it too
  render=("$python" -c 'import sys; from densemarks_model.data.synthetic import __main__ as m; m.SHARD = 4; sys.exit(m.main(sys.argv[1:]))')
  tiny='{image_size: 28, hidden_size: 32, layers: 2, heads: 2, position_grid: 5, taps: [1, 2], widths: [32, 32, 16], stem_width: 16}'
  [ -n "$start" ] || settings+=(--set network.start= --set network.backbone=)
  settings+=(--set "network.lite=$tiny" --set data.workers=0 --set run.validate_every=5 --set run.log_every=5)
  export CUDA_VISIBLE_DEVICES=""
  held_out=2 until=(--until "$steps")
else
  "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || fail "torch finds no CUDA device here; --dry-run tries the path on the CPU"
  size=() held_out=250 until=() render=("$python" -m densemarks_model.data.synthetic)
fi

# one thread a process: they share the cores
export OMP_NUM_THREADS=1
if [ "$pictures" != 0 ]; then
  "${render[@]}" --out "$shards/train" --count "$pictures" --seed "$seed" --workers "$workers" "${size[@]}"
  "${render[@]}" --out "$shards/held_out" --count "$held_out" --seed 2 --workers "$workers" "${size[@]}"
fi
unset OMP_NUM_THREADS

left="$("$python" -c "print(max($minutes - ($SECONDS - $began) / 60, 0.2))")"
command=("$python" -m densemarks_model.train --config "$config" "${settings[@]}" "${more[@]}")
"${command[@]}" --minutes "$left" "${until[@]}" ${checkpoint:+--resume "$checkpoint"}
[ -z "$finish" ] || "${command[@]}" --finish "$finish"
