# Sourced by scripts that need Python packages: `python_with MODULE=PACKAGE...` prints the path of a
# Python that has the modules: $TENON_PYTHON if it does, else one in a virtual environment below the
# build folder, made and filled when needed. Status 1 when that is not possible.
#
#   py=$(python_with onnx=onnx) || exit 77

python_has() { # PYTHON MODULE=PACKAGE...
  local py=$1 m list=''
  shift
  for m in "$@"; do list="${list}import ${m%%=*};"; done
  "$py" -c "$list" >/dev/null 2>&1
}

python_with() {
  local build=${TENON_BUILD:-build} venv m packages=''
  venv=$build/venv
  if [ -n "${TENON_PYTHON:-}" ] && python_has "$TENON_PYTHON" "$@"; then
    echo "$TENON_PYTHON"
    return 0
  fi
  for m in "$@"; do packages="$packages ${m#*=}"; done
  mkdir -p "$build" || return 1
  ( # one at a time: tests run side by side
    flock 9
    python_has "$venv/bin/python" "$@" && exit 0
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv" >"$build/venv.log" 2>&1 || exit 1
    "$venv/bin/pip" install -q --disable-pip-version-check $packages >>"$build/venv.log" 2>&1 || exit 1
    python_has "$venv/bin/python" "$@"
  ) 9>"$build/venv.lock" || {
    echo "Python packages could not be had:$packages (see $build/venv.log)" >&2
    return 1
  }
  echo "$venv/bin/python"
}
