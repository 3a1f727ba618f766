/* SPDX-License-Identifier: BSD-2-Clause */
/* The index, one behaviour a test, single thread. Races: tests/model/index_model.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "index_double.h"

#include "os/clock.h"
#include "os/thread.h"

#include <errno.h>

static struct frames frames;
static struct index *ix;
static struct index_pool *ip;
static struct pam_double pam;
static char owner;

static const struct index_oid oid_a = {{1, 2, 3}};
static const struct index_oid oid_b = {{1, 2, 4}};

static int setup(void **state)
{
	frames_init(&frames, 0);
	pam_double_init(&pam, 1 << 18);
	assert_int_equal(index_create(&frames, &ix), 0);
	assert_int_equal(index_pool_create(ix, 1, &pam_double_ops, &pam, &owner, &ip), 0);
	return 0;
}

static int teardown(void **state)
{
	struct index_stats st;

	assert_int_equal(index_verify(ip), 0);
	index_pool_destroy(ip);
	index_stats(ix, &st);
	assert_int_equal(st.objects, 0);
	assert_int_equal(st.nodes, 0);
	assert_int_equal(st.pages, 0);
	index_destroy(ix);
	assert_int_equal(frames_used(&frames), 0);
	pam_double_fini(&pam);
	return 0;
}

static int put(const struct index_oid *oid, uint64_t index, uint64_t version)
{
	struct pampd p = pam_double_new(&pam, oid, index, version);
	int err = index_put(ip, oid, index, 1, &p);

	if (err)
		pam_double_drop_one(&pam, p);
	return err;
}

/* The version found, or -1. */
static int64_t get(const struct index_oid *oid, uint64_t index)
{
	struct taken t = {0};
	struct pampd p;
	int err = index_get(ip, oid, index, &p, &t);

	if (err)
		return -1;
	assert_memory_equal(&t.oid, oid, sizeof(*oid));
	assert_true(t.index == index);
	return (int64_t)t.version;
}

static uint64_t nodes_now(void)
{
	struct index_stats st;

	index_stats(ix, &st);
	return st.nodes;
}

static void test_put_get_invalidate(void **state)
{
	assert_int_equal(get(&oid_a, 7), -1);
	assert_int_equal(put(&oid_a, 7, 1), 0);
	assert_int_equal(get(&oid_a, 7), 1);
	assert_int_equal(get(&oid_a, 8), -1);
	assert_int_equal(get(&oid_a, 7 + 64), -1);
	assert_int_equal(get(&oid_b, 7), -1);
	assert_int_equal(put(&oid_a, 7, 2), 0);
	assert_int_equal(atomic_load(&pam.drops), 1);
	assert_int_equal(get(&oid_a, 7), 2);
	assert_int_equal(index_pool_pages(ip), 1);
	assert_true(index_invalidate(ip, &oid_a, 7));
	assert_false(index_invalidate(ip, &oid_a, 7));
	assert_int_equal(get(&oid_a, 7), -1);
	assert_int_equal(nodes_now(), 0);
	assert_ptr_equal(index_pool_owner(ip), &owner);
}

static void test_immediate(void **state)
{
	struct pampd zero = {0, true}, ones = {~0ull, true}, p;

	assert_int_equal(index_put(ip, &oid_a, 0, 1, &zero), 0);
	assert_int_equal(index_put(ip, &oid_a, 63, 1, &ones), 0);
	assert_int_equal(index_get(ip, &oid_a, 0, &p, NULL), 0);
	assert_true(p.immediate && p.word == 0);
	assert_int_equal(index_get(ip, &oid_a, 63, &p, NULL), 0);
	assert_true(p.immediate && p.word == ~0ull);
	assert_int_equal(index_get(ip, &oid_a, 1, &p, NULL), 1);
	/* From immediate to ticket and back: the bit goes and comes. */
	assert_int_equal(put(&oid_a, 0, 5), 0);
	assert_int_equal(get(&oid_a, 0), 5);
	assert_int_equal(index_put(ip, &oid_a, 0, 1, &zero), 0);
	assert_int_equal(index_get(ip, &oid_a, 0, &p, NULL), 0);
	assert_true(p.immediate);
	assert_int_equal(index_pool_pages(ip), 2);
	assert_true(index_invalidate(ip, &oid_a, 0));
	assert_int_equal(index_get(ip, &oid_a, 0, &p, NULL), 1);
	assert_int_equal(atomic_load(&pam.immediate_drops), 2);
}

static void test_put_many(void **state)
{
	struct pampd p[64];
	unsigned i;

	assert_int_equal(put(&oid_a, 130, 99), 0);
	for (i = 0; i < 64; i++)
		p[i] = pam_double_new(&pam, &oid_a, 128 + i, i);
	assert_int_equal(index_put(ip, &oid_a, 128, 64, p), 0);
	assert_int_equal(atomic_load(&pam.drops), 1);
	assert_int_equal(index_pool_pages(ip), 64);
	for (i = 0; i < 64; i++)
		assert_int_equal(get(&oid_a, 128 + i), i);
}

/* A tree is exactly as high as its largest index wants, growing and shrinking. */
static void test_heights(void **state)
{
	static const struct {
		uint64_t index;
		unsigned height;
	} t[] = {{0, 1},	   {63, 1},	    {64, 2},	      {4095, 2},
		 {4096, 3},	   {1ull << 36, 7}, {1ull << 54, 10}, {(1ull << 60) - 1, 10},
		 {1ull << 60, 11}, {~0ull, 11}};
	unsigned i;

	for (i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
		assert_int_equal(put(&oid_a, t[i].index, i), 0);
		assert_int_equal(nodes_now(), t[i].height);
		assert_int_equal(index_verify(ip), 0);
		/* With a page at 0 as well: the common root is shared, the rest is two paths. */
		if (t[i].height > 1) {
			assert_int_equal(put(&oid_a, 0, 77), 0);
			assert_int_equal(nodes_now(), 2 * t[i].height - 1);
			assert_int_equal(index_verify(ip), 0);
			assert_int_equal(get(&oid_a, t[i].index), i);
			assert_true(index_invalidate(ip, &oid_a, t[i].index));
			assert_int_equal(nodes_now(), 1);
			assert_int_equal(index_verify(ip), 0);
			assert_int_equal(put(&oid_a, t[i].index, i), 0);
			assert_int_equal(get(&oid_a, 0), 77);
			assert_int_equal(index_verify(ip), 0);
			assert_true(index_invalidate(ip, &oid_a, 0));
		}
		assert_int_equal(get(&oid_a, t[i].index), i);
		assert_true(index_invalidate(ip, &oid_a, t[i].index));
		assert_int_equal(nodes_now(), 0);
	}
}

static void test_ranges(void **state)
{
	uint64_t i;

	for (i = 0; i < 1000; i++)
		assert_int_equal(put(&oid_a, i, i), 0);
	assert_int_equal(put(&oid_a, ~0ull, 1), 0);
	assert_int_equal(put(&oid_a, ~0ull - 1, 2), 0);
	assert_int_equal(put(&oid_a, 1ull << 40, 3), 0);
	assert_int_equal(put(&oid_b, 500, 4), 0);
	assert_int_equal(index_invalidate_range(ip, &oid_a, 10, 0), 0);
	assert_int_equal(index_invalidate_range(ip, &oid_a, 10, 1), 1);
	assert_int_equal(index_invalidate_range(ip, &oid_a, 10, 2), 1);
	assert_int_equal(index_invalidate_range(ip, &oid_a, 100, 800), 800);
	assert_int_equal(get(&oid_a, 99), 99);
	assert_int_equal(get(&oid_a, 100), -1);
	assert_int_equal(get(&oid_a, 899), -1);
	assert_int_equal(get(&oid_a, 900), 900);
	assert_int_equal(get(&oid_b, 500), 4);
	assert_int_equal(index_verify(ip), 0);
	/* A range whose end would overflow stops at the last index. */
	assert_int_equal(index_invalidate_range(ip, &oid_a, ~0ull - 1, 100), 2);
	assert_int_equal(index_invalidate_range(ip, &oid_a, 1000, ~0ull), 1);
	assert_int_equal(put(&oid_a, ~0ull, 1), 0);
	assert_int_equal(index_invalidate_object(ip, &oid_a), 198 + 1);
	assert_int_equal(index_invalidate_object(ip, &oid_a), 0);
	assert_int_equal(index_pool_pages(ip), 1);
}

static void test_flush(void **state)
{
	struct index_oid oid = {{0, 0, 0}};
	uint64_t i;

	for (i = 0; i < 3000; i++) {
		oid.w[0] = i / 3;
		assert_int_equal(put(&oid, i * i * i, i), 0);
	}
	assert_int_equal(index_flush(ip), 3000);
	assert_int_equal(index_flush(ip), 0);
	assert_int_equal(nodes_now(), 0);
	assert_int_equal(index_verify(ip), 0);
	assert_int_equal(put(&oid, 1, 1), 0);
	assert_int_equal(get(&oid, 1), 1);
}

static void test_cursors(void **state)
{
	struct index_oid oid;
	struct index_cursor c;

	index_lock(ip, &oid_a, 70, &c);
	assert_true(!c.leaf && !c.words && !c.immediate && !index_cursor_present(&c, 6));
	index_unlock(&c);
	/* A leaf made for nothing goes away again. */
	assert_int_equal(index_lock_create(ip, &oid_a, 70, &c), 0);
	assert_true(c.leaf && c.base == 64);
	assert_false(index_cursor_present(&c, 6));
	index_unlock(&c);
	assert_int_equal(nodes_now(), 0);

	assert_int_equal(index_lock_create(ip, &oid_a, 70, &c), 0);
	index_cursor_set(&c, 6, pam_double_new(&pam, &oid_a, 70, 8));
	index_cursor_set(&c, 7, (struct pampd){0, true});
	assert_true(index_cursor_present(&c, 7) && index_cursor_get(&c, 7).immediate);
	index_cursor_oid(&c, &oid);
	assert_memory_equal(&oid, &oid_a, sizeof(oid));
	index_unlock(&c);
	assert_int_equal(get(&oid_a, 70), 8);
	assert_int_equal(index_pool_pages(ip), 2);

	index_lock(ip, &oid_a, 64, &c);
	pam_double_drop_one(&pam, index_cursor_get(&c, 6));
	index_cursor_clear(&c, 6);
	index_cursor_clear(&c, 6);
	index_cursor_clear(&c, 7);
	index_unlock(&c);
	assert_int_equal(nodes_now(), 0);
	assert_int_equal(index_pool_pages(ip), 0);
}

static void test_lock_leaf(void **state)
{
	struct index_pool *other;
	struct index_cursor c;
	struct index_oid oid;
	arena_id leaf, id;

	assert_int_equal(put(&oid_b, 1000, 1), 0);
	index_lock(ip, &oid_b, 1000, &c);
	leaf = c.leaf;
	index_unlock(&c);

	assert_true(index_lock_leaf(ix, leaf, &c));
	assert_true(c.pool == ip && c.leaf == leaf && c.base == 960);
	index_cursor_oid(&c, &oid);
	assert_memory_equal(&oid, &oid_b, sizeof(oid));
	assert_true(index_cursor_present(&c, 40));
	index_unlock(&c);
	/* Interior nodes, ids beyond the arena, and no id at all are not leaves. */
	for (id = 0; id < 5000; id++) {
		bool found = index_lock_leaf(ix, id, &c);

		assert_int_equal(found, id == leaf);
		if (found)
			index_unlock(&c);
	}
	assert_false(index_lock_leaf(ix, UINT32_MAX, &c));

	/* Emptied from below: leaf and object go. */
	assert_true(index_lock_leaf(ix, leaf, &c));
	pam_double_drop_one(&pam, index_cursor_get(&c, 40));
	index_cursor_clear(&c, 40);
	index_unlock(&c);
	assert_int_equal(nodes_now(), 0);
	assert_false(index_lock_leaf(ix, leaf, &c));

	/* A stale id finds whoever has the node now, or nothing; never a dead pool. */
	assert_int_equal(index_pool_create(ix, 4, &pam_double_ops, &pam, NULL, &other), 0);
	assert_int_equal(index_put(other, &oid_a, 1, 1, &(struct pampd){9, true}), 0);
	for (id = 1; id < 100; id++) {
		if (!index_lock_leaf(ix, id, &c))
			continue;
		assert_ptr_equal(c.pool, other);
		index_unlock(&c);
	}
	index_pool_destroy(other);
	for (id = 1; id < 100; id++)
		assert_false(index_lock_leaf(ix, id, &c));
}

static arena_id contested;
static bool contested_found;

static void *lock_contested(void *arg)
{
	struct index_cursor c;

	contested_found = index_lock_leaf(ix, contested, &c);
	if (contested_found)
		index_unlock(&c);
	return NULL;
}

/*
 * Bottom-up, the leaf goes between the look without the lock and the one with
 * it: the walk is made to wait for a shard whose holder unlinks the leaf.
 */
static void test_lock_leaf_race(void **state)
{
	struct index_cursor c;
	os_thread t;
	int round;

	for (round = 0; round < 4; round++) {
		assert_int_equal(put(&oid_b, 1000, 1), 0);
		assert_int_equal(put(&oid_b, 1, 1), 0);
		index_lock(ip, &oid_b, 1000, &c);
		contested = c.leaf;
		assert_int_equal(os_thread_create(&t, "bottom-up", lock_contested, NULL), 0);
		os_sleep_ns(20000000);
		if (round & 1) {
			pam_double_drop_one(&pam, index_cursor_get(&c, 40));
			index_cursor_clear(&c, 40);
		}
		index_unlock(&c);
		/* The node may have another life at once; then only the id is stale. */
		if (round & 2)
			assert_int_equal(put(&oid_a, round, 1), 0);
		os_thread_join(t);
		if (!(round & 1))
			assert_true(contested_found);
		else if (!(round & 2))
			assert_false(contested_found);
		assert_int_equal(index_verify(ip), 0);
		index_flush(ip);
	}
}

static void test_take_error(void **state)
{
	struct pampd p;

	assert_int_equal(put(&oid_a, 1, 1), 0);
	atomic_store(&pam.take_error, -EBUSY);
	assert_int_equal(index_get(ip, &oid_a, 1, &p, NULL), -EBUSY);
	assert_int_equal(index_get(ip, &oid_a, 2, &p, NULL), 1);
	atomic_store(&pam.take_error, 0);
	assert_int_equal(get(&oid_a, 1), 1);
}

struct walked {
	unsigned leaves, stop_at;
	uint64_t pages;
	bool clear;
};

static int count_leaf(void *arg, struct index_cursor *c)
{
	struct walked *w = arg;
	struct index_oid oid;
	unsigned slot;

	index_cursor_oid(c, &oid);
	for (slot = 0; slot < INDEX_FANOUT; slot++) {
		struct ticket *t;

		if (!index_cursor_present(c, slot))
			continue;
		t = pam_double_ticket(&pam, index_cursor_get(c, slot));
		assert_memory_equal(&t->oid, &oid, sizeof(oid));
		assert_true(t->index == c->base + slot);
		w->pages++;
		if (w->clear) {
			pam_double_drop_one(&pam, index_cursor_get(c, slot));
			index_cursor_clear(c, slot);
		}
	}
	return ++w->leaves == w->stop_at ? 42 : 0;
}

static void test_walk(void **state)
{
	struct walked w = {0};
	struct index_oid oid = {{0, 0, 0}};
	uint64_t i;

	assert_int_equal(index_walk(ip, count_leaf, &w), 0);
	assert_int_equal(w.leaves, 0);
	for (i = 0; i < 2000; i++) {
		oid.w[2] = i % 500;
		assert_int_equal(put(&oid, i << (i % 53), 1), 0);
	}
	assert_int_equal(put(&oid, ~0ull, 1), 0);
	assert_int_equal(index_walk(ip, count_leaf, &w), 0);
	assert_int_equal(w.pages, index_pool_pages(ip));
	w = (struct walked){.stop_at = 3};
	assert_int_equal(index_walk(ip, count_leaf, &w), 42);
	assert_int_equal(w.leaves, 3);
	w = (struct walked){.clear = true};
	assert_int_equal(index_walk(ip, count_leaf, &w), 0);
	assert_int_equal(index_pool_pages(ip), 0);
	assert_int_equal(nodes_now(), 0);
}

/* At the limit: a put that needs memory fails and changes nothing; others go on. */
static void test_no_memory(void **state)
{
	uint64_t index, used;
	int err = 0;

	assert_int_equal(put(&oid_a, 3, 1), 0);
	frames_set_limit(&frames, frames_used(&frames));
	for (index = 4; !err; index += 64)
		err = put(&oid_a, index, index);
	assert_int_equal(err, -ENOMEM);
	index -= 64;
	assert_int_equal(get(&oid_a, index), -1);
	assert_int_equal(get(&oid_a, index - 64), (int64_t)index - 64);
	assert_int_equal(index_verify(ip), 0);
	/* What has its leaf is replaced, read, removed without memory. */
	used = frames_used(&frames);
	assert_int_equal(put(&oid_a, 3, 2), 0);
	assert_int_equal(put(&oid_a, 5, 3), 0);
	assert_int_equal(get(&oid_a, 3), 2);
	/* A far index wants many nodes: none of those got stays behind. */
	index = nodes_now();
	assert_true(index_invalidate(ip, &oid_a, 4 + 64));
	assert_int_equal(put(&oid_a, 1ull << 62, 1), -ENOMEM);
	assert_int_equal(put(&oid_b, 1ull << 62, 1), -ENOMEM);
	assert_int_equal(nodes_now(), index - 1);
	assert_int_equal(index_verify(ip), 0);
	assert_true(frames_used(&frames) <= used);
	frames_set_limit(&frames, 0);
	assert_int_equal(put(&oid_a, 1ull << 62, 1), 0);
}

/* pam->drop() is called with no lock held: it may use the index itself. */
static void drop_uses_index(void *arg)
{
	struct pampd p;

	assert_int_equal(index_get(ip, &oid_b, 0, &p, NULL), 0);
}

static void test_drop_unlocked(void **state)
{
	uint64_t i;

	assert_int_equal(put(&oid_b, 0, 1), 0);
	for (i = 0; i < 1000; i++)
		assert_int_equal(put(&oid_a, i * 3, i), 0);
	pam.in_drop = drop_uses_index;
	assert_int_equal(put(&oid_a, 0, 1), 0);
	assert_true(index_invalidate(ip, &oid_a, 0));
	atomic_store(&pam.drop_calls, 0);
	assert_int_equal(index_invalidate_object(ip, &oid_a), 999);
	assert_int_equal(atomic_load(&pam.drop_calls), (999 + INDEX_BATCH - 1) / INDEX_BATCH);
	pam.in_drop = NULL;
}

/* One shard with many objects: its table doubles several times and loses nobody. */
static void test_many_objects(void **state)
{
	struct index_oid oid = {{5, 0, 6}};
	uint64_t fullest, mean, i;

	for (i = 0; i < 20000; i++) {
		oid.w[1] = i;
		assert_int_equal(put(&oid, 1, i), 0);
		if (i % 1009 == 0)
			assert_int_equal(index_verify(ip), 0);
	}
	index_pool_spread(ip, &fullest, &mean);
	assert_int_equal(fullest, 20000);
	assert_int_equal(mean, 20000000);
	for (i = 0; i < 20000; i++) {
		oid.w[1] = i;
		assert_int_equal(get(&oid, 1), i);
		if (i % 3)
			assert_true(index_invalidate(ip, &oid, 1));
	}
	assert_int_equal(index_verify(ip), 0);
	for (i = 0; i < 20000; i += 3) {
		oid.w[1] = i;
		assert_int_equal(index_invalidate_object(ip, &oid), 1);
	}
}

/* The target is 24 bytes a page in a dense object; the design says 8.7 and a bit. */
static void test_metadata(void **state)
{
	struct pampd same = {0, true};
	struct index_stats before, st;
	uint64_t i, pages = 1 << 20;

	index_stats(ix, &before);
	for (i = 0; i < pages; i++)
		assert_int_equal(index_put(ip, &oid_a, i, 1, &same), 0);
	index_stats(ix, &st);
	assert_int_equal(st.pages, pages);
	assert_int_equal(st.nodes, pages / 64 + pages / 4096 + pages / 262144 + 1);
	assert_int_equal(st.objects, 1);
	assert_true(st.nodes_max >= st.nodes);
	assert_true((st.meta_bytes - before.meta_bytes) * 10 < pages * 90);
	assert_int_equal(index_invalidate_object(ip, &oid_a), pages);
	index_stats(ix, &st);
	/* One empty slab an arena may be kept. */
	assert_true(st.meta_bytes < before.meta_bytes + 256 * 1024);
}

static void test_pool_create(void **state)
{
	struct index_pool *p;

	assert_int_equal(index_pool_create(ix, 3, &pam_double_ops, &pam, NULL, &p), -EINVAL);
	assert_int_equal(index_pool_create(ix, 8192, &pam_double_ops, &pam, NULL, &p), -EINVAL);
	assert_int_equal(index_pool_create(ix, 4096, &pam_double_ops, &pam, NULL, &p), 0);
	index_pool_destroy(p);
	frames_set_limit(&frames, frames_used(&frames));
	assert_int_equal(index_pool_create(ix, 0, &pam_double_ops, &pam, NULL, &p), -ENOMEM);
	frames_set_limit(&frames, 0);
	index_pool_destroy(NULL);
	index_destroy(NULL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_put_get_invalidate),
		T(test_immediate),
		T(test_put_many),
		T(test_heights),
		T(test_ranges),
		T(test_flush),
		T(test_cursors),
		T(test_lock_leaf),
		T(test_lock_leaf_race),
		T(test_take_error),
		T(test_walk),
		T(test_no_memory),
		T(test_drop_unlocked),
		T(test_many_objects),
		T(test_metadata),
		T(test_pool_create),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
