/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages that say what they are, for tests of the engine. */
#ifndef TMEM_TEST_H
#define TMEM_TEST_H

#include "tmem/tmem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct test_page {
	uint64_t word[TMEM_PAGE_SIZE / 8];
};

static inline uint64_t test_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* A page of its own for each seed; random in `noise` of 512 words, else compressible. */
static inline void test_fill(struct test_page *p, uint64_t seed, unsigned noise)
{
	uint64_t r = test_mix(seed);

	for (unsigned i = 0; i < 512; i++) {
		if (i < noise)
			r = test_mix(r);
		p->word[i] = i < noise ? r : (seed & 0xff) << 32 | (i & 7);
	}
	p->word[0] = seed;
}

static inline void test_check(const struct test_page *p, uint64_t seed, unsigned noise)
{
	struct test_page want;

	test_fill(&want, seed, noise);
	assert_memory_equal(p, &want, sizeof(want));
}

/*
 * Records, much in common between pages and little within one: what dictionaries
 * are for. `style`: pages of another kind.
 */
static inline void test_record(struct test_page *p, uint64_t seed, unsigned style)
{
	char *at = (char *)p->word, *end = at + sizeof(p->word);
	uint64_t r = test_mix(seed);

	memset(p, 0, sizeof(*p));
	while (end - at > 96) {
		unsigned k;

		r = test_mix(r);
		k = (unsigned)(r % 150) + style * 1000;
		at += sprintf(at, "{\"id\":%u,\"field_%u\":\"value-%x\",", k * 7919, k,
			      k * 2654435761u);
		memcpy(at, &r, 5);
		at += 5;
	}
	p->word[511] = seed;
}

static inline tmem_oid test_oid(uint64_t a)
{
	return (tmem_oid){{a, a >> 32, 7}};
}

/* One host with one client, and one pool. */
struct test_host {
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool;
};

static inline struct test_host test_open(const tmem_host_options *o)
{
	struct test_host t;
	char err[200];

	assert_int_equal(tmem_host_create(o, &t.host, err, sizeof(err)), 0);
	assert_int_equal(tmem_client_create(t.host, "test", &t.client), 0);
	t.pool = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 0);
	assert_true(t.pool >= 0);
	return t;
}

static inline tmem_stats test_stats(tmem_host *h)
{
	tmem_stats s = {.size = sizeof(s)};

	assert_int_equal(tmem_host_stats(h, &s), 0);
	return s;
}

/* Everything adds up, and goes. */
static inline void test_close(struct test_host *t)
{
	assert_int_equal(tmem_host_verify(t->host, 1), 0);
	tmem_client_destroy(t->client);
	assert_int_equal(tmem_host_verify(t->host, 1), 0);
	assert_int_equal(test_stats(t->host).pages, 0);
	assert_int_equal(test_stats(t->host).zpages, 0);
	tmem_host_destroy(t->host);
}

#endif
