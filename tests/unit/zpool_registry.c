/* SPDX-License-Identifier: BSD-2-Clause */
/* The registry of zpool drivers: names, modules, use counts, and what is common to all drivers. */
#include "alloc/zbud.h"
#include "alloc/zsmalloc.h"
#include "os/log.h"
#include "os/thread.h"
#include "tmem/tmem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char logged[400], names[256];

static void sink(void *ctx, enum os_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	snprintf(logged, sizeof(logged), "%s", text);
}

static const char *known(void)
{
	return zpool_names(names, sizeof(names));
}

static void test_unknown(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct frames f;
	struct zpool *zp = (struct zpool *)&f;
	tmem_host *host;
	char err[300];

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(zpool_create("nosuch", &f, NULL, NULL, &zp), -ENOENT);
	assert_null(zp);
	assert_null(zpool_find("../tmem-zpool-toypool"));
	assert_null(zpool_find(""));
	assert_int_equal(zpool_unregister("nosuch"), -ENOENT);
	/* No silent fallback: the caller learns which there are. */
	o.zpool = "nosuch";
	assert_int_equal(tmem_host_create(&o, &host, err, sizeof(err)), -EINVAL);
	assert_string_equal(err, "unknown allocator 'nosuch'; known: zsmalloc, zbud");
}

static void test_register(void **state)
{
	struct zpool_ops ops = zbud_ops, bad;
	struct frames f;

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(zpool_register(&zbud_ops), -EEXIST);
	ops.type = "other-1_a";
	assert_int_equal(zpool_register(&ops), 0);
	assert_int_equal(zpool_register(&ops), -EEXIST);
	assert_string_equal(known(), "zsmalloc, zbud, other-1_a");
	assert_ptr_equal(zpool_find("other-1_a"), &ops);
	assert_int_equal(zpool_unregister("other-1_a"), 0);
	assert_null(zpool_find("other-1_a"));
	assert_int_equal(zpool_unregister("other-1_a"), -ENOENT);
	for (unsigned i = 0; i < 4; i++) {
		static const char *const name[] = {"", "UPPER", "a/b", NULL};

		bad = ops;
		bad.type = name[i];
		assert_int_equal(zpool_register(&bad), -EINVAL);
	}
	bad = ops;
	bad.verify = NULL;
	assert_int_equal(zpool_register(&bad), -EINVAL);
	assert_int_equal(zpool_register(NULL), -EINVAL);
	assert_string_equal(known(), "zsmalloc, zbud");
}

static void test_table_full(void **state)
{
	static struct zpool_ops ops[20];
	static char name[20][8];
	unsigned n = 0;
	int ret;

	(void)state;
	for (;; n++) {
		snprintf(name[n], sizeof(name[n]), "d%u", n);
		ops[n] = zbud_ops;
		ops[n].type = name[n];
		ret = zpool_register(&ops[n]);
		if (ret)
			break;
	}
	assert_int_equal(ret, -ENOMEM);
	assert_int_equal(n, 14);
	while (n-- > 0)
		assert_int_equal(zpool_unregister(name[n]), 0);
}

/* A driver that pools use stays; with the last of them gone it may go. */
static void test_in_use(void **state)
{
	struct zpool *a, *b;
	struct frames f;

	(void)state;
	frames_init(&f, 0);
	assert_int_equal(zpool_create("zbud", &f, NULL, NULL, &a), 0);
	assert_int_equal(zpool_create("zbud", &f, NULL, NULL, &b), 0);
	assert_int_equal(zpool_unregister("zbud"), -EBUSY);
	zpool_destroy(a);
	assert_int_equal(zpool_unregister("zbud"), -EBUSY);
	assert_ptr_equal(zpool_find("zbud"), &zbud_ops);
	zpool_destroy(b);
	assert_int_equal(zpool_unregister("zbud"), 0);
	assert_int_equal(zpool_create("zbud", &f, NULL, NULL, &a), -ENOENT);
	assert_int_equal(zpool_register(&zbud_ops), 0);
	/* A creation that fails is no use. */
	frames_init(&f, 100);
	assert_int_equal(zpool_create("zbud", &f, NULL, NULL, &a), -ENOMEM);
	assert_int_equal(zpool_unregister("zbud"), 0);
	assert_int_equal(zpool_register(&zbud_ops), 0);
}

/* Made for a module: loaded when its name is asked for, unloaded when it is unregistered. */
static void test_module(void **state)
{
	struct zpool *zp;
	struct frames f;
	zpool_handle h;

	(void)state;
	assert_string_equal(known(), "zsmalloc, zbud");
	for (unsigned round = 0; round < 2; round++) {
		frames_init(&f, 0);
		assert_int_equal(zpool_create("toypool", &f, NULL, NULL, &zp), 0);
		assert_string_equal(zpool_type(zp), "toypool");
		assert_string_equal(known(), "zsmalloc, zbud, toypool");
		assert_int_equal(zpool_unregister("toypool"), -EBUSY);
		assert_int_equal(zpool_malloc(zp, 100, &h), 0);
		memset(zpool_map_mode(zp, h, ZPOOL_WO), 7, 100);
		zpool_unmap(zp, h);
		assert_int_equal(zpool_verify(zp), 0);
		zpool_free(zp, h);
		zpool_destroy(zp);
		assert_int_equal(frames_used(&f), 0);
		assert_int_equal(zpool_unregister("toypool"), 0);
		assert_string_equal(known(), "zsmalloc, zbud");
	}
}

/* A module that is there and cannot be used: its reason is logged, nothing is registered. */
static void test_module_refused(void **state)
{
	static const struct {
		const char *name, *why;
	} bad[] = {
		{"toyoldpool", "another version"},
		{"toyalias", "another name"},
		{"toypart", "incomplete"},
		{"toynothing", "tmem_zpool_module"},
	};

	(void)state;
	os_log_set_sink(sink, NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		logged[0] = '\0';
		assert_null(zpool_find(bad[i].name));
		if (!strstr(logged, bad[i].why))
			fail_msg("%s: \"%s\" is not in \"%s\"", bad[i].name, bad[i].why, logged);
		assert_string_equal(known(), "zsmalloc, zbud");
	}
	os_log_set_sink(NULL, NULL);
}

/* The host runs on a module's driver, too. */
static void test_host_on_module(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	tmem_oid oid = {{1, 2, 3}};
	static char page[TMEM_PAGE_SIZE], back[TMEM_PAGE_SIZE];
	tmem_client *client;
	tmem_host *host;
	tmem_pool pool;
	char err[200];

	(void)state;
	o.zpool = "toypool";
	assert_int_equal(tmem_host_create(&o, &host, err, sizeof(err)), 0);
	assert_int_equal(tmem_client_create(host, "c", &client), 0);
	pool = tmem_pool_create(client, TMEM_POOL_PERSIST, 0);
	for (unsigned i = 0; i < 100; i++) {
		memset(page, (int)i, sizeof(page));
		page[i] = 'x';
		assert_int_equal(tmem_put(client, pool, &oid, i, page), 0);
	}
	assert_int_equal(tmem_host_verify(host, 1), 0);
	assert_int_equal(tmem_get(client, pool, &oid, 99, back), 0);
	assert_memory_equal(page, back, sizeof(page));
	assert_int_equal(zpool_unregister("toypool"), -EBUSY);
	tmem_host_destroy(host);
	assert_int_equal(zpool_unregister("toypool"), 0);
}

/* Many threads ask for the same module at once: it is loaded once, and all get it. */
static void *load(void *arg)
{
	struct zpool *zp;
	struct frames f;

	(void)arg;
	for (unsigned i = 0; i < 50; i++) {
		frames_init(&f, 0);
		assert_int_equal(zpool_create("toypool", &f, NULL, NULL, &zp), 0);
		zpool_destroy(zp);
		(void)!zpool_unregister("toypool");
	}
	return NULL;
}

/* Each pool reserves more than 256 GiB of addresses, and TSan has 1.5 TiB for all. */
#ifdef __SANITIZE_THREAD__
#define LOADERS 2
#else
#define LOADERS 4
#endif

static void test_module_threads(void **state)
{
	os_thread t[LOADERS];

	(void)state;
	for (unsigned i = 0; i < LOADERS; i++)
		assert_int_equal(os_thread_create(&t[i], "load", load, NULL), 0);
	for (unsigned i = 0; i < LOADERS; i++)
		os_thread_join(t[i]);
	(void)!zpool_unregister("toypool");
	assert_string_equal(known(), "zsmalloc, zbud");
}

/* An owner that cannot evict: shrink is refused, and says so apart from "nothing to give". */
static void test_shrink_refused(void **state)
{
	static const struct zpool_owner no_evict = {0};
	static const char *const type[] = {"zsmalloc", "zbud"};
	struct zpool_stats st;
	struct frames f;
	struct zpool *zp;
	zpool_handle h;
	uint64_t got;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		frames_init(&f, 0);
		assert_int_equal(zpool_create(type[i / 2], &f, i % 2 ? &no_evict : NULL, NULL, &zp),
				 0);
		assert_int_equal(zpool_malloc(zp, 1000, &h), 0);
		zpool_set_movable(zp, h, true);
		got = 77;
		assert_int_equal(zpool_shrink(zp, 1, &got), -EOPNOTSUPP);
		assert_int_equal(got, 0);
		zpool_compact(zp, UINT64_MAX); /* and one without move() moves nothing */
		zpool_stats(zp, &st);
		assert_int_equal(st.objects, 1);
		assert_int_equal(zpool_total_pages(zp), st.frame_bytes / 4096);
		assert_int_equal(zpool_total_bytes(zp), frames_used(&f));
		zpool_free(zp, h);
		zpool_destroy(zp);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown),	       cmocka_unit_test(test_register),
		cmocka_unit_test(test_table_full),     cmocka_unit_test(test_in_use),
		cmocka_unit_test(test_module),	       cmocka_unit_test(test_module_refused),
		cmocka_unit_test(test_host_on_module), cmocka_unit_test(test_module_threads),
		cmocka_unit_test(test_shrink_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
