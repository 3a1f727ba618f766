/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread's state for a host: counters, codec contexts, scratch.
 *
 * Made at the thread's first call, found through thread-local storage, folded
 * into the host when the thread ends. Nothing in it is shared, so the hot paths
 * write no line that another thread writes.
 *
 * The emergency state (T8). Memory may be short just when stored data is wanted
 * back, so the host is created with one complete state that any thread may
 * hold, one at a time; contexts for every codec that was ever selected are made
 * in it before that codec's first put. The holder may enter it again (dropping
 * words inside a put does): I1 below.
 *
 *   I1  emergency_depth > 0  <=>  emergency_lock is held by emergency_owner
 *   I2  charged for a state = sizeof + codec_bytes + big buffers
 *
 * The end of a thread counts as a call on its hosts: a thread that has used a
 * host may not be ending while that host is destroyed.
 */
#include "os/clock.h"
#include "zcache/zcache.h"

static void thread_free(struct zc_thread *t)
{
	struct tmem_host *h = t->host;

	codec_set_clear(&t->codecs);
	frames_uncharge(&h->frames, t->codec_bytes);
	for (unsigned i = 0; i < 2; i++)
		zc_free(h, t->big[i], ZC_BIG_BYTES);
	zc_free(h, t, sizeof(*t));
}

/* Runs at the end of a thread that has a state. */
static void thread_end(void *value)
{
	struct zc_thread *t = value;
	struct tmem_host *h = t->host;

	os_mutex_lock(&h->threads_lock);
	for (unsigned k = 0; k < ZC_LATENCIES; k++)
		for (unsigned i = 0; i < ZC_LATENCY_BUCKETS; i++)
			h->latency_gone[k][i] +=
				atomic_load_explicit(&t->latency[k][i], memory_order_relaxed);
	if (t->next)
		t->next->prev = t->prev;
	if (t->prev)
		t->prev->next = t->next;
	else
		h->threads = t->next;
	os_mutex_unlock(&h->threads_lock);
	zc_counts_end_thread(t);
	thread_free(t);
}

static struct zc_thread *thread_make(struct tmem_host *h)
{
	struct zc_thread *t = zc_alloc(h, sizeof(*t));

	if (!t)
		return NULL;
	t->host = h;
	t->stamp_state = (uint64_t)(os_thread_number() + 1) << 40;
	t->counts = &h->own;
	if (os_tls_set(h->tls, t)) {
		zc_free(h, t, sizeof(*t));
		return NULL;
	}
	os_mutex_lock(&h->threads_lock);
	t->next = h->threads;
	if (t->next)
		t->next->prev = t;
	h->threads = t;
	os_mutex_unlock(&h->threads_lock);
	return t;
}

struct zc_thread *zc_thread_emergency(struct tmem_host *h, struct zc_slot *s)
{
	unsigned me = os_thread_number() + 1;

	if (atomic_load_explicit(&h->emergency_owner, memory_order_relaxed) != me) {
		os_mutex_lock(&h->emergency_lock);
		tmem_assert(I1, h->emergency_depth == 0);
		atomic_store_explicit(&h->emergency_owner, me, memory_order_relaxed);
	}
	h->emergency_depth++;
	h->emergency->counts = s ? &s->account->spare : &h->own;
	h->emergency->serial = s ? s->serial : 0;
	return h->emergency;
}

struct zc_thread *zc_thread_enter_slow(struct tmem_host *h, struct zc_slot *s)
{
	struct zc_thread *t = os_tls_get(h->tls);

	/* Who is in the emergency state already keeps to it. */
	if (!t && atomic_load_explicit(&h->emergency_owner, memory_order_relaxed) !=
			  os_thread_number() + 1)
		t = thread_make(h);
	if (!t)
		return zc_thread_emergency(h, s);
	zc_counts_use(t, s);
	return t;
}

struct zc_thread *zc_thread_enter_host(struct tmem_host *h)
{
	struct zc_thread *t = os_tls_get(h->tls);

	if (!t)
		t = thread_make(h);
	if (!t)
		return zc_thread_emergency(h, NULL);
	t->counts = &h->own;
	t->serial = 0;
	return t;
}

/*
 * What an operation further up counted for stays valid: it has entered its pool,
 * so that the pool's blocks cannot go. Without such an operation *was may name a
 * block that has gone; then nobody uses it, for its serial has gone too.
 */
struct zc_thread *zc_thread_enter_other(struct tmem_host *h, struct zc_slot *s, struct zc_was *was)
{
	struct zc_thread *t = os_tls_get(h->tls);

	if (!t && atomic_load_explicit(&h->emergency_owner, memory_order_relaxed) ==
			  os_thread_number() + 1)
		t = h->emergency;
	*was = (struct zc_was){.thread = t};
	if (t) {
		was->counts = t->counts;
		was->serial = t->serial;
	}
	return zc_thread_enter(h, s);
}

void zc_thread_leave_other(struct zc_thread *t, const struct zc_was *was)
{
	/* Before the emergency state is let go: somebody else may have it at once. */
	if (was->thread) {
		was->thread->counts = was->counts;
		was->thread->serial = was->serial;
	}
	zc_thread_leave(t);
}

void zc_thread_leave_slow(struct tmem_host *h)
{
	tmem_assert(I1, h->emergency_depth > 0);
	if (--h->emergency_depth == 0) {
		atomic_store_explicit(&h->emergency_owner, 0, memory_order_relaxed);
		os_mutex_unlock(&h->emergency_lock);
	}
}

/* Both or none: one alone would take the room that the emergency state needs for its contexts. */
static int thread_big(struct zc_thread *t)
{
	for (unsigned i = 0; i < 2; i++) {
		if (!t->big[i])
			t->big[i] = zc_alloc_scratch(t->host, ZC_BIG_BYTES);
		if (!t->big[i])
			goto fail;
	}
	return 0;
fail:
	zc_free(t->host, t->big[0], ZC_BIG_BYTES);
	t->big[0] = NULL;
	return -ENOMEM;
}

void zc_thread_need_big(struct zc_thread **t)
{
	struct tmem_host *h = (*t)->host;
	struct zc_slot *s = (*t)->counts->slot;

	if (*t != h->emergency && thread_big(*t)) {
		zc_thread_leave(*t);
		*t = zc_thread_emergency(h, s);
	}
}

/* Bring the charge (I2) to what the contexts hold; the sum was charged generously before. */
static void settle_charge(struct zc_thread *t, uint64_t reserved)
{
	uint64_t now = codec_set_bytes(&t->codecs), had = t->codec_bytes + reserved;

	if (now < had)
		frames_uncharge(&t->host->frames, had - now);
	t->codec_bytes = now < had ? now : had;
}

void *zc_thread_cctx(struct zc_thread *t, const struct codec_spec *spec)
{
	unsigned id = spec->codec->id;
	void *ctx = t->codecs.cctx[id];
	size_t bytes;

	if (tmem_likely(ctx && t->codecs.level[id] == spec->level))
		return ctx;
	bytes = codec_cctx_bytes(spec->codec, spec->level);
	if (!frames_charge(&t->host->frames, bytes))
		return NULL;
	ctx = codec_set_cctx(&t->codecs, spec);
	settle_charge(t, bytes);
	return ctx;
}

void *zc_thread_dctx(struct zc_thread *t, const struct codec *codec)
{
	void *ctx = t->codecs.dctx[codec->id];

	if (tmem_likely(ctx != NULL))
		return ctx;
	if (!frames_charge(&t->host->frames, codec->dctx_bytes))
		return NULL;
	ctx = codec_set_dctx(&t->codecs, codec);
	settle_charge(t, codec->dctx_bytes);
	return ctx;
}

int zc_emergency_ready(struct tmem_host *h, const struct codec *codec)
{
	struct zc_thread *t = zc_thread_emergency(h, NULL);
	int rc = zc_thread_dctx(t, codec) ? 0 : -ENOMEM;

	zc_thread_leave(t);
	return rc;
}

int zc_threads_init(struct tmem_host *h)
{
	int rc;

	os_mutex_init(&h->threads_lock, OS_RANK_THREADS, "zcache threads");
	os_mutex_init(&h->emergency_lock, OS_RANK_POOL, "zcache emergency state");
	h->emergency = zc_alloc(h, sizeof(*h->emergency));
	if (!h->emergency)
		goto fail;
	h->emergency->host = h;
	h->emergency->counts = &h->own;
	if (thread_big(h->emergency))
		goto fail;
	/* Last, so that a failure leaves no key behind. */
	rc = os_tls_create(&h->tls, thread_end);
	if (rc == 0)
		return 0;
fail:
	if (h->emergency)
		thread_free(h->emergency);
	h->emergency = NULL;
	os_mutex_destroy(&h->emergency_lock);
	os_mutex_destroy(&h->threads_lock);
	return -ENOMEM;
}

uint64_t zc_clock(void)
{
	return os_clock_ns();
}

void zc_sample_end(struct zc_thread *t, enum zc_latency what, uint64_t began)
{
	uint64_t ns = os_clock_ns() - began;
	unsigned i = ns ? 63 - (unsigned)__builtin_clzll(ns) : 0;

	i = i < ZC_LATENCY_BUCKETS ? i : ZC_LATENCY_BUCKETS - 1;
	atomic_store_explicit(&t->latency[what][i],
			      atomic_load_explicit(&t->latency[what][i], memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

void zc_threads_exit(struct tmem_host *h)
{
	struct zc_thread *t, *next;

	os_tls_delete(h->tls);
	for (t = h->threads; t; t = next) {
		next = t->next;
		thread_free(t);
	}
	thread_free(h->emergency);
	os_mutex_destroy(&h->emergency_lock);
	os_mutex_destroy(&h->threads_lock);
}
