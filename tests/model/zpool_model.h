/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What zpool_model.c, which knows no driver, and what knows one share: objects have two kinds, and
 * a driver may have a judge, who is told of all that happens while one thread works alone and
 * checks that the driver chose the places that it promises to choose. zbud_judge.c is one.
 */
#ifndef TMEM_TESTS_ZPOOL_MODEL_H
#define TMEM_TESTS_ZPOOL_MODEL_H

#include "alloc/zpool.h"

#include <stdio.h>
#include <stdlib.h>

extern uint64_t model_seed;

#define check(cond)                                                                                \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s; seed %llu\n", __FILE__, __LINE__, #cond,       \
				(unsigned long long)model_seed);                                   \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* By the entry's number: known without asking anybody. */
static inline bool is_ephemeral(uint32_t n)
{
	return n % 3 == 0;
}

struct judge {
	void (*added)(zpool_handle h, uint32_t n, uint32_t size);
	/* malloc refused: was there really no room? */
	void (*refused)(uint32_t n, uint32_t size);
	/* Before it is freed. */
	void (*removed)(zpool_handle h, uint32_t size);
	/* Before the owner says yes. */
	void (*moved)(zpool_handle from, zpool_handle to, uint32_t size);
	void (*evicting)(zpool_handle h);
	/* pages: how many will be asked for. Returns how many to ask for. */
	uint64_t (*shrink_begins)(struct zpool *zp, uint64_t pages);
	void (*shrink_ended)(uint64_t got);
	/* At the end of the part with one thread: enough happened. */
	void (*ended)(void);
};

extern const struct judge zbud_judge;

#endif
