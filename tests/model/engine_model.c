/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine against a model: engine_model [OPERATIONS [THREADS [SEED [ZPOOL]]]]
 * (seed 0: by the clock)
 *
 * Each thread has two pools, in which it does everything, pool operations included, and
 * its own object in a pool that all share. For those handles it knows exactly what is
 * there: a version for each, 0 for nothing. Pools are persistent or ephemeral, shared by
 * UUID with guests, of pages or of bytes, of everybody's client or of the thread's own,
 * which is saved, restored and replaced. Of an ephemeral pool a page may be gone, but
 * what is found is the last version put, and a page that was missed once is missed until
 * the next put.
 *
 * In the shared pool there is also one object with one writer a page and all threads as
 * readers: engine_model_shared.c. In the third of the worlds the pool of all is ephemeral
 * too: a pool with a UUID, that half of the threads reach through another client.
 *
 * Meanwhile another thread evicts, compacts, recompresses, moves limits and tunables,
 * freezes and thaws, and samples what limits promise (engine_model_disturb.c,
 * engine_model_limits.c). Threads end and start anew in each round, some of which are
 * recorded (engine_model_trace.c); between rounds nothing runs, every handle is read,
 * tmem_host_verify() checks the sums, and the statistics agree with the model.
 *
 * A failure names the seed; the same arguments replay the same operations of each thread
 * (not the same interleaving).
 */
#include "engine_model.h"

#include "os/clock.h"
#include "os/thread.h"

#include <unistd.h>

#ifdef __SANITIZE_THREAD__
#define OPS 150000u
#else
#define OPS 300000u
#endif
#define ROUNDS 12

tmem_host *host;
tmem_client *client, *client2;
uint64_t seed0;
unsigned nthreads = 4;
tmem_pool shared, shared2;
struct worker *workers[THREADS_MAX];
bool eph, tight, has_overflow, zbud;
char base_path[PATH] = "/tmp/tmem-model-XXXXXX";
static const char *zpool; /* NULL: by the seed */

/* ---- while nothing runs ----------------------------------------------------------------- */

static void quiet_statistics(void)
{
	tmem_stats s = {.size = sizeof(s)};
	char err[200];

	if (tmem_host_verify(host, 1))
		fail(NULL, "verify at a quiet point");
	if (tmem_host_stats(host, &s) || tmem_stats_verify(&s, err, sizeof(err)))
		fail(NULL, "statistics: %s", err);
}

/* Its persistent pages are all that a client of one thread has, but for ephemeral ones. */
static void quiet_client(struct worker *w)
{
	tmem_client_stats s = {.size = sizeof(s)};
	uint64_t pages = 0, pools = 0;
	bool exact = true;

	if (!w->own)
		return;
	if (tmem_client_stats_get(w->own, &s))
		fail(w, "statistics of a client");
	for (unsigned p = 0; p < POOLS; p++) {
		const struct model_pool *m = &w->pool[p];

		if (m->id < 0 || m->client != w->own)
			continue;
		pools++;
		exact &= !m->ephemeral;
		pages += count_pages(m);
	}
	if (s.pools != pools || (exact && s.pages != pages))
		fail(w, "its client has %llu pools, not %llu, and %llu pages, not %llu",
		     ULL(s.pools), ULL(pools), ULL(s.pages), ULL(pages));
}

/* Frozen, a put leaves nothing; shrunk to the end, no ephemeral page is left. */
static void quiet_extremes(struct worker *w)
{
	struct model_pool *m = &w->pool[POOLS];
	tmem_oid oid = oid_of(w, m, 0);
	bool all = rnd(w, 2);
	uint64_t got;

	if (all)
		tmem_host_freeze(host, 1);
	else
		tmem_client_freeze(client, 1);
	fill(w->buf, m->tag, 0, 5, ++w->next_version, false);
	if (tmem_put(client, m->id, &oid, 5, w->buf) != -EAGAIN)
		fail(w, "a put while frozen");
	m->version[0][5] = 0;
	op_get(w, m, 0, 5, GET_ANY);
	if (all)
		tmem_host_freeze(host, 0);
	else
		tmem_client_freeze(client, 0);
	if (tmem_host_shrink(host, UINT64_MAX, &got))
		fail(w, "shrink");
	for (unsigned i = 0; i < nthreads; i++)
		for (unsigned p = 0; p <= POOLS; p++) {
			m = &workers[i]->pool[p];
			if (m->id < 0 || !m->ephemeral)
				continue;
			if (tmem_pool_pages(m->client, m->id))
				fail(w, "shrunk to nothing, but ephemeral pages are left");
		}
}

static void quiet(struct worker *disturber)
{
	trace_toggle_end();
	trace_end();
	if (rnd(disturber, 4) == 0)
		quiet_extremes(workers[rnd(disturber, nthreads)]);
	for (unsigned i = 0; i < nthreads; i++) {
		quiet_client(workers[i]);
		for (unsigned p = 0; p <= POOLS; p++)
			if (workers[i]->pool[p].id >= 0)
				check_pool(workers[i], &workers[i]->pool[p]);
	}
	quiet_statistics();
}

/* ---- rounds ------------------------------------------------------------------------------- */

static void *work(void *arg)
{
	struct worker *w = arg;

	for (uint64_t k = 0; k < w->ops; k++) {
		atomic_fetch_add_explicit(&w->op, 1, memory_order_relaxed);
		one_operation(w);
	}
	atomic_store(&w->idle, true);
	return NULL;
}

static void run_round(uint64_t ops, struct worker *disturber)
{
	os_thread t[THREADS_MAX], d;

	atomic_store(&stop, false);
	if (rnd(disturber, 3) == 0)
		trace_begin();
	for (unsigned i = 0; i < nthreads; i++)
		atomic_store(&workers[i]->idle, false);
	if (os_thread_create(&d, "disturb", disturb, disturber))
		fail(NULL, "thread");
	for (unsigned i = 0; i < nthreads; i++) {
		workers[i]->ops = ops;
		if (os_thread_create(&t[i], "work", work, workers[i]))
			fail(NULL, "thread");
	}
	for (unsigned i = 0; i < nthreads; i++)
		os_thread_join(t[i]);
	atomic_store(&stop, true);
	os_thread_join(d);
	quiet(disturber);
}

/* ---- worlds ------------------------------------------------------------------------------- */

static void open_host(unsigned world)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	char err[200], path[PATH + 8];

	snprintf(path, sizeof(path), "%s.over", base_path);
	o.policy = seed0 & 2 || eph ? "s3fifo" : "lru";
	o.limit_bytes = tight ? TIGHT_BYTES : 0;
	o.zpool = zpool ? zpool : mix(seed0 + world) % 5 ? "zsmalloc" : "zbud";
	/* A raw page does not fit into a frame that zbud divides. */
	zbud = strcmp(o.zpool, "zbud") == 0;
	o.store_raw = seed0 & 1 && !zbud;
	o.overflow_path = has_overflow ? path : NULL;
#ifdef TMEM_HAVE_CRYPTO
	o.overflow_encrypt = has_overflow && seed0 % 2;
#endif
	o.maintain = world == 2;
	o.idle_ms = seed0 & 4 ? 100 : 0;
	if (tmem_host_create(&o, &host, err, sizeof(err)))
		fail(NULL, "host: %s", err);
	limits_begin(o.limit_bytes);
}

static void open_worker(unsigned i)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		fail(NULL, "memory");
	workers[i] = w;
	w->number = i;
	w->rng = mix(seed0 * 1000 + i);
	snprintf(w->path, sizeof(w->path), "%.40s.save%u", base_path, i);
	for (unsigned p = 0; p < POOLS; p++)
		w->pool[p].id = -1;
}

static void open_world(unsigned world)
{
	for (unsigned i = 0; i < nthreads; i++)
		open_worker(i);
	open_host(world);
	if (tmem_client_create(host, "model", &client) ||
	    tmem_client_create(host, "model, too", &client2))
		fail(NULL, "client");
	open_shared();
	for (unsigned i = 0; i < nthreads; i++) {
		struct model_pool *m = &workers[i]->pool[POOLS];

		m->client = client;
		m->id = shared;
		m->of_all = true;
		m->ephemeral = m->uuid = eph;
		m->tag = (uint64_t)i << 32;
	}
}

static void say(const tmem_stats *s)
{
	uint64_t event[EVENTS] = {0};

	for (unsigned i = 0; i < nthreads; i++)
		for (unsigned k = 0; k < EVENTS; k++)
			event[k] += workers[i]->event[k];
	printf("  %s: puts %llu ok %llu nomem %llu poor %llu frozen %llu quota %llu; gets found "
	       "%llu; "
	       "shared %llu; moved %llu; in file %llu, went %llu, came back %llu; evicted %llu; "
	       "recompressed %llu\n",
	       zbud ? "zbud" : "zsmalloc", ULL(s->puts), ULL(s->puts_ok), ULL(s->puts_nomem),
	       ULL(s->puts_poor), ULL(s->puts_frozen), ULL(s->puts_quota), ULL(s->gets_found),
	       ULL(s->shared_pages), ULL(s->moved_zpages), ULL(s->overflow_pages),
	       ULL(s->overflow_moved_pages), ULL(s->overflow_returned_pages), ULL(s->evicted_pages),
	       ULL(s->recompressed));
	printf("  clients saved %llu, of all %llu; cloned %llu; restored %llu, in place %llu; "
	       "guests %llu; "
	       "clients ended %llu; rounds recorded %llu\n",
	       ULL(event[SAVED_OWN]), ULL(event[SAVED_ALL]), ULL(event[CLONED_ALL]),
	       ULL(event[RESTORED]), ULL(event[REPLACED]), ULL(event[GUESTS]), ULL(event[CLIENTS]),
	       ULL(event[TRACED]));
}

static void close_world(void)
{
	tmem_stats s = {.size = sizeof(s)};

	limits_end();
	(void)tmem_host_stats(host, &s);
	say(&s);
	for (unsigned i = 0; i < nthreads; i++)
		clients_close(workers[i]);
	tmem_client_destroy(client);
	if (client2 != client)
		tmem_client_destroy(client2);
	if (tmem_host_verify(host, 1))
		fail(NULL, "verify of the empty host");
	s.size = sizeof(s);
	(void)tmem_host_stats(host, &s);
	if (s.pages || s.zpages || s.compressed_bytes || s.same_filled_pages || s.overflow_pages ||
	    s.overflow_bytes || s.clients || s.pools || s.dictionaries)
		fail(NULL, "an empty host is not empty");
	tmem_host_destroy(host);
	for (unsigned i = 0; i < nthreads; i++) {
		(void)unlink(workers[i]->path);
		free(workers[i]);
	}
}

int main(int argc, char **argv)
{
	uint64_t ops = argc > 1 ? strtoull(argv[1], NULL, 10) : OPS;
	struct worker disturber = {.number = 100};
	char path[PATH + 8];
	int fd;

	if (argc > 2)
		nthreads = (unsigned)strtoul(argv[2], NULL, 10);
	fd = mkstemp(base_path);
	if (nthreads < 1 || nthreads > THREADS_MAX || fd < 0)
		return 2;
	close(fd);
	seed0 = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
	if (!seed0)
		seed0 = os_clock_ns() % 1000000 + 1;
	if (argc > 4)
		zpool = argv[4];
	printf("seed %llu, %llu operations, %u threads, %s\n", ULL(seed0), ULL(ops), nthreads,
	       zpool ? zpool : "allocator by the seed");
	disturber.rng = mix(seed0);
	for (unsigned world = 0; world < 3; world++) {
		tight = world > 0;
		has_overflow = world == 1;
		eph = world == 2;
		open_world(world);
		for (unsigned r = 0; r < ROUNDS; r++)
			run_round(ops / nthreads / ROUNDS / 3 + 1, &disturber);
		close_world();
	}
	snprintf(path, sizeof(path), "%s.trace", base_path);
	(void)unlink(path);
	(void)unlink(base_path);
	return 0;
}
