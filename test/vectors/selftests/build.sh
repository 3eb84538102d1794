#!/bin/sh
# Builds the objects from their C sources: needed only after a source has changed. CLANG names another clang.
set -eu
cd "$(dirname "$0")"
for source in ${*:-*.c}; do
	"${CLANG:-clang}" -O2 -g -target bpf -mcpu=v3 -Wall -Werror -Wno-unused-function \
		-Wno-unused-variable -Wno-unused-const-variable -fdebug-compilation-dir=. \
		-I../../../examples/include -c "$source" -o "${source%.c}.o"
done
