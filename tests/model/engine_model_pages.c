/* SPDX-License-Identifier: BSD-2-Clause */
/* The model's pages: what is in them follows from their name. And failing. */
#include "engine_model.h"

#include <stdarg.h>

#define MAGIC 0x6d6f64656c706167u

struct page {
	uint64_t magic, pool, object, index, version, seed, sum, word[505];
};
_Static_assert(sizeof(struct page) == PAGE, "a page");

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

uint64_t rnd(struct worker *w, uint64_t below)
{
	w->rng += 0x9e3779b97f4a7c15u;
	return mix(w->rng) % below;
}

void fail(const struct worker *w, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "FAILED: seed %llu, %u threads, thread %u, operation %llu: ", ULL(seed0),
		nthreads, w ? w->number : 999, w ? ULL(atomic_load(&w->op)) : 0);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	abort();
}

static uint64_t page_sum(const struct page *p)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < 505; i++)
		sum = (sum ^ p->word[i]) * 0x100000001b3u;
	return mix(sum ^ p->pool ^ mix(p->object ^ mix(p->index ^ mix(p->version ^ p->seed))));
}

static uint64_t seed_of(uint64_t pool, uint64_t object, uint64_t index, uint64_t version)
{
	return mix(pool ^ mix(object ^ mix(index ^ mix(version))));
}

/* Mostly compressible, some noise, some same-filled. */
void fill(void *to, uint64_t pool, uint64_t object, uint64_t index, uint64_t version, bool named)
{
	uint64_t seed = seed_of(pool, object, index, version), kind = seed % 16, r;
	unsigned noise = kind == 2 ? 505 : (unsigned)(seed >> 8) % 380;
	struct page *p = to;

	if (!named && kind < 2) {
		r = kind ? seed : 0;
		for (unsigned i = 0; i < 512; i++)
			((uint64_t *)to)[i] = r;
		return;
	}
	*p = (struct page){MAGIC, pool, object, index, version, seed, 0, {0}};
	r = seed;
	if (named && kind == 2)
		noise = 100;
	for (unsigned i = 0; i < 505; i++) {
		if (i < noise) {
			r = r * 6364136223846793005u + 1442695040888963407u;
			p->word[i] = r ^ r >> 29;
		} else {
			p->word[i] = seed & 0xff;
		}
	}
	p->sum = page_sum(p);
}

/* Mostly small, as compressed pages are; at times all that is allowed. */
size_t bytes_of(uint64_t pool, uint64_t object, uint64_t index, uint64_t version)
{
	uint64_t seed = seed_of(pool, object, index, version);

	return seed % 11 == 0 ? PAGE : 1 + (seed >> 20) % (seed % 3 ? 1200 : PAGE);
}

void check(struct worker *w, const struct model_pool *m, unsigned o, uint64_t i, const void *page,
	   size_t size, const char *what)
{
	const struct page *p = page;

	fill(w->want, m->tags[o][i], o, i, m->version[o][i], false);
	if (memcmp(w->want, page, size) == 0)
		return;
	if (p->magic == MAGIC)
		fail(w,
		     "%s of pool %llu object %u index %llu version %llu: got pool %llu object "
		     "%llu index %llu version %llu (%s)",
		     what, ULL(m->tags[o][i]), o, ULL(i), ULL(m->version[o][i]), ULL(p->pool),
		     ULL(p->object), ULL(p->index), ULL(p->version),
		     p->sum == page_sum(p) ? "whole" : "torn");
	fail(w, "%s of object %u index %llu: foreign bytes", what, o, ULL(i));
}

uint64_t named_version(const struct worker *w, const void *page, uint64_t object, uint64_t index)
{
	const struct page *p = page;

	if (p->magic != MAGIC || p->sum != page_sum(p))
		fail(w, "shared page %llu: torn or foreign", ULL(index));
	if (p->object != object || p->index != index)
		fail(w, "shared page %llu: is object %llx index %llu", ULL(index), ULL(p->object),
		     ULL(p->index));
	return p->version;
}

void put_failed(const struct worker *w, const struct model_pool *m, int rc)
{
	/* The client of all has a limit at times; a thread's own, when the thread set it. */
	if (rc == -EDQUOT && m->client == w->own && !w->own_limit)
		fail(w, "put: beyond a limit that the client does not have");
	if (rc != -ENOMEM && rc != -E2BIG && rc != -EAGAIN && rc != -ECANCELED && rc != -EDQUOT)
		fail(w, "put: %d", rc);
	if (m->bytes && rc == -E2BIG && !zbud)
		fail(w, "put_bytes: too poor");
}
