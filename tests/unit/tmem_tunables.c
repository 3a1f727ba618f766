/* SPDX-License-Identifier: BSD-2-Clause */
/* Tunables: in effect at once, bad values refused and the old kept, all in the manual. */
#include "tmem_test.h"

#include "os/file.h"
#include "os/mem.h"

#define MANY 50

static struct test_host t;
static char err[200];

static int set(tmem_client *c, const char *name, const char *value)
{
	return tmem_tunable_set(t.host, c, name, value, err, sizeof(err));
}

static void expect(tmem_client *c, const char *name, const char *value)
{
	char text[64];

	assert_int_equal(tmem_tunable_get(t.host, c, name, text, sizeof(text)), 0);
	assert_string_equal(text, value);
}

static int put(uint64_t i, unsigned noise)
{
	struct test_page page;
	tmem_oid oid = test_oid(1);

	test_fill(&page, i, noise);
	return tmem_put(t.client, t.pool, &oid, i, &page);
}

static void in_effect_at_once(void **state)
{
	t = test_open(NULL);
	assert_int_equal(put(1, 400), 0);
	assert_int_equal(set(NULL, "max_zsize", "2K"), 0);
	expect(NULL, "max_zsize", "2048");
	assert_int_equal(put(2, 400), -E2BIG);
	assert_int_equal(set(NULL, "store_raw", "1"), 0);
	assert_int_equal(put(2, 400), 0);
	assert_int_equal(test_stats(t.host).puts_raw, 1);
	assert_int_equal(set(NULL, "freeze", "1"), 0);
	assert_int_equal(put(3, 10), -EAGAIN);
	assert_int_equal(set(NULL, "freeze", "0"), 0);
	assert_int_equal(set(t.client, "client_freeze", "1"), 0);
	assert_int_equal(put(3, 10), -EAGAIN);
	assert_int_equal(set(t.client, "client_freeze", "0"), 0);
	assert_int_equal(set(t.client, "client_limit", "1K"), 0);
	assert_int_equal(put(3, 10), -EDQUOT);
	assert_int_equal(set(t.client, "client_limit", "0"), 0);
	assert_int_equal(set(NULL, "limit", "4096"), 0);
	assert_int_equal(test_stats(t.host).limit_bytes, 4096);
	assert_int_equal(put(3, 10), -ENOMEM);
	assert_int_equal(set(NULL, "limit", "1T"), 0);
	expect(NULL, "limit", "1099511627776");
	assert_int_equal(set(NULL, "codec", "zstd:1"), 0);
	expect(NULL, "codec", "zstd:1");
	assert_int_equal(put(3, 10), 0);
	assert_int_equal(set(t.client, "weight", "7"), 0);
	expect(t.client, "weight", "7");
	test_close(&t);
}

static void bad_values_keep_the_old(void **state)
{
	static const struct {
		const char *name, *value;
	} bad[] = {
		{"max_zsize", "0"},
		{"max_zsize", "4097"},
		{"max_zsize", "-1"},
		{"max_zsize", ""},
		{"max_zsize", "12x"},
		{"max_zsize", "5K"},
		{"accept_percent", "0"},
		{"accept_percent", "101"},
		{"accept_percent", "50K"},
		{"limit", "99999999999999999999"},
		{"limit", "18014398509481985K"},
		{"limit", " 1"},
		{"limit", "2000000000G"},
		{"store_raw", "2"},
		{"codec", "lz77"},
		{"codec", "zstd:1000"},
		{"overflow_rate", "5"},
		{"freeze", "yes"},
		{"idle_ms", "2592000001"},
		{"idle_ms", "1K"},
		{"pressure_ppm", "1000001"},
		{"recompress_rate", "1000001"},
		{"recompress_idle_ms", "999"},
		{"recompress_idle_ms", "86400001"},
		{"recompress_codec", "zstd:1000"},
		{"recompress_codec", "lz77"},
		{"recompress_codec", ""},
	};
	char before[64];

	t = test_open(NULL);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(tmem_tunable_get(t.host, NULL, bad[i].name, before, 64), 0);
		assert_int_equal(set(NULL, bad[i].name, bad[i].value), -EINVAL);
		assert_non_null(strstr(err, "allowed is"));
		expect(NULL, bad[i].name, before);
	}
	assert_int_equal(set(t.client, "weight", "0"), -EINVAL);
	assert_non_null(strstr(err, "1 to 10000"));
	expect(t.client, "weight", "100");
	assert_int_equal(set(NULL, "speed", "1"), -ENOENT);
	assert_non_null(strstr(err, " max_zsize"));
	assert_int_equal(set(NULL, "weight", "1"), -ENOENT);
	assert_int_equal(set(t.client, "limit", "1"), -ENOENT);
	assert_int_equal(tmem_tunable_get(t.host, NULL, "codec", before, 2), -ENOSPC);
	assert_int_equal(tmem_tunable_get(t.host, NULL, "speed", before, 64), -ENOENT);
	test_close(&t);
}

/* What is read can be set; and the manual has a row for each. */
static void all_of_them(void **state)
{
	char *manual = os_file_slurp(TMEM_DOCS "/tunables.md", 1 << 20, NULL), text[64];
	tmem_tunable k[MANY];
	int n = tmem_tunable_list(k, MANY);

	assert_non_null(manual);
	assert_in_range(n, 10, MANY);
	t = test_open(NULL);
	for (int i = 0; i < n; i++) {
		tmem_client *c = strcmp(k[i].of, "client") == 0 ? t.client : NULL;
		char row[300];

		snprintf(row, sizeof(row), "\n| `%s` | %s | %s | %s |", k[i].name, k[i].of,
			 k[i].unit, k[i].range);
		if (!strstr(manual, row))
			fail_msg("docs/tunables.md has no row \"%s\"", row + 1);
		assert_int_equal(tmem_tunable_get(t.host, c, k[i].name, text, sizeof(text)), 0);
		if (strcmp(k[i].name, "overflow_rate") != 0)
			assert_int_equal(set(c, k[i].name, text), 0);
	}
	os_free(manual);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_effect_at_once),
		cmocka_unit_test(bad_values_keep_the_old),
		cmocka_unit_test(all_of_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
