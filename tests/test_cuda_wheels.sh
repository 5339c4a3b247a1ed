#!/usr/bin/env bash
# NVRTC out of NVIDIA's wheels, in a folder of Python packages and in a virtual environment. Where there is a toolkit its
# libraries stand in for them; elsewhere the wheel is fetched, once, below the build folder.
set -u
. "$(dirname "$0")/cli.sh" cuda_wheels
site=$work/site
unset VIRTUAL_ENV TENON_CUDA_PATH
echo 'graph g { opset 17 input a: bf16[256, 256] input b: bf16[256, 256] y = Gemm(a, b) {transB = 1} output y }' >g.tn
toolkit=$(for f in /usr/local/cuda/lib64/libnvrtc.so.1? /opt/cuda/lib64/libnvrtc.so.1?; do [ -e "$f" ] && dirname "$f" && break; done)
if [ -n "$toolkit" ]; then
  mkdir -p "$site/nvidia/cuda_nvrtc/lib"
  ln -s "$toolkit"/libnvrtc* "$site/nvidia/cuda_nvrtc/lib/"
else
  site=$build/wheels
  [ -d "$site/nvidia" ] || python3 -m pip install -q --disable-pip-version-check --target "$site" nvidia-cuda-nvrtc-cu12 >pip.log 2>&1 || { echo "no toolkit, and the wheel cannot be had"; exit 77; }
fi
TENON_CUDA_PATH=$site:- ok explain g.tn --target cuda:sm_90a
has "NVRTC: $site/nvidia/"
has "tma 64 64 4"
has " registers"
mkdir -p venv/lib/python3.99
ln -s "$site" venv/lib/python3.99/site-packages
VIRTUAL_ENV=$work/venv ok explain g.tn --target cuda:sm_80
has " registers"
[ -n "$toolkit" ] || has "NVRTC: $work/venv/lib/python3.99/site-packages/nvidia/"
TENON_CUDA_PATH=/nowhere:- ok explain g.tn --target cuda:sm_90a
has "NVRTC: not there"

done_checking
