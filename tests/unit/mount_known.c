/* SPDX-License-Identifier: BSD-2-Clause */
/* Identities of forgotten files: what is kept is found, whole; what has no room goes, whole. */
#include "cleancache/cleancache.h"
#include "os/mem.h"

#include "tmem_test.h"

static uint64_t charged, allowed = UINT64_MAX;

bool cc_charge(struct cc_mount *m, uint64_t bytes)
{
	if (charged + bytes > allowed)
		return false;
	charged += bytes;
	return true;
}

void cc_uncharge(struct cc_mount *m, uint64_t bytes)
{
	assert_true(charged >= bytes);
	charged -= bytes;
}

static struct cc_options options = {.size_bytes = 64u << 20};
static struct cc_mount mount = {.o = &options};

static struct cc_file file_of(uint64_t i)
{
	struct cc_file f = {
		.oid = {{i * 4096, i % 7, i % 3}}, .known = true, .stored = true, .young = i & 1};

	f.id = (struct cc_identity){i, (int64_t)i * 3, (int64_t)i * 5};
	return f;
}

static bool is_kept(uint64_t i)
{
	struct cc_file f = file_of(i), want = f;

	f.known = f.stored = f.young = false;
	memset(&f.id, 0, sizeof(f.id));
	cc_known_adopt(&mount, &f);
	if (!f.known)
		return false;
	assert_true(cc_identity_same(&f.id, &want.id));
	assert_true(f.stored);
	assert_int_equal(f.young, want.young);
	cc_known_keep(&mount, &f);
	return true;
}

static void begin(void)
{
	charged = 0;
	assert_int_equal(cc_known_open(&mount), 0);
}

static void keep(const struct cc_file *f)
{
	cc_known_keep(&mount, f);
}

static void end(void)
{
	cc_known_verify(&mount);
	cc_known_close(&mount);
	assert_int_equal(charged, 0);
}

static void all_are_found(void **state)
{
	begin();
	for (uint64_t i = 1; i <= 50000; i++) {
		struct cc_file f = file_of(i);

		keep(&f);
	}
	cc_known_verify(&mount);
	for (uint64_t i = 1; i <= 50000; i++)
		assert_true(is_kept(i));
	assert_false(is_kept(50001));
	end();
}

static void the_last_word_counts(void **state)
{
	struct cc_file f = file_of(9), g = file_of(9);

	begin();
	keep(&f);
	g.id.size = 77;
	keep(&g);
	cc_known_adopt(&mount, &f);
	assert_int_equal(f.id.size, 77);
	end();
}

/* Without pages, or with an identity that says nothing, there is nothing to keep. */
static void nothing_to_know(void **state)
{
	struct cc_file f = file_of(2), g = file_of(4);

	begin();
	f.known = false;
	g.stored = false;
	keep(&f);
	keep(&g);
	assert_false(is_kept(2));
	assert_false(is_kept(4));
	end();
}

/* It is the file's alone while that is there: what became of it only the file knows. */
static void taken(void **state)
{
	struct cc_file f = file_of(2);

	begin();
	keep(&f);
	cc_known_adopt(&mount, &f);
	assert_false(is_kept(2));
	f.known = false;
	keep(&f);
	assert_false(is_kept(2));
	f = file_of(4);
	keep(&f);
	f.passing = true; /* another process's number */
	f.known = false;
	cc_known_adopt(&mount, &f);
	assert_false(f.known);
	assert_false(is_kept(4));
	end();
}

/* What goes while a folder is dropped does not come in. */
static void dropped(void **state)
{
	struct cc_file f = file_of(2), g = file_of(4);

	begin();
	keep(&f);
	cc_known_drop_begin(&mount);
	assert_false(is_kept(2));
	keep(&f);
	assert_false(is_kept(2));
	cc_known_drop_end(&mount);
	assert_false(is_kept(2));
	keep(&g);
	assert_true(is_kept(4));
	end();
}

static void bounded(void **state)
{
	unsigned kept = 0;

	begin();
	allowed = charged + 300000;
	for (uint64_t i = 1; i <= 20000; i++) {
		struct cc_file f = file_of(i);

		keep(&f);
		assert_true(is_kept(i));
		/* The first one is asked for all the time, and stays. */
		assert_true(is_kept(1));
	}
	cc_known_verify(&mount);
	for (uint64_t i = 1; i <= 20000; i++)
		kept += is_kept(i);
	assert_in_range(kept, 1000, 10000);
	allowed = UINT64_MAX;
	end();
}

static int count_one(void *arg, const tmem_oid *oid, const struct cc_identity *id)
{
	assert_int_equal(oid->w[0], id->size * 4096);
	assert_false(id->size & 1); /* young ones are left out */
	return ++*(unsigned *)arg == 100;
}

static void each(void **state)
{
	unsigned n = 0;

	begin();
	for (uint64_t i = 1; i <= 150; i++) {
		struct cc_file f = file_of(i);

		keep(&f);
	}
	assert_int_equal(cc_known_each(&mount, count_one, &n), 0);
	assert_int_equal(n, 75);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_are_found),
		cmocka_unit_test(the_last_word_counts),
		cmocka_unit_test(nothing_to_know),
		cmocka_unit_test(taken),
		cmocka_unit_test(dropped),
		cmocka_unit_test(bounded),
		cmocka_unit_test(each),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
