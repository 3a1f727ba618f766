/* SPDX-License-Identifier: BSD-2-Clause */
/* The books of a program that nobody runs: one mapping, and a store for what leaves it. */
#ifndef TMEM_RUN_TEST_H
#define TMEM_RUN_TEST_H

#include "frontswap/pager/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static inline struct space *test_space(struct run *run, enum run_evict evict, uint64_t start,
				       uint64_t pages)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct space *sp;
	tmem_pool pool;

	o.limit_bytes = 64 << 20;
	memset(run, 0, sizeof(*run));
	run->opts.cluster = 8;
	run->opts.evict = evict;
	assert_int_equal(tmem_host_create(&o, &run->host, NULL, 0), 0);
	assert_int_equal(tmem_client_create(run->host, "run", &run->client), 0);
	pool = tmem_pool_create(run->client, TMEM_POOL_PERSIST, 64);
	assert_true(pool >= 0);
	sp = space_create(run, -1, pool);
	assert_non_null(sp);
	assert_int_equal(space_add_segment(sp, start, start + pages * AGENT_PAGE), 0);
	return sp;
}

static inline void test_space_end(struct run *run, struct space *sp)
{
	space_free(sp);
	tmem_client_destroy(run->client);
	tmem_host_destroy(run->host);
}

#endif
