/* SPDX-License-Identifier: BSD-2-Clause */
/* Codecs in modules: one that works, and all the ways to be refused. */
#include "codec/codec.h"
#include "os/log.h"
#include "tmem_test.h"

#include <unistd.h>

static char logged[400];

static void sink(void *ctx, enum os_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	snprintf(logged, sizeof(logged), "%s", text);
}

static void unknown(void **state)
{
	struct codec_spec spec = {.level = 77};
	char err[400];

	(void)state;
	assert_int_equal(codec_parse("nosuch", &spec, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "unknown codec 'nosuch'; known: lz4"));
	/* A module that works is among what is known, though nobody has asked for it before. */
	assert_true(!strstr(err, ", lzo (levels") == !codec_find("lzo"));
	assert_null(codec_find("../toy"));
	assert_null(codec_find("/etc/passwd"));
	assert_int_equal(spec.level, 77);
}

/* Each is there, and is refused with its reason, in the log and to the caller. */
static void refused(void **state)
{
	static const struct {
		const char *name, *why;
	} bad[] = {
		{"toyabi", "another version"},	  {"toyname", "another name"},
		{"toyid", "not one of a module"}, {"toyhalf", "incomplete"},
		{"toynosym", "cannot be loaded"}, {"toynofile", "cannot be loaded"},
	};
	struct codec_spec spec = {.level = 77};
	char err[400];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		logged[0] = '\0';
		assert_int_equal(codec_parse(bad[i].name, &spec, err, sizeof(err)), -ENOENT);
		assert_non_null(strstr(err, bad[i].name));
		assert_non_null(strstr(err, bad[i].why));
		assert_non_null(strstr(err, "known: lz4"));
		assert_non_null(strstr(logged, bad[i].name));
		assert_null(codec_find(bad[i].name));
	}
	assert_int_equal(spec.level, 77);
	assert_null(codec_by_id(CODEC_ID_MODULE));
}

static void works(void **state)
{
	struct codec_set set = {0};
	struct codec_spec spec;
	char err[400], page[4096], packed[4096], back[4096];
	void *cctx, *dctx;

	(void)state;
	assert_int_equal(codec_parse("toy:2", &spec, err, sizeof(err)), 0);
	assert_int_equal(spec.level, 2);
	assert_int_equal(spec.codec->id, CODEC_ID_MODULE);
	assert_ptr_equal(codec_find("toy"), spec.codec);
	assert_ptr_equal(codec_by_id(CODEC_ID_MODULE), spec.codec);
	assert_ptr_equal(codec_at(codec_find("lzo") ? 5 : 4), spec.codec);
	assert_int_equal(codec_parse("toy:4", &spec, err, sizeof(err)), -ERANGE);
	assert_non_null(strstr(err, "toy (levels 0..3)"));
	/* The place is taken: a second one of that id is refused, the first stays. */
	assert_int_equal(codec_parse("toytwo", &spec, err, sizeof(err)), -ENOENT);
	assert_non_null(strstr(err, "taken"));
	assert_ptr_equal(codec_by_id(CODEC_ID_MODULE), codec_find("toy"));

	memset(page, 0x5a, sizeof(page));
	cctx = codec_set_cctx(&set, &spec);
	dctx = codec_set_dctx(&set, spec.codec);
	assert_non_null(cctx);
	assert_non_null(dctx);
	assert_int_equal(spec.codec->compress(cctx, page, 4096, packed, 4096), 4096);
	assert_int_equal(spec.codec->decompress(dctx, packed, 4096, back, 4096), 0);
	assert_memory_equal(page, back, 4096);
	codec_set_clear(&set);
}

/* A store whose pages a module packed; for lzo where it was built. */
static void stores(void **state)
{
	static const char *const name[] = {"toy", "lzo", "lzo:9"};

	(void)state;
	for (unsigned k = 0; k < 3; k++) {
		tmem_host_options o = TMEM_HOST_OPTIONS;
		struct test_page p;
		struct test_host t;
		tmem_oid oid = test_oid(1);

		if (k > 0 && !codec_find("lzo")) {
			print_message("no module of lzo here\n");
			continue;
		}
		o.codec = name[k];
		o.max_zsize = 4096;
		t = test_open(&o);
		for (uint64_t i = 0; i < 300; i++) {
			test_fill(&p, i, (unsigned)i % 200);
			assert_int_equal(tmem_put(t.client, t.pool, &oid, i, &p), 0);
		}
		for (uint64_t i = 0; i < 300; i++) {
			assert_int_equal(tmem_get(t.client, t.pool, &oid, i, &p), 0);
			test_check(&p, i, (unsigned)i % 200);
		}
		test_close(&t);
	}
}

/* An unknown codec is refused by the host, with the names; the old one is kept. */
static void host_refuses(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct test_host t;
	tmem_host *host;
	char err[300];

	(void)state;
	o.codec = "toyabi";
	assert_int_equal(tmem_host_create(&o, &host, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "another version"));
	assert_non_null(strstr(err, "zstd"));
	o.codec = "lz4";
	t = test_open(&o);
	assert_int_equal(tmem_host_set_codec(t.host, "toyabi"), -ENOENT);
	assert_int_equal(tmem_host_set_codec(t.host, "nosuch"), -ENOENT);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unknown), cmocka_unit_test(refused),	   cmocka_unit_test(works),
		cmocka_unit_test(stores),  cmocka_unit_test(host_refuses),
	};
	char path[600];
	FILE *f;

	/* What is no shared object at all. */
	snprintf(path, sizeof(path), "%s/tmem-codec-toynofile.so", getenv("TMEM_MODULE_DIR"));
	f = fopen(path, "w");
	if (f) {
		fputs("not a library\n", f);
		fclose(f);
	}
	os_log_set_sink(sink, NULL);
	return cmocka_run_group_tests_name("codec_module", tests, NULL, NULL);
}
