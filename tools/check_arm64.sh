#!/usr/bin/env bash
# Build for 64-bit Arm with GCC's cross compiler, run the tests of the arithmetic under qemu-user, and
# fail where the product functions keep a vector in memory on the stack.
# Usage: tools/check_arm64.sh [--skip] WORK
# WORK keeps what is downloaded; a second run takes it from there. Needs root on a Debian of amd64 and
# python3.11 (the target's Python is Debian 12's). Where it cannot run, it exits with 2, or with
# --skip or GRU_C_SKIP_ARM64=1 says so and exits with 0.
set -euo pipefail
skip=${GRU_C_SKIP_ARM64:-0}
[ "${1:-}" = --skip ] && { skip=1; shift; }
[ $# = 1 ] || { sed -n '2,7s/^# //p' "$0"; exit 64; }
repo=$(realpath "$(dirname "$0")/..")
numpy=2.4.6 scipy=1.17.1
tests="test_activations test_gemm test_known_answers test_kernels test_numerics test_digests
test_reference_quantized"
int8=tests/test_quantize.py::test_the_bits_of_the_definition
products="gemm_f32 gemm_prefetch_f32 gemm_packed_f32 gemm_f64 gemm_prefetch_f64 gemm_packed_f64
gemm_bfloat16 gemm_prefetch_bfloat16"

cannot() {
    echo "check_arm64: cannot run here: $1"
    [ "$skip" = 1 ] && { echo "check_arm64: SKIPPED"; exit 0; }
    exit 2
}

require() {
    [ "$(uname -sm)" = "Linux x86_64" ] || cannot "not Linux on x86-64"
    type apt-get dpkg > /dev/null 2>&1 || cannot "no apt-get, no dpkg"
    grep -q '^VERSION_ID="12"' /etc/os-release || cannot "not Debian 12"
    command -v python3.11 > /dev/null || cannot "no python3.11"
    [ "$(id -u)" = 0 ] || cannot "not root, and packages have to be installed"
}

# The cross compiler and qemu on this machine; of arm64 a Python and its libraries, unpacked only.
debian() {
    if [ ! -e "$work/root.done" ]; then
        dpkg --add-architecture arm64
        apt-get update -q
        mkdir -p "$work/debs" "$work/root"
        (cd "$work/debs" && apt-get download -q {python3.11-minimal,libpython3.11-minimal,libpython3.11-stdlib,\
libpython3.11-dev,libc6,libgcc-s1,libstdc++6,zlib1g,libexpat1,libssl3,libffi8,libbz2-1.0,liblzma5,\
libsqlite3-0,libuuid1,libcrypt1}:arm64)
        for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
        touch "$work/root.done"
    fi
    type qemu-aarch64-static aarch64-linux-gnu-gcc > /dev/null 2>&1 || {
        dpkg --configure -a  # where an installation was cut off before, apt-get refuses to begin one
        apt-get update -q
        apt-get install -y -q --no-install-recommends \
            qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    }
}

# Wheels of arm64 for the tests, and an environment of this machine that builds.
wheels() {
    [ -e "$work/wheels.done" ] && return
    local tags=() tag
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
        tags+=(--platform "${tag}_aarch64")
    done
    python3.11 -m venv "$work/venv"
    "$work/venv/bin/pip" install -q 'cython>=3.1' 'setuptools>=77' numpy==$numpy scipy==$scipy
    "$work/venv/bin/pip" download -q --only-binary=:all: "${tags[@]}" --python-version 3.11 \
        --implementation cp --no-deps -d "$work/wheels" numpy==$numpy scipy==$scipy pytest pluggy \
        iniconfig packaging pygments hypothesis sortedcontainers attrs mpmath threadpoolctl
    local wheel
    for wheel in "$work"/wheels/*.whl; do python3.11 -m zipfile -e "$wheel" "$work/site"; done
    touch "$work/wheels.done"
}

# $work/python runs the Python of arm64; its children have to start through qemu, too.
launcher() {
    mkdir -p "$work/custom" "$work/sysconf"
    cat > "$work/python" <<END
#!/bin/sh
export PYTHONPATH=$work/lib:$work/site:$work/custom
exec qemu-aarch64-static -L $work/root $work/root/usr/bin/python3.11 "\$@"
END
    chmod +x "$work/python"
    echo "import sys; sys.executable = '$work/python'" > "$work/custom/sitecustomize.py"
    cp "$work/root/usr/lib/python3.11/_sysconfigdata__aarch64-linux-gnu.py" "$work/sysconf"
}

# The sources as they are here, committed or not. ARCHFLAGS has setup.py leave the x86 kernels out.
build() {
    local include="$work/root/usr/include" gcc=aarch64-linux-gnu-gcc
    rm -rf "$work/src" "$work/lib" "$work/tmp"
    mkdir "$work/src"
    (cd "$repo" && git ls-files -z --cached --others --exclude-standard |
        tar c --null --ignore-failed-read -T -) | tar x -C "$work/src"
    cd "$work/src"
    env _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu PYTHONPATH="$work/sysconf" \
        _PYTHON_HOST_PLATFORM=linux-aarch64 ARCHFLAGS=arm64 CC=$gcc LDSHARED="$gcc -shared" \
        CFLAGS="-DNDEBUG -fwrapv -I$include/python3.11 -I$include -I$work/site/numpy/_core/include" \
        "$work/venv/bin/python" setup.py -q build --build-lib "$work/lib" --build-temp "$work/tmp"
}

# A sum of a tile that lives in memory is loaded and stored in every step of the depth.
stack_accesses() {
    local object function count bad=0
    object=$(find "$work/tmp" -name kernels_baseline.o)
    for function in $products; do
        aarch64-linux-gnu-objdump -d --no-show-raw-insn --disassemble="$function" "$object" \
            > "$work/$function.s"
        grep -qE '\sfmla\s' "$work/$function.s" || { echo "$function: not found"; bad=1; continue; }
        count=$(grep -cE '\s(ldr|str|ldp|stp|ldur|stur)\s+q[0-9].*\[sp' "$work/$function.s" || true)
        echo "$function: $count vector accesses to the stack"
        [ "$count" = 0 ] || bad=1
    done
    return $bad
}

require
mkdir -p "$1"
work=$(realpath "$1")
debian
wheels
launcher
build
stack_accesses || { echo "check_arm64: a product keeps vectors in memory"; exit 1; }
"$work/python" -m gru_c info
# Left out: tests of time, and of the bits of BLAS, which promises none.
# shellcheck disable=SC2086
"$work/python" -m pytest -q -p no:cacheprovider $(printf 'tests/%s.py ' $tests) $int8 \
    -k "not stall and not never_threads and not (blas and (one_step or same_bits or depend_on_its_batch))"
