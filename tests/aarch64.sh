#!/usr/bin/env bash
# aarch64.sh DIR: the runtime's tests compiled for aarch64 (NEON kernels) and run under qemu, on Debian 12 x86-64.
# Debian's rustc-web is the compiler, because it has a standard library for arm64; it is unpacked into DIR, not installed. Needs the packages
# gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user.
set -euo pipefail
dir=$(mkdir -p "$1" && cd "$1" && pwd)
for program in aarch64-linux-gnu-gcc qemu-aarch64; do
  command -v "$program" > /dev/null || { echo "SKIPPED aarch64: $program is missing (apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)"; exit 0; }
done
if [ ! -x "$dir/rust/usr/bin/rustc" ]; then
  arm=(-oAPT::Architecture=arm64 -oAPT::Architectures=arm64 -oDir::State::Lists="$dir/lists")
  mkdir -p "$dir/lists/partial" "$dir/debs"
  apt-get "${arm[@]}" -qq update
  (cd "$dir/debs" && apt-get -qq download rustc-web libstd-rust-web-1.96 libstd-rust-web-dev libllvm22 &&
    apt-get -qq "${arm[@]}" download libstd-rust-web-dev:arm64)
  for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/rust"; done
fi
export LD_LIBRARY_PATH="$dir/rust/usr/lib/x86_64-linux-gnu"
cat > "$dir/rustc" <<EOF
#!/bin/sh
exec "$dir/rust/usr/bin/rustc" --sysroot "$dir/rust/usr" "\$@"
EOF
chmod +x "$dir/rustc"
export RUSTC="$dir/rustc" CARGO_TARGET_DIR="$dir/target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
cd "$(dirname "$0")/.."
# The C programs of the other tests want a C compiler for this machine.
cargo test --locked --target aarch64-unknown-linux-gnu -p llmar-sys --lib --test golden_llama --test recognizer --test checkpoint
