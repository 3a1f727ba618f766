#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The C compiler on one large generated file: vfork and exec of several programs, a collector of
# its own, much memory allocated once and read again. The object files must be the same byte for byte.
. "$(dirname "$0")/lib.sh"
need_program gcc awk
need_run

n=$([ -n "$LONG" ] && echo 6000 || echo 500)
awk -v n="$n" 'BEGIN {
	print "struct s { int a, b; struct s *next; double d[4]; const char *name; };"
	for (i = 0; i < n; i++) {
		printf "static const char *const names%d[] = { \"alpha%d\", \"beta%d\", \"gamma%d\" };\n", i, i, i * 7, i * 13
		printf "int f%d(struct s *p, int x)\n{\n\tint r = x;\n\tfor (int i = 0; i < p->a; i++) {\n", i
		printf "\t\tswitch ((x + i) %% 7) {\n"
		for (k = 0; k < 7; k++)
			printf "\t\tcase %d: r += p->b * %d + (int)p->d[%d]; p = p->next; break;\n", k, i * k + 3, k % 4
		printf "\t\t}\n\t\tr ^= r << %d;\n\t\tp->name = names%d[r & 1];\n\t}\n", i % 11 + 1, i
		if (i > 2)
			printf "\tif (r > %d)\n\t\tr += f%d(p, r - %d);\n", i * 31, i - 1 - i % 3, i
		printf "\treturn r;\n}\n"
	}
}' >"$T/big.c"
cd "$T" || exit 1
# cc1 itself is the large process; the driver starts it, and the assembler after it.
half gcc sh -c 'gcc -g -O1 -c -o "$0.o" "$1" && sha256sum <"$0.o"' out "$T/big.c"
finish
