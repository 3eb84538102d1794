#!/bin/sh
# Builds the BPF objects of the examples from their C sources. The objects are committed, so this is
# needed only after a source has changed. Needs clang with the BPF target; CLANG names another one.
#
#   examples/build.sh            all
#   examples/build.sh xdp/x.c    only the named sources, relative to examples/
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- xdp/*.c tracing/*.c smc/*.c svq/*.c
for source in "$@"; do
	# without the prefix map the objects would hold the path of the machine that built them
	"${CLANG:-clang}" -O2 -g -target bpf -Wall -Werror -Wno-unused-function -Wno-unused-variable \
		-Wno-unused-const-variable -fdebug-compilation-dir=. -Iinclude \
		-c "$source" -o "${source%.c}.o"
	echo "${source%.c}.o"
done
