/* SPDX-License-Identifier: BSD-2-Clause */
/* Failing calls on several threads; all sorts of calls. */
#include "alloc_scenarios.h"

#include "os/thread.h"

/* ---- threads ---------------------------------------------------------------- */

struct job {
	struct world *w;
	unsigned object;
	void (*work)(struct world *w, unsigned object);
};

static void *run_job(void *arg)
{
	struct job *j = arg;

	j->work(j->w, j->object);
	return NULL;
}

/* On threads of their own where they can be had. */
static void run_jobs(struct world *w, unsigned n, void (*work)(struct world *w, unsigned object))
{
	struct job job[W_OBJECTS];
	bool started[W_OBJECTS];
	os_thread t[W_OBJECTS];

	for (unsigned i = 0; i < n; i++) {
		job[i] = (struct job){w, i, work};
		started[i] = os_thread_create(&t[i], "fault", run_job, &job[i]) == 0;
		W_CHECK(started[i] || shim_failed(), "no thread");
	}
	for (unsigned i = 0; i < n; i++) {
		if (started[i])
			os_thread_join(t[i]);
	}
}

static void read_all(struct world *w, unsigned object)
{
	(void)object;
	w_get_all(w, 0);
	w_get_cluster(w, 0, 1, 3, false);
}

static void write_some(struct world *w, unsigned object)
{
	fill(w, 0, object, 0, 40);
	for (unsigned i = 0; i < 40; i += 3)
		w_get_invalidate(w, 0, object, i);
	if (object < 2)
		w_put_cluster(w, 0, object, 64, 16, 0);
	for (unsigned i = 0; i < 40; i++)
		w_get(w, 0, object, i);
}

/* A thread that has never called before gets what is stored, also with no memory at all (T8). */
static void thread_reads(struct world *w)
{
	tmem_host_options o = options("zstd");

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 10);
	w_put_cluster(w, 0, 1, 0, 8, 0);
	run_jobs(w, 2, read_all);
}

/* The same where pages need a dictionary, or another codec than the host's. */
static void thread_reads_packed(struct world *w)
{
	tmem_host_options o = options("zstd:1");
	tmem_recompress r = TMEM_RECOMPRESS;
	int rc;

	if (!w_start(w, &o))
		return;
	fill(w, 0, 0, 0, 110);
	rc = tmem_pool_train(w->client, w->pool[0].id, 4096, NULL);
	W_CHECK(rc == 0 || rc == -ENOMEM || rc == -ENODATA, "train: %d", rc);
	fill(w, 0, 0, 0, 10);
	w_put_cluster(w, 0, 1, 0, 8, 0);
	rc = tmem_pool_set_codec(w->client, w->pool[0].id, "deflate");
	W_CHECK(rc == 0 || rc == -ENOMEM, "codec: %d", rc);
	fill(w, 0, 0, 10, 20);
	r.codec = "lz4hc";
	rc = tmem_host_recompress(w->host, &r, NULL);
	W_CHECK(rc == 0 || rc == -ENOMEM, "recompress: %d", rc);
	run_jobs(w, 2, read_all);
}

static void threads_write(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	run_jobs(w, 2, write_some);
}

static void thread_idle(struct world *w, unsigned object)
{
	w_get(w, 0, object, 0);
}

static void threads_come_and_go(struct world *w)
{
	if (!w_start(w, NULL))
		return;
	w_put(w, 0, 0, 0, W_TEXT);
	for (unsigned i = 0; i < 3; i++)
		run_jobs(w, 3, thread_idle);
}

/* ---- all sorts ---------------------------------------------------------------------------- */

static void mixed(struct world *w)
{
	uint64_t s = 0x1234567;

	if (!w_start(w, NULL))
		return;
	for (unsigned i = 0; i < 400; i++) {
		unsigned object, page, r;

		s = s * UINT64_C(6364136223846793005) + 1442695040888963407u;
		r = (unsigned)(s >> 33);
		object = r / 16 % 2;
		page = r / 64 % 176;
		switch (r % 16) {
		case 0:
			w_put_cluster(w, 0, object, page / 16 * 16, 1 + r / 4096 % 16, r & 0x10101);
			break;
		case 1:
			w_get_cluster(w, 0, object, page, true);
			break;
		case 2:
			w_invalidate_range(w, 0, object, page, 1 + r / 4096 % 16);
			break;
		case 3:
			w_get_invalidate(w, 0, object, page);
			break;
		case 4:
			if (r / 4096 % 8 == 0)
				(void)tmem_host_compact(w->host, 1 << 16);
			break;
		case 5:
			w_put(w, 0, 2, page, W_TEXT);
			break;
		case 6:
		case 7:
			w_get(w, 0, object, page);
			break;
		case 8:
			w_put(w, 0, object, page, r / 4096 % W_KINDS);
			break;
		default:
			w_put(w, 0, object, page, W_TEXT);
		}
	}
}

const struct scenario alloc_threads[] = {
	{"thread_reads", thread_reads, true},
	{"thread_reads_packed", thread_reads_packed, false},
	{"threads_write", threads_write, false},
	{"threads_come_and_go", threads_come_and_go, false},
	{"mixed", mixed, false},
	{NULL, NULL, false},
};
