/* SPDX-License-Identifier: BSD-2-Clause */
/* What the kernel says of idle memory, as text and of a process that is known: ourselves. */
#include "frontswap/pager/ages.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static const char text[] =
	"55d0a000-55d0b000 r--p 00000000 fe:00 123 /usr/bin/a file\n"
	"Size:    4 kB\nRss:     4 kB\nReferenced:    4 kB\nVmFlags: rd mr\n"
	"55d0c000-55d1c000 rw-p 00000000 00:00 0                  [heap]\n"
	"Size:   64 kB\nRss:    48 kB\nPss:  48 kB\nReferenced:    8 kB\nAnonymous: 48 kB\n"
	"7f0000000000-7f0000100000 rw-p 00000000 00:00 0 \n"
	"Size:   1024 kB\nRss:   1024 kB\nReferenced:   1024 kB\n"
	"7f0000100000-7f0000200000 rw-s 00000000 00:01 77 /dev/zero (deleted)\n"
	"Rss:   1024 kB\nReferenced:   1024 kB\n"
	"7f0000200000-7f0000300000 rw-p 00000000 00:00 0 [anon:name of it]\n"
	"Rss:    16 kB\nReferenced:   20 kB\n"
	"7f0000300000-7f0000400000 rw-p 00000000 00:00 0 \n"
	"Rss:    0 kB\nReferenced:    0 kB\n"
	"7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0  [stack]\n"
	"Rss:    16 kB\nReferenced:   16 kB\n";

static struct ages *parsed(const char *t)
{
	FILE *f = fmemopen((void *)(uintptr_t)t, strlen(t), "r");
	struct ages *a = NULL;

	assert_non_null(f);
	assert_int_equal(ages_parse(f, &a), 0);
	fclose(f);
	return a;
}

static void test_text(void **state)
{
	struct ages *a = parsed(text);

	(void)state;
	assert_int_equal(a->n, 3);
	assert_int_equal(a->at[0].start, 0x55d0c000);
	assert_int_equal(a->at[0].resident, 12);
	assert_int_equal(a->at[0].referenced, 2);
	assert_int_equal(a->at[1].referenced, 256);
	assert_int_equal(a->at[2].referenced, 4); /* never more than there are */
	assert_int_equal(a->resident, 12 + 256 + 4);
	assert_int_equal(a->referenced, 2 + 256 + 4);
	assert_ptr_equal(ages_find(a, 0x55d0c000), &a->at[0]);
	assert_ptr_equal(ages_find(a, 0x55d1bfff), &a->at[0]);
	assert_null(ages_find(a, 0x55d1c000));
	assert_null(ages_find(a, 0x55d0bfff));
	assert_ptr_equal(ages_find(a, 0x7f0000250000), &a->at[2]);
	assert_null(ages_find(a, 0x7ffd00000000));
	ages_free(a);
}

static void test_many_and_broken(void **state)
{
	static char many[1 << 16];
	size_t at = 0;
	struct ages *a;

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		at += (size_t)snprintf(
			many + at, sizeof(many) - at,
			"%x000-%x000 rw-p 00000000 00:00 0 \nRss: 4 kB\nReferenced: 0 kB\n",
			0x1000 + 2 * i, 0x1001 + 2 * i);
	a = parsed(many);
	assert_int_equal(a->n, 300);
	assert_int_equal(a->at[299].resident, 1);
	ages_free(a);
	a = parsed("Referenced: 4 kB\nnonsense\n-\nRss: 7 kB\nReferenced: 4 kB\n1-2 rw\n");
	assert_int_equal(a->n, 0);
	ages_free(a);
}

/* A quarter of a mapping is touched in the window. */
static void test_self(void **state)
{
	size_t n = 64 << 20;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ages *a = NULL;
	struct age *m;
	int rc;

	(void)state;
	assert_ptr_not_equal(p, MAP_FAILED);
	madvise(p, n, MADV_NOHUGEPAGE);
	memset(p, 1, n);
	rc = ages_begin(getpid());
	if (rc == -ENOENT || rc == -EACCES) {
		munmap(p, n);
		skip();
	}
	assert_int_equal(rc, 0);
	for (size_t i = 0; i < n / 4; i += 4096)
		((volatile char *)p)[i]++;
	assert_int_equal(ages_read(getpid(), &a), 0);
	m = ages_find(a, (uintptr_t)p);
	assert_non_null(m);
	assert_in_range(m->resident, n / 4096, n / 4096 + 4096);
	/* Others of the same mapping (neighbours merge), and what a TLB entry hid. */
	assert_in_range(m->referenced, n / 4096 / 4 - 2048, n / 4096 / 4 + 2048);
	ages_free(a);
	munmap(p, n);
	assert_true(ages_read(0x3fffffff, &a) < 0);
	assert_true(ages_begin(0x3fffffff) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_many_and_broken),
		cmocka_unit_test(test_self),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
