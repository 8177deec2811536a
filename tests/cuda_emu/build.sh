#!/usr/bin/env bash
# build.sh OUTDIR: stand-ins for libcuda, libnvrtc and libcublasLt, made anew when a source is newer. Two processes may run it at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kernels=$(cd "$here/../../llmar-sys/kernels" && pwd)
out=$1
mkdir -p "$out"
exec 9> "$out/lock"
flock 9

# Every kernel in the order of names, as the runtime's program has them, and what they are to be recognised by.
(cd "$kernels" && for file in *.cu; do echo "#include \"$file\""; done) > "$out/kernels.inc.new"
(
  cd "$kernels"
  echo 'const struct { const char* name; size_t bytes; } SOURCES[] = {'
  for file in *.cu *.cuh; do echo "    {\"$file\", $(wc -c < "$file")},"; done
  echo '};'
) > "$out/sources.inc.new"
for file in kernels.inc sources.inc; do
  cmp -s "$out/$file.new" "$out/$file" || cp "$out/$file.new" "$out/$file"
  rm "$out/$file.new"
done

flags=(-std=c++17 -O2 -g1 -fno-strict-aliasing -ffp-contract=off -Wall -Wno-unknown-pragmas -Wno-unused-function -Wno-unused-variable
  -DLLMAR_EMULATED -fPIC -shared -fvisibility=hidden -pthread -I "$kernels" -I "$here" -I "$out")
library() { # NAME SOURCES...
  local name=$1
  shift
  if [ ! -e "$out/$name" ] || [ -n "$(find "$here" "$kernels" "$out/kernels.inc" "$out/sources.inc" -newer "$out/$name" -type f -print -quit)" ]; then
    c++ "${flags[@]}" -Wl,-soname,"$name" -o "$out/$name.new" "${@/#/$here/}" -ldl
    mv "$out/$name.new" "$out/$name"
  fi
}
library libcuda.so kernels.cpp driver.cpp &
library libnvrtc.so nvrtc.cpp
library libcublasLt.so cublaslt.cpp
wait %1
