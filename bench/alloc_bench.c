/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * zsmalloc by itself: see alloc_bench.h.
 *
 * A round fills a new pool with all objects in order, frees one in two at
 * random, compacts, and frees the rest. Fill includes the OS making the memory
 * resident. The pair and map figures come from a pool that stays full:
 *
 *   pair    malloc and free of one object, its size drawn from the list
 *   map     map and unmap of one object, chosen at random (a cache miss each
 *           when the set is large) and the same one again and again
 *
 * Losses are parts of the frames held at the peak: rounding up to the class
 * (the state word included), the ends of zspages, and slots that are resident
 * but empty.
 */
#include "alloc_bench.h"

#include "alloc/zsmalloc.h"
#include "os/clock.h"
#include "os/mem.h"
#include "os/thread.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS	    5
#define PAIRS	    (1u << 20)
#define THREADS_MAX 64

struct set {
	struct frames frames;
	struct zpool *zp;
	zpool_handle *h;
	const uint32_t *sizes;
	uint64_t n, sum;
	uint64_t rnd;
};

static uint64_t set_rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s * 0x2545f4914f6cdd1dull >> 20;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), compare);
	return v[n / 2];
}

static double per_op(uint64_t since, uint64_t ops)
{
	return (double)(os_clock_ns() - since) / (double)(ops ? ops : 1);
}

/* The owner: an object begins with its number in the table. */
static bool set_move(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
		     size_t size)
{
	struct set *s = ctx;
	uint32_t i;

	memcpy(&i, src, sizeof(i));
	if (s->h[i] != from)
		return false;
	memcpy(dst, src, size);
	s->h[i] = to;
	return true;
}

static const struct zpool_owner set_owner = {.move = set_move};

static bool set_put(struct set *s, uint32_t i)
{
	/* The number needs four bytes. */
	size_t size = s->sizes[i] < 4 ? 4 : s->sizes[i];

	if (zpool_malloc(s->zp, size, &s->h[i]))
		return false;
	memcpy(zpool_peek(s->zp, s->h[i]), &i, sizeof(i));
	zpool_set_movable(s->zp, s->h[i], true);
	return true;
}

static bool set_open(struct set *s)
{
	frames_init(&s->frames, 0);
	memset(s->h, 0, s->n * sizeof(*s->h));
	return zpool_create("zsmalloc", &s->frames, &set_owner, s, &s->zp) == 0;
}

static bool set_fill(struct set *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (!set_put(s, i))
			return false;
	return true;
}

static uint64_t set_drop_all(struct set *s)
{
	uint64_t dropped = 0;

	for (uint64_t i = 0; i < s->n; i++) {
		if (!s->h[i])
			continue;
		zpool_free(s->zp, s->h[i]);
		s->h[i] = 0;
		dropped++;
	}
	return dropped;
}

static void set_close(struct set *s)
{
	if (!s->zp)
		return;
	set_drop_all(s);
	zpool_destroy(s->zp);
	s->zp = NULL;
}

/* Where the frames went, and how the classes are used. */
static json_t *report_loss(struct set *s, const struct zpool_stats *st)
{
	uint64_t ends = 0, used = 0;
	struct zs_class_info c;
	json_t *list = json_array();
	double all = (double)st->frame_bytes;

	for (unsigned i = 0; zs_class_info(s->zp, i, &c); i++) {
		/* Full length zspages lose their tail; others end at their last frame. */
		uint64_t tail = (uint64_t)c.frames * OS_FRAME_SIZE - (uint64_t)c.slots * c.size;

		if (!c.objects)
			continue;
		used++;
		ends += tail * c.fullness[3];
		if (c.objects * 50 >= s->n) /* 2 % of the objects or more */
			json_array_append_new(list, json_pack("{s:I,s:I,s:I,s:I,s:I,s:f}", "size",
							      (json_int_t)c.size, "frames",
							      (json_int_t)c.frames, "slots",
							      (json_int_t)c.slots, "objects",
							      (json_int_t)c.objects, "zspages",
							      (json_int_t)c.zspages, "tail_loss",
							      (double)tail / (c.frames * 4096.0)));
	}
	return json_pack("{s:I,s:f,s:f,s:f,s:o}", "classes_used", (json_int_t)used, "rounding",
			 (double)(st->object_bytes - s->sum) / all, "zspage_ends",
			 (double)ends / all, "resident_unused",
			 (all - (double)st->object_bytes - (double)ends) / all, "largest_classes",
			 list);
}

/* Fill, drop half, compact, drop the rest; medians over rounds. */
static json_t *report_rounds(struct set *s)
{
	double fill[ROUNDS], drop[ROUNDS], compact[ROUNDS], back[ROUNDS], move[ROUNDS];
	struct zpool_stats empty, full, after;
	uint64_t resident, grown = 0, t;
	json_t *loss = NULL, *out;

	for (unsigned r = 0; r < ROUNDS; r++) {
		uint64_t freed = 0, count = 0;

		resident = os_resident_bytes();
		if (!set_open(s))
			goto fail;
		zpool_stats(s->zp, &empty);
		t = os_clock_ns();
		if (!set_fill(s))
			goto fail;
		fill[r] = per_op(t, s->n);
		zpool_stats(s->zp, &full);
		grown = os_resident_bytes() - resident;
		if (!loss)
			loss = report_loss(s, &full);
		for (uint64_t i = 0; i < s->n; i++) {
			if (set_rnd(&s->rnd) & 1)
				continue;
			zpool_free(s->zp, s->h[i]);
			s->h[i] = 0;
			freed += s->sizes[i];
			count++;
		}
		t = os_clock_ns();
		zpool_compact(s->zp, UINT64_MAX);
		compact[r] = per_op(t, 1000000);
		zpool_stats(s->zp, &after);
		back[r] = (double)(full.frame_bytes - after.frame_bytes) /
			  (double)(freed ? freed : 1);
		move[r] =
			compact[r] * 1e6 / (double)(after.moved_objects ? after.moved_objects : 1);
		t = os_clock_ns();
		drop[r] = per_op(t, 0);
		count = set_drop_all(s);
		drop[r] = per_op(t, count);
		set_close(s);
	}
	out = json_pack("{s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:o}", "objects",
			(json_int_t)s->n, "object_bytes", (json_int_t)s->sum, "frame_bytes",
			(json_int_t)full.frame_bytes, "meta_bytes", (json_int_t)full.meta_bytes,
			"resident_growth_bytes", (json_int_t)grown, "density",
			(double)s->sum / (double)full.frame_bytes, "density_resident",
			(double)s->sum / (double)(grown ? grown : 1), "meta_bytes_per_object",
			(double)(full.meta_bytes - empty.meta_bytes) / (double)s->n, "fill_ns",
			median(fill, ROUNDS), "empty_ns", median(drop, ROUNDS), "compact_ms",
			median(compact, ROUNDS), "compact_ns_per_move", median(move, ROUNDS),
			"returned_of_freed", median(back, ROUNDS), "loss", loss);
	return out;
fail:
	json_decref(loss);
	set_close(s);
	return NULL;
}

/* One object after another, in a pool that stays full. */
static void report_hot(struct set *s, json_t *out)
{
	double pair[ROUNDS], cold[ROUNDS], hot[ROUNDS], just_malloc[ROUNDS], just_free[ROUNDS];
	zpool_handle *extra = malloc(4096 * sizeof(*extra));
	uint64_t sum = 0, t;

	for (unsigned r = 0; extra && r < ROUNDS; r++) {
		uint64_t spent_malloc = 0, spent_free = 0;
		zpool_handle h;

		t = os_clock_ns();
		for (uint32_t i = 0; i < PAIRS; i++)
			if (zpool_malloc(s->zp, s->sizes[i % s->n], &h) == 0)
				zpool_free(s->zp, h);
		pair[r] = per_op(t, PAIRS);
		for (uint32_t k = 0; k < 64; k++) {
			uint64_t from = set_rnd(&s->rnd) % s->n;

			t = os_clock_ns();
			for (uint32_t i = 0; i < 4096; i++)
				if (zpool_malloc(s->zp, s->sizes[(from + i) % s->n], &extra[i]))
					extra[i] = 0;
			spent_malloc += os_clock_ns() - t;
			t = os_clock_ns();
			for (uint32_t i = 0; i < 4096; i++)
				if (extra[i])
					zpool_free(s->zp, extra[i]);
			spent_free += os_clock_ns() - t;
		}
		just_malloc[r] = (double)spent_malloc / (64 * 4096);
		just_free[r] = (double)spent_free / (64 * 4096);
		t = os_clock_ns();
		for (uint32_t i = 0; i < PAIRS; i++) {
			h = s->h[set_rnd(&s->rnd) % s->n];
			sum += *(unsigned char *)zpool_map(s->zp, h);
			zpool_unmap(s->zp, h);
		}
		cold[r] = per_op(t, PAIRS);
		t = os_clock_ns();
		for (uint32_t i = 0; i < PAIRS; i++) {
			h = s->h[i % 16 < s->n ? i % 16 : 0];
			sum += *(unsigned char *)zpool_map(s->zp, h);
			zpool_unmap(s->zp, h);
		}
		hot[r] = per_op(t, PAIRS);
	}
	if (extra) {
		json_object_set_new(out, "malloc_free_pair_ns", json_real(median(pair, ROUNDS)));
		json_object_set_new(out, "malloc_ns", json_real(median(just_malloc, ROUNDS)));
		json_object_set_new(out, "free_ns", json_real(median(just_free, ROUNDS)));
		json_object_set_new(out, "map_unmap_random_ns", json_real(median(cold, ROUNDS)));
		json_object_set_new(out, "map_unmap_hot_ns", json_real(median(hot, ROUNDS)));
	}
	/* The bytes that were read must not be optimised away. */
	if (sum == UINT64_MAX)
		json_object_set_new(out, "sum", json_null());
	free(extra);
}

struct team_member {
	struct set *s;
	uint64_t start, ops;
	os_thread t;
	zpool_handle held[256];
};

/* Keep 256 objects, replace one after another: what many putting threads do. */
static void *team_run(void *arg)
{
	struct team_member *m = arg;
	struct set *s = m->s;

	memset(m->held, 0, sizeof(m->held));
	for (uint64_t i = 0; i < m->ops; i++) {
		zpool_handle *h = &m->held[i % 256];

		if (*h)
			zpool_free(s->zp, *h);
		if (zpool_malloc(s->zp, s->sizes[(m->start + i) % s->n], h))
			*h = 0;
	}
	for (unsigned i = 0; i < 256; i++)
		if (m->held[i])
			zpool_free(s->zp, m->held[i]);
	return NULL;
}

/* Operations a second of a team. */
static double team_rate(struct set *s, struct team_member *m, unsigned threads)
{
	unsigned started = 0;
	uint64_t t = os_clock_ns();

	for (; started < threads; started++) {
		m[started].s = s;
		m[started].ops = PAIRS;
		m[started].start = set_rnd(&s->rnd);
		if (os_thread_create(&m[started].t, "bench", team_run, &m[started]))
			break;
	}
	for (unsigned i = 0; i < started; i++)
		os_thread_join(m[i].t);
	return (double)started * PAIRS / ((double)(os_clock_ns() - t) / 1e9);
}

static void report_threads(struct set *s, unsigned threads, json_t *out)
{
	struct team_member *m = malloc(threads * sizeof(*m));
	double one[ROUNDS], all[ROUNDS], ratio[ROUNDS];

	for (unsigned r = 0; m && r < ROUNDS; r++) {
		one[r] = team_rate(s, m, 1);
		all[r] = team_rate(s, m, threads);
		ratio[r] = all[r] / one[r];
	}
	if (m) {
		json_object_set_new(out, "threads", json_integer(threads));
		json_object_set_new(out, "replace_per_s_one_thread",
				    json_real(median(one, ROUNDS)));
		json_object_set_new(out, "replace_per_s", json_real(median(all, ROUNDS)));
		json_object_set_new(out, "scaling", json_real(median(ratio, ROUNDS)));
	}
	free(m);
}

struct json_t *bench_alloc(const uint32_t *sizes, uint64_t n, unsigned threads)
{
	struct set s = {.rnd = 0x9e3779b97f4a7c15ull};
	uint32_t *fit = malloc((n ? n : 1) * sizeof(*fit));
	json_t *out = NULL;

	threads = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
	if (!fit)
		return NULL;
	for (uint64_t i = 0; i < n && s.n < UINT32_MAX; i++)
		if (sizes[i] && sizes[i] <= ZS_MAX_SIZE) {
			fit[s.n++] = sizes[i];
			s.sum += sizes[i];
		}
	s.sizes = fit;
	s.h = malloc((s.n ? s.n : 1) * sizeof(*s.h));
	if (!s.n || !s.h)
		goto done;
	out = report_rounds(&s);
	if (!out)
		goto done;
	if (set_open(&s) && set_fill(&s)) {
		report_hot(&s, out);
		report_threads(&s, threads, out);
	}
	set_close(&s);
done:
	free(s.h);
	free(fit);
	return out;
}
