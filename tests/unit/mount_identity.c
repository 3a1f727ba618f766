/* SPDX-License-Identifier: BSD-2-Clause */
/* When a look is settled: the ticks of time stamps, clocks that disagree, stamps set by hand. */
#include "cleancache/cleancache.h"

#include "tmem_test.h"

#include <fcntl.h>
#include <unistd.h>

#define SECOND 1000000000ll
#define NOW    (1800000000ll * SECOND + 123456789)

static struct cc_look look_of(int64_t mtime, int64_t ctime)
{
	return (struct cc_look){.id = {1, mtime, ctime}, .taken_ns = NOW};
}

static bool settled(int64_t mtime, int64_t ctime, uint64_t grain)
{
	struct cc_look l = look_of(mtime, ctime);

	return cc_look_is_settled(&l, grain);
}

static void ticks(void **state)
{
	assert_false(settled(NOW, NOW, 20000000));
	assert_false(settled(NOW - 20000000, NOW - 20000000, 20000000));
	assert_true(settled(NOW - 20000001, NOW - 20000001, 20000000));
	/* The later of the two counts: a change of mode, a time set back by hand. */
	assert_false(settled(NOW - 100 * SECOND, NOW - 1000, 20000000));
	assert_false(settled(NOW - 1000, NOW - 100 * SECOND, 20000000));
}

static void whole_seconds(void **state)
{
	int64_t second = NOW / SECOND * SECOND;

	/* A clock of seconds: 20 ms say nothing. */
	assert_false(settled(second - SECOND, second - SECOND, 20000000));
	assert_true(settled(second - 3 * SECOND, second - 3 * SECOND, 20000000));
}

static void clocks_disagree(void **state)
{
	/* The source's is ahead: not before we get there. */
	assert_false(settled(NOW + SECOND, NOW + SECOND, 20000000));
	/* A modification in the future was set by hand; the change tells. */
	assert_true(settled(NOW + 1000 * SECOND, NOW - 5 * SECOND, 20000000));
	assert_false(settled(NOW + 1000 * SECOND, NOW, 20000000));
	/* On a network two seconds are reckoned with. */
	assert_false(settled(NOW - SECOND, NOW - SECOND, 2 * SECOND));
	assert_true(settled(NOW - 3 * SECOND, NOW - 3 * SECOND, 2 * SECOND));
}

/* Whoever sets the time of a modification back cannot set that of the change. */
static void each_of_three(void **state)
{
	struct cc_identity a = look_of(NOW, NOW).id, b = a;

	assert_true(cc_identity_same(&a, &b));
	b.ctime_ns++;
	assert_false(cc_identity_same(&a, &b));
	b = a;
	b.mtime_ns--;
	assert_false(cc_identity_same(&a, &b));
	b = a;
	b.size++;
	assert_false(cc_identity_same(&a, &b));
}

static void real_files(void **state)
{
	char path[] = "/tmp/tmem-identity-XXXXXX";
	int fd = mkstemp(path);
	struct cc_look a, b;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "one", 3), 3);
	assert_int_equal(cc_look_fd(fd, &a), 0);
	assert_int_equal(a.id.size, 3);
	assert_true(S_ISREG(a.st.st_mode));
	assert_int_equal(cc_look_at(AT_FDCWD, path, &b), 0);
	assert_true(cc_identity_same(&a.id, &b.id));
	assert_int_equal(cc_incarnation(fd, &a), cc_incarnation(fd, &b));
	usleep(50000);
	assert_int_equal(pwrite(fd, "two", 3, 0), 3);
	assert_int_equal(cc_look_fd(fd, &b), 0);
	assert_false(cc_identity_same(&a.id, &b.id));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(cc_look_at(AT_FDCWD, path, &b), -ENOENT);
	assert_true(cc_grain_ns(fd) >= 1000000);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ticks),	   cmocka_unit_test(whole_seconds),
		cmocka_unit_test(clocks_disagree), cmocka_unit_test(each_of_three),
		cmocka_unit_test(real_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
