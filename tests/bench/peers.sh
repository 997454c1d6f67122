#!/usr/bin/env bash
# Runs our loader among the peers of a comparison of loaders: tests/bench/peers.sh PEERS_DIR [PATTERN]
# PEERS_DIR has run_all.sh, common.py and a file for each peer; its variables (PYTHON, DATA, OUT, ROUNDS, EPOCHS …) are passed on.
# PATTERN picks peers by their lines in run_all.sh, e.g. 'prolip|handmade'. OUT and DATA are taken from the folder you are in.
# While the first batch is looked at, a loader's queue fills: with few photographs let EPOCHS make the timed window many times
# longer than any queue (64 for 250 photographs), or the fastest are measured by what lay ready.
set -euo pipefail
peers=$(realpath "${1:?the folder of the peers}")
pattern=${2:-.}
own=$(realpath "$(dirname "$0")/peer_prolip.py")
together=$(mktemp -d)
trap 'rm -rf "$together"' EXIT
ln -s "$peers"/*.py "$together"
ln -s "$own" "$together/peer_prolip.py"
# torchcodec has torchvision's function under the same name.
sed 's/from torchvision\.io import/from torchcodec.decoders import/; s/"4 torchvision/"8 torchcodec/' "$peers/peer_4_torchvision_v2.py" \
  > "$together/peer_8_torchcodec.py"
# Ours come first in each turn. Python looks for common.py beside the file that a link leads to, so the folder is named.
sed 's/^peer_1_webdataset\.py$/peer_prolip.py\n&/; s/^peer_4_torchvision_v2\.py$/&\npeer_8_torchcodec.py/' "$peers/run_all.sh" > "$together/run_all.sh"
grep -q '^peer_prolip' "$together/run_all.sh" || { echo "$peers/run_all.sh: no line 'peer_1_webdataset.py' to put ours before" >&2; exit 1; }
PYTHONPATH="$together${PYTHONPATH:+:$PYTHONPATH}" bash "$together/run_all.sh" "$pattern"
