/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The law of pressure against a simulated machine: others want memory, the
 * store wants to grow, and what is missing makes tasks wait. And the reader of
 * the kernel's file.
 */
#include "tmem_test.h"

#include "os/pressure.h"
#include "zcache/zcache.h"

#include <unistd.h>

#define TARGET 1000u /* ppm */

struct machine {
	struct zc_pressure law;
	double memory, others, store; /* frames */
	double wants;		      /* frames a second that the store would grow by */
	uint64_t now_us, stall_us, most_ppm;
	unsigned shrinks;
};

/*
 * One second. Tasks wait the more the less is left: from 4 % of the memory
 * free downwards, steeply.
 */
static void second(struct machine *m)
{
	double free = (m->memory - m->others - m->store) / m->memory, ppm = 0;
	struct zc_pressure_in in;
	uint64_t frames;

	if (free < 0.04)
		ppm = (0.04 - free) * 40000;
	m->now_us += 1000000;
	m->stall_us += (uint64_t)ppm;
	m->most_ppm = ppm > (double)m->most_ppm ? (uint64_t)ppm : m->most_ppm;
	in = (struct zc_pressure_in){m->now_us, m->stall_us, (uint64_t)m->store, TARGET};
	frames = zc_pressure_step(&m->law, &in);
	assert_true(frames <= in.used_frames / 10);
	m->shrinks += frames > 0;
	m->store -= (double)frames;
	m->store += m->wants;
	if (m->law.ceiling_frames && m->store > (double)m->law.ceiling_frames)
		m->store = (double)m->law.ceiling_frames;
}

static struct machine new_machine(void)
{
	return (struct machine){.memory = 1e6, .others = 3e5, .store = 1e5, .now_us = 1000};
}

static void no_pressure_no_shrinking(void **state)
{
	struct machine m = new_machine();

	for (unsigned i = 0; i < 1000; i++)
		second(&m);
	assert_int_equal(m.shrinks, 0);
	assert_int_equal(m.law.ceiling_frames, 0);
}

/* Others take what the store has: it yields within a minute, and leaves the rest alone. */
static void it_yields(void **state)
{
	struct machine m = new_machine();

	m.store = 6e5;
	for (unsigned i = 0; i < 10; i++)
		second(&m);
	m.others = 8e5;
	for (unsigned i = 0; i < 60; i++)
		second(&m);
	assert_true(m.memory - m.others - m.store > 0);
	assert_true(m.store > 0.05e6); /* not more than was needed, by far */
	m.most_ppm = 0;
	m.shrinks = 0;
	for (unsigned i = 0; i < 600; i++)
		second(&m);
	assert_true(m.most_ppm < 2 * TARGET);
	assert_true(m.shrinks < 60);
}

/* A store that always wants more settles near the target, and does not swing. */
static void it_settles(void **state)
{
	struct machine m = new_machine();
	double least = 1e9, most = 0;

	m.wants = 5000;
	for (unsigned i = 0; i < 600; i++)
		second(&m);
	m.most_ppm = 0;
	m.shrinks = 0;
	for (unsigned i = 0; i < 3000; i++) {
		second(&m);
		least = m.store < least ? m.store : least;
		most = m.store > most ? m.store : most;
	}
	assert_true(most < least * 1.12);
	assert_true(least > 0.55e6); /* it has what the others leave */
	assert_true(m.most_ppm < 3 * TARGET);
	assert_true(m.shrinks < 3000 / 2);
}

/* Between half of the target and the target nothing moves. */
static void between_the_marks_it_holds(void **state)
{
	struct zc_pressure law = {0};
	uint64_t now = 1000, stall = 0, ceiling;
	struct zc_pressure_in in;

	for (unsigned i = 0; i < 3; i++) { /* three times the target */
		now += 1000000;
		stall += 3000;
		in = (struct zc_pressure_in){now, stall, 100000, TARGET};
		assert_int_equal(zc_pressure_step(&law, &in), i ? 3000 : 0);
	}
	assert_true(law.over);
	ceiling = law.ceiling_frames;
	assert_int_equal(ceiling, 97000);
	for (unsigned i = 0; i < 100; i++) {
		now += 1000000;
		stall += i % 2 ? 600 : 1000;
		in = (struct zc_pressure_in){now, stall, 97000, TARGET};
		assert_int_equal(zc_pressure_step(&law, &in), 0);
		assert_true(law.over);
		assert_int_equal(law.ceiling_frames, ceiling);
	}
	/* Below it, it lets the store grow, slowly, and in the end as it likes. */
	for (unsigned i = 0; i < 100; i++) {
		now += 1000000;
		stall += 400;
		in = (struct zc_pressure_in){now, stall, 97000, TARGET};
		assert_int_equal(zc_pressure_step(&law, &in), 0);
		assert_false(law.over);
		if (i == 0)
			assert_in_range(law.ceiling_frames, ceiling + 1, ceiling + ceiling / 40);
	}
	assert_int_equal(law.ceiling_frames, 0);
}

/* Too early, a counter that began anew, a target of nothing. */
static void odd_inputs(void **state)
{
	struct zc_pressure law = {0};
	struct zc_pressure_in in = {1000, 500, 10000, TARGET};

	assert_int_equal(zc_pressure_step(&law, &in), 0);
	in.now_us += 10;
	in.stall_us += 10;
	assert_int_equal(zc_pressure_step(&law, &in), 0);
	in.now_us += 2000000;
	in.stall_us = 0;
	assert_int_equal(zc_pressure_step(&law, &in), 0);
	in.now_us += 1000000;
	in.stall_us = 900000;
	assert_int_equal(zc_pressure_step(&law, &in), 1000);
	in.target_ppm = 0;
	in.now_us += 1000000;
	in.stall_us += 1;
	assert_int_equal(zc_pressure_step(&law, &in), 1000);
	in.used_frames = 0;
	in.now_us += 1000000;
	in.stall_us += 1;
	assert_int_equal(zc_pressure_step(&law, &in), 0);
}

static int read_text(const char *text, uint64_t *us)
{
	char path[] = "/tmp/tmem-pressure-XXXXXX";
	int fd = mkstemp(path), rc;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	rc = os_pressure_read(path, us);
	unlink(path);
	return rc;
}

static void the_kernels_file(void **state)
{
	uint64_t us = 7;
	char path[256];

	assert_int_equal(read_text("some avg10=0.10 avg60=0.00 avg300=0.00 total=4711\n"
				   "full avg10=0.00 avg60=0.00 avg300=0.00 total=12\n",
				   &us),
			 0);
	assert_int_equal(us, 4711);
	assert_int_equal(read_text("", &us), -EINVAL);
	assert_int_equal(read_text("full avg10=0.00 total=12\n", &us), -EINVAL);
	assert_int_equal(read_text("some avg10=0.00 total=x\n", &us), -EINVAL);
	assert_int_equal(os_pressure_read("/nonexistent/file", &us), -ENOENT);
	if (os_pressure_find(path, sizeof(path)) == 0)
		assert_int_equal(os_pressure_read(path, &us), 0);
	else
		print_message("this machine does not tell its pressure\n");
}

/* The host's part: what the law says reaches pages and puts. */
static void a_host_yields(void **state)
{
	struct test_host t = test_open(NULL);
	static struct test_page page;
	tmem_oid oid = test_oid(1);
	tmem_pool pool = tmem_pool_create(t.client, 0, 0);
	char path[] = "/tmp/tmem-pressure-XXXXXX", text[100];
	int fd = mkstemp(path);
	uint64_t before;

	for (uint64_t i = 0; i < 3000; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(t.client, pool, &oid, i, &page), 0);
	}
	before = test_stats(t.host).store_bytes;
	/* The machine says: all the time is spent waiting. */
	strcpy(t.host->maintain.path, path);
	t.host->maintain.looked = true;
	for (unsigned i = 0; i < 2; i++) {
		int n = snprintf(text, sizeof(text), "some avg10=0 total=%u\n", 100 + i * 900000);

		assert_int_equal(pwrite(fd, text, (size_t)n, 0), n);
		tmem_host_maintain(t.host);
		if (i == 0)
			usleep(1050000);
	}
	assert_true(test_stats(t.host).evicted_pressure > 100);
	assert_true(test_stats(t.host).store_bytes < before - before / 12);
	test_fill(&page, 1, 150);
	assert_int_equal(tmem_put_flags(t.client, pool, &oid, 9000, &page, TMEM_PUT_INACTIVE),
			 -ECANCELED);
	/* And it may not grow back at once. */
	before = test_stats(t.host).store_bytes;
	for (uint64_t i = 4000; i < 7000; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(t.client, pool, &oid, i, &page), 0);
	}
	assert_true(test_stats(t.host).store_bytes < before + before / 10);
	close(fd);
	unlink(path);
	test_close(&t);
}

static void a_thread_of_its_own(void **state)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	static struct test_page page;
	tmem_oid oid = test_oid(1);
	struct test_host t;
	tmem_pool pool;

	o.maintain = 1;
	o.idle_ms = 1;
	t = test_open(&o);
	pool = tmem_pool_create(t.client, 0, 0);
	for (uint64_t i = 0; i < 300; i++) {
		test_fill(&page, i, 150);
		assert_int_equal(tmem_put(t.client, pool, &oid, i, &page), 0);
	}
	for (unsigned i = 0; i < 100 && tmem_pool_pages(t.client, pool); i++)
		usleep(100000);
	assert_int_equal(tmem_pool_pages(t.client, pool), 0);
	assert_int_equal(test_stats(t.host).evicted_idle, 300);
	test_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_pressure_no_shrinking),
		cmocka_unit_test(it_yields),
		cmocka_unit_test(it_settles),
		cmocka_unit_test(between_the_marks_it_holds),
		cmocka_unit_test(odd_inputs),
		cmocka_unit_test(the_kernels_file),
		cmocka_unit_test(a_host_yields),
		cmocka_unit_test(a_thread_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
