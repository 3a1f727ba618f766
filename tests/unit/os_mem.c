/* SPDX-License-Identifier: BSD-2-Clause */
/* Blocks, reservations and their frames; files; log lines; clocks. */
#include "os/clock.h"
#include "os/file.h"
#include "os/log.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

static bool all_zero(const void *p, size_t n)
{
	const char *c = p;

	for (size_t i = 0; i < n; i++) {
		if (c[i])
			return false;
	}
	return true;
}

static size_t resident_frames(void *addr, size_t bytes)
{
	size_t frames = bytes / OS_FRAME_SIZE, n = 0;
	unsigned char *vec = malloc(frames);

	assert_non_null(vec);
	assert_int_equal(mincore(addr, bytes, vec), 0);
	for (size_t i = 0; i < frames; i++)
		n += vec[i] & 1;
	free(vec);
	return n;
}

static void blocks(void **state)
{
	static const size_t sizes[] = {1, 7, 64, 65, 4096, 100000};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char *a = os_alloc(sizes[i]);
		char *z = os_zalloc(sizes[i]);
		char *l = os_zalloc_aligned(sizes[i]);
		char *d = os_alloc_aligned(sizes[i]);

		assert_non_null(a);
		assert_non_null(z);
		assert_non_null(l);
		assert_true(all_zero(z, sizes[i]));
		assert_true(all_zero(l, sizes[i]));
		assert_int_equal((uintptr_t)l % 64, 0);
		assert_non_null(d);
		assert_int_equal((uintptr_t)d % 64, 0);
		memset(a, 1, sizes[i]);
		os_free(a);
		os_free(z);
		os_free(l);
		os_free(d);
	}
	os_free(NULL);
	assert_null(os_zalloc_aligned(SIZE_MAX - 8));
	assert_null(os_alloc_aligned(SIZE_MAX - 8));
}

/* Blocks freed below one that lives: the allocator alone keeps them. */
static void blocks_return(void **state)
{
	enum { BLOCKS = 2048, SIZE = 16000 };
	static void *p[BLOCKS];
	uint64_t full, freed, after;

	(void)state;
	for (size_t i = 0; i < BLOCKS; i++) {
		p[i] = os_alloc(SIZE);
		assert_non_null(p[i]);
		memset(p[i], 1, SIZE);
	}
	full = os_resident_bytes();
	for (size_t i = 0; i < BLOCKS - 1; i++)
		os_free(p[i]);
	freed = os_resident_bytes();
	os_blocks_return();
	after = os_resident_bytes();
	assert_int_equal(*(char *)p[BLOCKS - 1], 1);
	os_free(p[BLOCKS - 1]);
	print_message("%zu KiB, freed %zu, returned %zu\n", (size_t)full >> 10, (size_t)freed >> 10,
		      (size_t)after >> 10);
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* The allocators of sanitizers keep what is freed, to find its use. */
	assert_true(full > (size_t)BLOCKS * SIZE);
	assert_true(after < full - (size_t)BLOCKS * SIZE * 9 / 10);
#endif
}

static void reservation(void **state)
{
	static const size_t sizes[] = {OS_FRAME_SIZE, 2 * MIB, 5 * MIB + OS_FRAME_SIZE};

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char *p = os_reserve(sizes[i]);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % (2 * MIB), 0);
		assert_int_equal(resident_frames(p, sizes[i]), 0);
		p[0] = 1;
		p[sizes[i] - 1] = 2;
		assert_int_equal(resident_frames(p, sizes[i]), sizes[i] > OS_FRAME_SIZE ? 2 : 1);
		os_unreserve(p, sizes[i]);
	}
	os_unreserve(NULL, MIB);
	/* More than there can be: refused, no crash. */
	assert_null(os_reserve((SIZE_MAX >> 1) & ~(OS_FRAME_SIZE - 1)));
	assert_null(os_reserve(SIZE_MAX & ~(OS_FRAME_SIZE - 1)));
}

/* Address space far beyond memory costs nothing. */
static void reservation_large(void **state)
{
	size_t bytes = (size_t)1 << 40;
	char *p = os_reserve(bytes);

	(void)state;
	if (!p) /* an address space limit (ulimit -v, sanitizer) */
		skip();
	p[bytes / 2] = 1;
	assert_int_equal(resident_frames(p + bytes / 2, 2 * MIB), 1);
	os_unreserve(p, bytes);
}

static void frames_come_and_go(void **state)
{
	size_t bytes = 8 * MIB;
	char *p = os_reserve(bytes);

	(void)state;
	assert_non_null(p);
	assert_int_equal(os_frames_populate(p + MIB, 2 * MIB), 0);
	/* On a kernel without MADV_POPULATE_WRITE there are none yet. */
	memset(p + MIB, 0x5a, 2 * MIB);
	assert_int_equal(resident_frames(p, bytes), 2 * MIB / OS_FRAME_SIZE);
	os_frames_return(p + MIB, MIB);
	assert_int_equal(resident_frames(p, bytes), MIB / OS_FRAME_SIZE);
	assert_true(all_zero(p + MIB, MIB));
	for (size_t i = 2 * MIB; i < 3 * MIB; i++)
		assert_int_equal(p[i], 0x5a);
	os_unreserve(p, bytes);
}

static void returned_while_locked(void **state)
{
	char *p = os_reserve(4 * OS_FRAME_SIZE);

	(void)state;
	assert_non_null(p);
	memset(p, 1, 4 * OS_FRAME_SIZE);
	if (mlock(p, 4 * OS_FRAME_SIZE) != 0)
		skip();
	os_frames_return(p, 2 * OS_FRAME_SIZE);
	assert_true(all_zero(p, 2 * OS_FRAME_SIZE));
	assert_int_equal(p[2 * OS_FRAME_SIZE], 1);
	os_unreserve(p, 4 * OS_FRAME_SIZE);
}

static void resident_follows(void **state)
{
	size_t bytes = 64 * MIB;
	char *p = os_reserve(bytes);
	uint64_t before = os_resident_bytes(), full, after;

	(void)state;
	assert_non_null(p);
	if (before == 0)
		skip();
#ifdef __SANITIZE_THREAD__
	skip(); /* its shadow of what is written is resident too, several times as large */
#endif
	assert_int_equal(os_frames_populate(p, bytes), 0);
	memset(p, 1, bytes);
	full = os_resident_bytes();
	os_frames_return(p, bytes);
	after = os_resident_bytes();
	assert_true(full - before >= bytes);
	assert_true(full - before < bytes + 4 * MIB);
	assert_true(after < before + 4 * MIB);
	os_unreserve(p, bytes);
}

static void files(void **state)
{
	char path[] = "/tmp/tmem-unit-XXXXXX";
	char buf[64] = {0};
	size_t len = 99;
	char *text;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	os_file_close(fd);
	fd = os_file_open(path, O_RDWR, 0);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_int_equal(os_file_write(fd, "hello ", 6), 0);
	assert_int_equal(os_file_pwrite(fd, "world", 5, 6), 0);
	assert_int_equal(os_file_pread(fd, buf, sizeof(buf), 0), 11);
	assert_string_equal(buf, "hello world");
	assert_int_equal(os_file_pread(fd, buf, 4, 100), 0);

	text = os_file_slurp(path, 11, &len);
	assert_non_null(text);
	assert_int_equal(len, 11);
	assert_string_equal(text, "hello world");
	os_free(text);
	errno = 0;
	assert_null(os_file_slurp(path, 10, &len));
	assert_int_equal(errno, EFBIG);

	/* Over what is there: a file that has a size keeps its end. */
	assert_int_equal(os_file_write_text(path, "HELLO"), 0);
	assert_int_equal(os_file_pread(fd, buf, sizeof(buf), 0), 11);
	assert_string_equal(buf, "HELLO world");

	assert_int_equal(os_file_pwrite(fd, "x", 1, 2 * MIB), 0);
	/* Not every file system can punch. */
	if (os_file_punch(fd, 0, OS_FRAME_SIZE) == 0) {
		assert_int_equal(os_file_pread(fd, buf, 11, 0), 11);
		assert_true(all_zero(buf, 11));
	}
	os_file_close(fd);
	os_file_close(-1);

	assert_int_equal(os_file_pread(fd, buf, 1, 0), -EBADF);
	assert_int_equal(os_file_pwrite(fd, buf, 1, 0), -EBADF);
	unlink(path);
	assert_int_equal(os_file_open(path, O_RDONLY, 0), -ENOENT);
	assert_int_equal(os_file_write_text(path, "x"), -ENOENT);
	errno = 0;
	assert_null(os_file_slurp(path, 10, NULL));
	assert_int_equal(errno, ENOENT);
	/* A file without a size. */
	text = os_file_slurp("/proc/self/status", 64 * 1024, &len);
	assert_non_null(text);
	assert_int_equal(strlen(text), len);
	os_free(text);
}

static void file_full(void **state)
{
	int fd = os_file_open("/dev/full", O_WRONLY, 0);

	(void)state;
	if (fd < 0)
		skip();
	assert_int_equal(os_file_write(fd, "x", 1), -ENOSPC);
	assert_int_equal(os_file_pwrite(fd, "x", 1, 0), -ENOSPC);
	os_file_close(fd);
}

static char logged[2048];
static int lines;

static void sink(void *ctx, enum os_log_level level, const char *text)
{
	(void)level;
	assert_ptr_equal(ctx, logged);
	snprintf(logged, sizeof(logged), "%s", text);
	lines++;
}

static void log_lines(void **state)
{
	char longest[4000];

	(void)state;
	os_log_set_sink(sink, logged);
	os_log(OS_LOG_WARNING, "pool %d of %s", 7, "x\ny\x1b[0m");
	assert_string_equal(logged, "pool 7 of x?y?[0m");
	os_log(OS_LOG_INFO, "not shown");
	assert_int_equal(lines, 1);
	os_log_set_level(OS_LOG_INFO);
	errno = 42;
	os_log(OS_LOG_INFO, "shown");
	assert_int_equal(errno, 42);
	assert_string_equal(logged, "shown");
	memset(longest, 'a', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	os_log(OS_LOG_ERROR, "%s", longest);
	assert_int_equal(strlen(logged), 1023);
	os_log_set_level(OS_LOG_WARNING);
	os_log_set_sink(NULL, NULL);
}

static uint64_t fake_now(void *ctx)
{
	return *(uint64_t *)ctx;
}

static void clocks(void **state)
{
	uint64_t fake = 77, a, b;

	(void)state;
	a = os_clock_ns();
	os_sleep_ns(2 * 1000 * 1000);
	b = os_clock_ns();
	assert_true(b - a >= 2 * 1000 * 1000);
	a = os_clock_ns();
	b = os_clock_tick_ns();
	assert_true(b <= os_clock_ns() + OS_CLOCK_TICK_NS);
	os_sleep_ns(4 * OS_CLOCK_TICK_NS);
	assert_true(os_clock_tick_ns() > b && os_clock_tick_ns() > a);
	a = os_clock_thread_cpu_ns();
	b = os_clock_thread_cpu_ns();
	assert_true(b >= a);
	os_clock_replace(fake_now, &fake);
	assert_int_equal(os_clock_ns(), 77);
	assert_int_equal(os_clock_tick_ns(), 77);
	os_clock_replace(NULL, NULL);
	assert_int_not_equal(os_clock_ns(), 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks),
		cmocka_unit_test(blocks_return),
		cmocka_unit_test(reservation),
		cmocka_unit_test(reservation_large),
		cmocka_unit_test(frames_come_and_go),
		cmocka_unit_test(returned_while_locked),
		cmocka_unit_test(resident_follows),
		cmocka_unit_test(files),
		cmocka_unit_test(file_full),
		cmocka_unit_test(log_lines),
		cmocka_unit_test(clocks),
	};

	return cmocka_run_group_tests_name("os_mem", tests, NULL, NULL);
}
