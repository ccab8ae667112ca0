#!/bin/sh
# wheels.sh FOLDER: fetch what `python -m benchmarks gpu` measures besides qstore, for a Linux machine that has
# Python 3.12, PyTorch for CUDA, Triton, JAX for CUDA, SciPy and NetworkX but no network. About 10 MB. There:
#
#     python3 -m pip install --no-index --no-deps --target FOLDER/site FOLDER/*.whl
#     PYTHONPATH=FOLDER/site python3 -m benchmarks gpu
#
# lightning.gpu is not among them: it is built for CUDA 12 and needs NVIDIA's libraries of that version (custatevec,
# cublas, cusparse: over 500 MB). Where they are installed, the benchmark measures it.
set -eu
folder=${1:?usage: wheels.sh FOLDER}
platforms=""
for glibc in 28 27 17; do platforms="$platforms --platform manylinux_2_${glibc}_x86_64"; done
# shellcheck disable=SC2086
exec "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --dest "$folder" \
    --python-version 3.12 --implementation cp $platforms --platform manylinux2014_x86_64 --platform any \
    pennylane==0.45.1 autoray==0.8.4 autograd==1.8.0 appdirs astunparse cachetools diastatic-malt==2.15.3 gast graphviz rustworkx==0.18.1 \
    termcolor tomlkit tensorcircuit-ng==1.10.0 tensornetwork-ng==0.5.3 triton-qml==0.1.0 fastqml==0.2.1 \
    pluggy "setuptools>=77" wheel
