/* SPDX-License-Identifier: BSD-2-Clause */
/* Arenas: addresses, zeroing, stale ids, return of frames, limits. */
#include "alloc/arena.h"
#include "os/mem.h"
#include "os/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Sanitizers keep shadow memory: what is resident says little then. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define RESIDENT_IS_TRUE 0
#else
#define RESIDENT_IS_TRUE 1
#endif

static const size_t item_sizes[] = {8, 24, 64, 200, 536, 600, 1000, 4096, 4104, 8200, 16384};
#define NR_SIZES (sizeof(item_sizes) / sizeof(item_sizes[0]))

/* The multiplication must divide exactly for every id there can be. */
static void test_geometry(void **state)
{
	(void)state;
	for (size_t i = 0; i < NR_SIZES; i++) {
		struct frames f;
		struct arena *a;
		const struct arena_geometry *g;

		frames_init(&f, 0);
		assert_int_equal(arena_create(&f, "test", item_sizes[i], 1u << 22, &a), 0);
		g = arena_geometry(a);
		assert_true(g->per_slab >= 2);
		assert_true((size_t)g->per_slab * g->item_bytes <= g->slab_bytes);
		for (uint64_t id = 1; id <= UINT32_MAX; id += id < 100000 ? 1 : 7919 * 13) {
			uint32_t n = (uint32_t)id - 1;
			size_t want = (size_t)(n / g->per_slab) * g->slab_bytes +
				      (size_t)(n % g->per_slab) * g->item_bytes;

			assert_ptr_equal(arena_ptr(a, (arena_id)id), g->base + want);
		}
		for (uint64_t edge = g->per_slab; edge < UINT32_MAX; edge *= 2) {
			size_t want = (size_t)(edge / g->per_slab) * g->slab_bytes +
				      (size_t)(edge % g->per_slab) * g->item_bytes;

			assert_ptr_equal(arena_ptr(a, (arena_id)edge + 1), g->base + want);
		}
		assert_false(arena_id_plausible(a, 0));
		assert_true(arena_id_plausible(a, 1u << 22));
		assert_false(arena_id_plausible(a, (1u << 22) + 1));
		arena_destroy(a);
		assert_int_equal(frames_used(&f), 0);
	}
}

static bool all_zero(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

static void test_items(void **state)
{
	enum { N = 3000 };
	arena_id *id = calloc(N, sizeof(*id));

	(void)state;
	for (size_t i = 0; i < NR_SIZES; i++) {
		size_t bytes = item_sizes[i];
		struct frames f;
		struct arena *a;

		frames_init(&f, 0);
		assert_int_equal(arena_create(&f, "test", bytes, N, &a), 0);
		for (uint32_t n = 0; n < N; n++) {
			id[n] = arena_alloc(a);
			assert_true(arena_id_plausible(a, id[n]));
			assert_true(all_zero(arena_ptr(a, id[n]), bytes));
			memset(arena_ptr(a, id[n]), (int)(n % 255) + 1, bytes);
		}
		assert_int_equal(arena_alloc(a), 0); /* max_items */
		assert_int_equal(arena_items(a), N);
		assert_int_equal(arena_bytes(a), frames_used(&f));
		assert_int_equal(arena_verify(a), 0);
		for (uint32_t n = 0; n < N; n++) {
			const unsigned char *p = arena_ptr(a, id[n]);

			assert_int_equal(p[0], n % 255 + 1);
			assert_int_equal(p[bytes - 1], n % 255 + 1);
		}
		for (uint32_t n = 0; n < N; n += 2)
			arena_free(a, id[n]);
		assert_int_equal(arena_verify(a), 0);
		for (uint32_t n = 0; n < N; n += 2) /* stale ids show zeros */
			assert_true(all_zero(arena_ptr(a, id[n]), bytes));
		for (uint32_t n = 0; n < N; n += 2)
			id[n] = arena_alloc(a);
		for (uint32_t n = 0; n < N; n++) {
			assert_true(id[n] != 0);
			arena_free(a, id[n]);
		}
		assert_int_equal(arena_verify(a), 0);
		assert_int_equal(arena_items(a), 0);
		arena_destroy(a);
		assert_int_equal(frames_used(&f), 0);
	}
	free(id);
}

/* Frames leave the process and the account when slabs come empty. */
static void test_return(void **state)
{
	enum { N = 100000 };
	arena_id *id = calloc(N, sizeof(*id));
	uint64_t full, resident;
	struct frames f;
	struct arena *a;

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(arena_create(&f, "test", 536, 1u << 24, &a), 0);
	for (uint32_t n = 0; n < N; n++)
		id[n] = arena_alloc(a);
	full = arena_bytes(a);
	resident = os_resident_bytes();
	assert_true(full < (uint64_t)N * 536 * 102 / 100);
	for (uint32_t n = 0; n < N; n++)
		arena_free(a, id[n]);
	assert_true(arena_bytes(a) < full / 100);
	assert_int_equal(frames_used(&f), arena_bytes(a));
	if (RESIDENT_IS_TRUE)
		assert_true(os_resident_bytes() < resident - full * 9 / 10);
	assert_true(all_zero(arena_ptr(a, id[N / 2]), 536));
	assert_int_equal(arena_verify(a), 0);
	/* At a slab's edge the last one stays: no call to the OS for each item. */
	for (int n = 0; n < 10; n++) {
		arena_id one = arena_alloc(a);

		full = arena_bytes(a);
		arena_free(a, one);
		assert_int_equal(arena_bytes(a), full);
	}
	arena_destroy(a);
	assert_int_equal(frames_used(&f), 0);
	free(id);
}

static void test_limit(void **state)
{
	struct frames f;
	struct arena *a;
	uint32_t n = 0;

	(void)state;
	frames_init(&f, 16);
	assert_int_not_equal(arena_create(&f, "test", 64, 1000, &a), 0);
	assert_null(a);
	assert_int_equal(frames_used(&f), 0);
	frames_init(&f, 256 << 10);
	assert_int_equal(arena_create(&f, "test", 64, 1u << 20, &a), 0);
	while (arena_alloc(a))
		n++;
	assert_true(n > 3000 && n < 4096);
	assert_true(frames_used(&f) <= 256 << 10);
	assert_int_equal(arena_verify(a), 0);
	assert_int_equal(arena_items(a), n);
	for (arena_id id = 1; id <= n; id++)
		arena_free(a, id);
	assert_int_equal(arena_items(a), 0);
	arena_destroy(a);
	assert_int_equal(frames_used(&f), 0);
}

static struct arena *shared;

static void *churn(void *arg)
{
	enum { HELD = 500 };
	uint64_t seed = (uintptr_t)arg * 0x9e3779b97f4a7c15ull + 1, bad = 0;
	arena_id held[HELD] = {0};

	for (unsigned i = 0; i < 200000; i++) {
		unsigned k;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		k = (unsigned)(seed >> 40) % HELD;
		if (held[k]) {
			uint64_t *p = arena_ptr(shared, held[k]);

			bad += p[0] != held[k] || p[7] != (uintptr_t)arg;
			arena_free(shared, held[k]);
			held[k] = 0;
		} else {
			held[k] = arena_alloc(shared);
			bad += !all_zero(arena_ptr(shared, held[k]), 64);
			((uint64_t *)arena_ptr(shared, held[k]))[0] = held[k];
			((uint64_t *)arena_ptr(shared, held[k]))[7] = (uintptr_t)arg;
		}
	}
	for (unsigned k = 0; k < HELD; k++)
		if (held[k])
			arena_free(shared, held[k]);
	return (void *)(uintptr_t)bad;
}

static void *churn_report(void *arg)
{
	uint64_t *bad = arg;

	*bad = (uintptr_t)churn((void *)(uintptr_t)*bad);
	return NULL;
}

static void test_threads(void **state)
{
	uint64_t bad[4] = {1, 2, 3, 4};
	struct frames f;
	os_thread t[4];

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(arena_create(&f, "test", 64, 1u << 20, &shared), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(os_thread_create(&t[i], "churn", churn_report, &bad[i]), 0);
	for (int i = 0; i < 4; i++) {
		os_thread_join(t[i]);
		assert_int_equal(bad[i], 0);
	}
	assert_int_equal(arena_items(shared), 0);
	assert_int_equal(arena_verify(shared), 0);
	arena_destroy(shared);
	assert_int_equal(frames_used(&f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_geometry), cmocka_unit_test(test_items),
		cmocka_unit_test(test_return),	 cmocka_unit_test(test_limit),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
