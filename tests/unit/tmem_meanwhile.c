/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Saving and cloning a pool while pages, leaves and pools come and go: the copy has no
 * handle twice, has all that was there throughout, and leaves nothing behind.
 */
#include "tmem_test.h"

#include "os/thread.h"

#include <stdatomic.h>
#include <unistd.h>

#define OBJECTS 60
#define LEAF	64 /* pages */

static struct test_page page, back;
static char path[64];

static void new_path(void)
{
	int fd;

	strcpy(path, "/tmp/tmem-meanwhile-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
}

static void put(tmem_client *c, tmem_pool pool, uint64_t object, uint64_t i, uint64_t seed)
{
	tmem_oid oid = test_oid(object);

	test_fill(&page, seed, 100);
	assert_int_equal(tmem_put(c, pool, &oid, i, &page), 0);
}

static void expect(tmem_client *c, tmem_pool pool, uint64_t object, uint64_t i, uint64_t seed)
{
	tmem_oid oid = test_oid(object);

	assert_int_equal(tmem_get(c, pool, &oid, i, &back), 0);
	test_check(&back, seed, 100);
}

/* ---- between two leaves of a save --------------------------------------------------------- */

struct between {
	struct test_host *t;
	unsigned calls;
	tmem_pool made;
};

/* A pool that comes gets the slot of one that went, before those that are still to be saved. */
static int make_pool(void *arg, uint64_t pages, uint64_t total)
{
	struct between *b = arg;

	if (b->calls++ == 0) {
		b->made = tmem_pool_create(b->t->client, TMEM_POOL_PERSIST, 1);
		assert_true(b->made >= 0);
		put(b->t->client, b->made, 1, 1, 1);
	}
	return 0;
}

static void a_pool_that_comes_takes_no_place(void **state)
{
	struct test_host t = test_open(NULL);
	struct between b = {.t = &t};
	tmem_pool middle, last;
	tmem_pool_pair pair[4];
	tmem_save io = TMEM_SAVE;
	tmem_client *c;

	new_path();
	middle = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 1);
	last = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 1);
	for (uint64_t i = 0; i < 100; i++) {
		put(t.client, t.pool, 1, i, i);
		put(t.client, last, 2, i, i + 1000);
	}
	assert_int_equal(tmem_pool_destroy(t.client, middle), 0);
	io.progress = make_pool;
	io.arg = &b;
	assert_int_equal(tmem_client_save(t.client, path, &io), 0);
	assert_int_not_equal(b.calls, 0);
	io = TMEM_SAVE;
	io.pool = pair;
	io.pool_room = 4;
	assert_int_equal(tmem_client_restore(t.host, path, &io, &c), 0);
	assert_int_equal(io.pools, 2);
	assert_int_equal(pair[0].was, t.pool);
	assert_int_equal(pair[1].was, last);
	for (uint64_t i = 0; i < 100; i++) {
		expect(c, pair[0].is, 1, i, i);
		expect(c, pair[1].is, 2, i, i + 1000);
	}
	tmem_client_destroy(c);
	assert_int_equal(unlink(path), 0);
	test_close(&t);
}

static int end_pool(void *arg, uint64_t pages, uint64_t total)
{
	struct between *b = arg;

	if (b->calls++ == 0)
		assert_int_equal(tmem_pool_destroy(b->t->client, b->made), 0);
	return 0;
}

static void a_pool_that_goes_is_missed(void **state)
{
	struct test_host t = test_open(NULL);
	struct between b = {.t = &t};
	tmem_save io = TMEM_SAVE;

	new_path();
	assert_int_equal(unlink(path), 0);
	b.made = tmem_pool_create(t.client, TMEM_POOL_PERSIST, 1);
	put(t.client, t.pool, 1, 1, 1);
	put(t.client, b.made, 1, 1, 1);
	io.progress = end_pool;
	io.arg = &b;
	assert_int_equal(tmem_client_save(t.client, path, &io), -EBUSY);
	assert_non_null(strstr(io.error, "destroyed"));
	assert_int_equal(access(path, F_OK), -1);
	test_close(&t);
}

/* All objects go and come back, in another order: their leaves get each other's ids. */
static int change_places(void *arg, uint64_t pages, uint64_t total)
{
	struct between *b = arg;

	if (b->calls++ > 0)
		return 0;
	for (uint64_t o = 0; o < OBJECTS; o++) {
		tmem_oid oid = test_oid(o);

		assert_int_equal(tmem_invalidate_object(b->t->client, b->t->pool, &oid), 1);
	}
	for (uint64_t o = OBJECTS; o-- > 0;)
		put(b->t->client, b->t->pool, o * 7 % OBJECTS, 0, o * 7 % OBJECTS);
	return 0;
}

static void leaves_that_change_places(void **state)
{
	struct test_host t = test_open(NULL);
	struct between b = {.t = &t};
	tmem_save io = TMEM_SAVE;
	unsigned found = 0;
	tmem_client *c;

	new_path();
	for (uint64_t o = 0; o < OBJECTS; o++)
		put(t.client, t.pool, o, 0, o);
	io.progress = change_places;
	io.arg = &b;
	assert_int_equal(tmem_client_save(t.client, path, &io), 0);
	assert_int_not_equal(b.calls, 0);
	io = TMEM_SAVE;
	assert_int_equal(tmem_client_restore(t.host, path, &io, &c), 0);
	for (uint64_t o = 0; o < OBJECTS; o++) {
		tmem_oid oid = test_oid(o);

		if (tmem_get(c, 0, &oid, 0, &back) == 0) {
			test_check(&back, o, 100);
			found++;
		}
	}
	assert_int_equal(found, io.pages);
	tmem_client_destroy(c);
	assert_int_equal(unlink(path), 0);
	test_close(&t);
}

/* ---- beside a thread that writes ----------------------------------------------------------- */

static struct test_host world;
static _Atomic bool stop;

/* The pages of one leaf in all forms; objects of one page that come and go with their leaf. */
static void *write_pages(void *arg)
{
	static struct test_page many[8];
	tmem_oid oid = test_oid(3);
	uint64_t r = 1;

	while (!atomic_load(&stop)) {
		unsigned from = (unsigned)((r = test_mix(r)) % (LEAF - 7)),
			 n = 1 + (unsigned)(r >> 8) % 8;
		uint64_t o = 100 + (r >> 20) % OBJECTS;
		tmem_oid other = test_oid(o);

		for (unsigned i = 0; i < n; i++) {
			if (r >> 40 & 3)
				test_fill(&many[i], from + i, 60);
			else
				memset(&many[i], (int)(from + i), sizeof(many[i]));
		}
		if (n == 1)
			assert_int_equal(tmem_put(world.client, world.pool, &oid, from, many), 0);
		else
			assert_int_equal(
				tmem_put_cluster(world.client, world.pool, &oid, from, n, many), 0);
		test_fill(&many[0], o, 60);
		if (r >> 50 & 1)
			assert_int_equal(tmem_put(world.client, world.pool, &other, 0, many), 0);
		else
			(void)tmem_invalidate_object(world.client, world.pool, &other);
	}
	return NULL;
}

/* The leaf's are there, in one form or the other; of the objects, what is found is right. */
static void check_copy(tmem_client *c, tmem_pool pool)
{
	tmem_oid oid = test_oid(3), other;
	struct test_page want;

	for (unsigned i = 0; i < LEAF; i++) {
		assert_int_equal(tmem_get(c, pool, &oid, i, &back), 0);
		memset(&want, (int)i, sizeof(want));
		if (memcmp(&want, &back, sizeof(want)) != 0)
			test_check(&back, i, 60);
	}
	for (uint64_t o = 100; o < 100 + OBJECTS; o++) {
		other = test_oid(o);
		if (tmem_get(c, pool, &other, 0, &back) == 0)
			test_check(&back, o, 60);
	}
}

static void begin_writing(os_thread *t)
{
	tmem_oid oid = test_oid(3);

	world = test_open(NULL);
	for (unsigned i = 0; i < LEAF; i++) {
		test_fill(&page, i, 60);
		assert_int_equal(tmem_put(world.client, world.pool, &oid, i, &page), 0);
	}
	atomic_store(&stop, false);
	assert_int_equal(os_thread_create(t, "write", write_pages, NULL), 0);
}

static void end_writing(os_thread t)
{
	atomic_store(&stop, true);
	os_thread_join(t);
	test_close(&world);
}

static void saved_while_it_changes(void **state)
{
	tmem_client *c;
	os_thread t;

	new_path();
	begin_writing(&t);
	for (unsigned i = 0; i < 80; i++) {
		tmem_save io = TMEM_SAVE;

		assert_int_equal(tmem_client_save(world.client, path, &io), 0);
		if (tmem_client_restore(world.host, path, &io, &c))
			fail_msg("restore: %s", io.error);
		check_copy(c, 0);
		tmem_client_destroy(c);
	}
	end_writing(t);
	assert_int_equal(unlink(path), 0);
}

static void cloned_while_it_changes(void **state)
{
	os_thread t;

	begin_writing(&t);
	for (unsigned i = 0; i < 1000; i++) {
		tmem_pool copy = tmem_pool_clone(world.client, world.pool);

		assert_true(copy >= 0);
		if (i % 50 == 0)
			check_copy(world.client, copy);
		assert_int_equal(tmem_pool_destroy(world.client, copy), 0);
	}
	end_writing(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_that_comes_takes_no_place),
		cmocka_unit_test(a_pool_that_goes_is_missed),
		cmocka_unit_test(leaves_that_change_places),
		cmocka_unit_test(saved_while_it_changes),
		cmocka_unit_test(cloned_while_it_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
