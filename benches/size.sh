#!/usr/bin/env bash
# size.sh PYTHON LIBRARY: bytes of libllmar.so as it is installed (stripped), and where they go, by the crate and module that each symbol names.
# Generic code counts for the first module in its name.
set -euo pipefail
python=$1 library=$2
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
strip -o "$stripped" "$library"
echo "$(stat -c %s "$stripped") bytes stripped"
nm -S -C "$library" | "$python" -c '
import re, sys
ours = re.compile(r"llmar::[a-z0-9_]+(?:::cpu(?:::avx512|::avx2|::portable)?)?")
others = re.compile(r"\b(serde_json|safetensors|serde_core|serde|sha2|half|memmap2|unicode_general_category|hashbrown|gimli|addr2line|object|miniz_oxide|rustc_demangle|std|core|alloc)::")
sizes = {}
for line in sys.stdin:
    parts = line.split(maxsplit=3)
    if len(parts) < 4 or parts[2] not in "tTrRdDwW":
        continue
    match = ours.search(parts[3]) or others.search(parts[3])
    name = match.group(0).rstrip(":") if match else ("C entries" if parts[3].startswith("llmar_") else "other symbols")
    sizes[name] = sizes.get(name, 0) + int(parts[1], 16)
for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
    print(f"{size:9d}  {name}")
print(f"{sum(sizes.values()):9d}  of symbols; the rest is string constants, unwind tables, relocations and the dynamic symbol table")
'
size -A "$stripped" | awk '$2 > 5000 && /^\./ { printf "%9d  section %s\n", $2, $1 }'
