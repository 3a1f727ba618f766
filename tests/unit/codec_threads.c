/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One codec set per thread, freed at thread exit through a thread-local slot:
 * also for threads that never used theirs.
 */
#include "codec/codec.h"
#include "os/mem.h"
#include "os/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define PAGE	4096
#define CLUSTER 4
#define THREADS 4
#define ROUNDS	2000

static os_tls slot;
static _Atomic int cleared;

static void set_free(void *p)
{
	codec_set_clear(p);
	os_free(p);
	atomic_fetch_add(&cleared, 1);
}

static struct codec_set *set_of_thread(void)
{
	struct codec_set *s = os_tls_get(slot);

	if (!s) {
		s = os_zalloc(sizeof(*s));
		if (s && os_tls_set(slot, s) != 0) {
			os_free(s);
			s = NULL;
		}
	}
	return s;
}

static void make_page(uint64_t *page, uint64_t seed)
{
	for (size_t i = 0; i < CLUSTER * PAGE / 8; i++)
		page[i] = i % 3 ? seed % 1000 + i / 16 : seed * i;
}

static bool one_round(struct codec_set *s, uint64_t seed, uint64_t *page, uint64_t *back, char *z)
{
	static const struct {
		const char *name;
		int level;
	} kinds[] = {{"lz4", 1},   {"lz4", 8},	   {"zstd", 1}, {"zstd", -3},
		     {"lz4hc", 3}, {"deflate", 1}, {"none", 0}};
	struct codec_spec spec = {codec_find(kinds[seed % 7].name), kinds[seed % 7].level};
	size_t n = seed % 2 ? PAGE : (size_t)CLUSTER * PAGE;
	void *cctx = codec_set_cctx(s, &spec);
	void *dctx = codec_set_dctx(s, spec.codec);
	size_t size;

	make_page(page, seed);
	memset(back, 0, n);
	if (!cctx || !dctx)
		return false;
	size = spec.codec->compress(cctx, page, n, z, n);
	return size > 0 && spec.codec->decompress(dctx, z, size, back, n) == 0 &&
	       memcmp(back, page, n) == 0;
}

/* The number of rounds that went well. */
static void *work(void *arg)
{
	struct codec_set *s = set_of_thread();
	char *buf = os_alloc((size_t)3 * CLUSTER * PAGE);
	uintptr_t good = 0;

	for (uint64_t i = 0; s && buf && i < ROUNDS; i++)
		good += one_round(s, i * 7 + (uintptr_t)arg, (uint64_t *)(void *)buf,
				  (uint64_t *)(void *)(buf + (size_t)CLUSTER * PAGE),
				  buf + (size_t)2 * CLUSTER * PAGE);
	os_free(buf);
	return (void *)good;
}

static void *idle(void *arg)
{
	(void)arg;
	return set_of_thread();
}

static void *stranger(void *arg)
{
	return arg;
}

static void threads(void **state)
{
	pthread_t t[THREADS + 2];

	(void)state;
	assert_int_equal(os_tls_create(&slot, set_free), 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(os_thread_create(&t[i], "work", work, (void *)i), 0);
	assert_int_equal(os_thread_create(&t[THREADS], "idle", idle, NULL), 0);
	assert_int_equal(os_thread_create(&t[THREADS + 1], "stranger", stranger, NULL), 0);
	for (int i = 0; i < THREADS; i++) {
		void *good;

		assert_int_equal(pthread_join(t[i], &good), 0);
		assert_int_equal((uintptr_t)good, ROUNDS);
	}
	os_thread_join(t[THREADS]);
	os_thread_join(t[THREADS + 1]);
	assert_int_equal(atomic_load(&cleared), THREADS + 1);
	os_tls_delete(slot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads),
	};

	return cmocka_run_group_tests_name("codec_threads", tests, NULL, NULL);
}
