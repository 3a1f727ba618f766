/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * e2e-corrupt: what its parts share. Each mode is a program in small that does
 * one of the things by which a pager can lose or confuse pages; corrupt.c says
 * which. A page that holds anything else than the program wrote ends it with
 * one line "WRONG PAGE" and exit code 1; anything else that fails, with 2.
 */
#ifndef TMEM_E2E_CORRUPT_H
#define TMEM_E2E_CORRUPT_H

#include "named_page.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MIB (1048576u / PAGE) /* pages of a mebibyte */

/* Memory whose every page is `version` of itself. */
struct mem {
	uint64_t *base;
	size_t pages;
	uint64_t place; /* of page 0; those behind it follow */
	uint64_t version;
};

struct mode {
	const char *name;
	void (*run)(unsigned rounds);
	unsigned rounds; /* of one run in test.sh */
};

extern const struct mode map_modes[], process_modes[], thread_modes[], call_modes[], row_modes[];
extern const char *self; /* path of this program */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);
void sleep_ms(unsigned ms);
uint64_t rnd(void); /* a thread's own sequence */

uint64_t *map_pages(size_t pages);
struct mem mem_make(size_t pages); /* mapped and filled */
struct mem mem_at(uint64_t *base, size_t pages);
void mem_fill(struct mem *m);
void mem_check(const struct mem *m, const char *where);

/* Walk through more memory than the limit allows: everything else goes out. */
void press(void);
/* The same by a thread of its own until press_stop(). */
void press_start(void);
void press_stop(void);

void wait_child(pid_t pid, const char *where);

#endif
