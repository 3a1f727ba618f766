/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The allocators side by side on the same objects: see alloc_bench.h.
 *
 * A round fills a pool with all objects in order (put: malloc, copy, movable),
 * reads them at random (get: map, copy out, unmap), then replaces half of them at
 * random, so that ages are mixed, and evicts:
 *
 *   one by one   a sixteenth of the frames, each by its own shrink(1)
 *   by queue     another sixteenth as a host with its own queue would do: free the
 *                oldest objects, as many as one by one took, then compact
 *
 * Costs of eviction are counted in objects for each frame that came back. Of
 * what was evicted, "too young" are those that do not belong to the oldest k,
 * where k is how many were evicted. Rounds of the drivers alternate; objects too
 * large for one of them are left out for all.
 */
#include "alloc_bench.h"

#include "alloc/zbud.h"
#include "alloc/zsmalloc.h"
#include "os/clock.h"
#include "os/mem.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 5
#define GETS   (1u << 20)

struct record {
	zpool_handle h;
	uint64_t age; /* when it was put */
};

struct side {
	const char *type;
	struct frames frames;
	struct zpool *zp;
	struct record *rec;
	const uint32_t *sizes;
	uint32_t n;
	uint64_t now, rnd;
	uint64_t *gone; /* ages of what was evicted */
	uint64_t nr_gone;
	/* Found, by round. */
	double density, put[ROUNDS], get[ROUNDS], evict_us[ROUNDS];
	double objects_per_frame, frames_per_call, too_young, queue_objects_per_frame;
};

static uint64_t side_rnd(struct side *s)
{
	s->rnd ^= s->rnd << 13;
	s->rnd ^= s->rnd >> 7;
	s->rnd ^= s->rnd << 17;
	return s->rnd * 0x2545f4914f6cdd1dull >> 20;
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), compare_double);
	return v[ROUNDS / 2];
}

static bool side_move(void *ctx, zpool_handle from, void *src, zpool_handle to, void *dst,
		      size_t size)
{
	struct side *s = ctx;
	uint32_t i;

	memcpy(&i, src, sizeof(i));
	if (s->rec[i].h != from)
		return false;
	memcpy(dst, src, size);
	s->rec[i].h = to;
	return true;
}

static bool side_evict(void *ctx, zpool_handle h, void *ptr, size_t size)
{
	struct side *s = ctx;
	uint32_t i;

	(void)size;
	memcpy(&i, ptr, sizeof(i));
	if (s->rec[i].h != h)
		return false;
	s->gone[s->nr_gone++] = s->rec[i].age;
	s->rec[i].h = 0;
	zpool_free(s->zp, h);
	return true;
}

static const struct zpool_owner side_owner = {.move = side_move, .evict = side_evict};

static bool side_put(struct side *s, uint32_t i, const char *bytes)
{
	char *p;

	if (zpool_malloc(s->zp, s->sizes[i], &s->rec[i].h))
		return false;
	p = zpool_peek(s->zp, s->rec[i].h);
	memcpy(p, bytes, s->sizes[i]);
	memcpy(p, &i, sizeof(i));
	zpool_set_movable(s->zp, s->rec[i].h, true);
	s->rec[i].age = ++s->now;
	return true;
}

static void side_drop(struct side *s, uint32_t i)
{
	if (s->rec[i].h)
		zpool_free(s->zp, s->rec[i].h);
	s->rec[i].h = 0;
}

static bool side_fill(struct side *s, unsigned round, const char *bytes)
{
	struct zpool_stats st;
	uint64_t t = os_clock_ns(), sum = 0;

	for (uint32_t i = 0; i < s->n; i++) {
		if (!side_put(s, i, bytes))
			return false;
		sum += s->sizes[i];
	}
	s->put[round] = (double)(os_clock_ns() - t) / s->n;
	zpool_stats(s->zp, &st);
	s->density = (double)sum / (double)(st.frame_bytes + st.meta_bytes);
	return true;
}

static void side_get(struct side *s, unsigned round, char *out)
{
	uint64_t t = os_clock_ns();

	for (uint32_t k = 0; k < GETS; k++) {
		uint32_t i = (uint32_t)(side_rnd(s) % s->n);

		memcpy(out, zpool_map(s->zp, s->rec[i].h), s->sizes[i]);
		zpool_unmap(s->zp, s->rec[i].h);
	}
	s->get[round] = (double)(os_clock_ns() - t) / GETS;
}

static bool side_churn(struct side *s, const char *bytes)
{
	for (uint32_t k = 0; k < s->n / 2; k++) {
		uint32_t i = (uint32_t)(side_rnd(s) % s->n);

		side_drop(s, i);
		if (!side_put(s, i, bytes))
			return false;
	}
	zpool_compact(s->zp, UINT64_MAX);
	return true;
}

static int compare_age(const void *a, const void *b)
{
	const struct record *x = *(struct record *const *)a, *y = *(struct record *const *)b;

	return x->age < y->age ? -1 : x->age > y->age;
}

/* All that is there, oldest first. */
static struct record **side_by_age(struct side *s, uint32_t *n)
{
	struct record **list = malloc(((size_t)s->n + 1) * sizeof(*list));

	*n = 0;
	for (uint32_t i = 0; list && i < s->n; i++)
		if (s->rec[i].h)
			list[(*n)++] = &s->rec[i];
	if (list)
		qsort(list, *n, sizeof(*list), compare_age);
	return list;
}

static uint64_t side_frames(struct side *s)
{
	struct zpool_stats st;

	zpool_stats(s->zp, &st);
	return st.frame_bytes >> OS_FRAME_SHIFT;
}

static bool side_evictions(struct side *s, unsigned round)
{
	uint64_t want = side_frames(s) / 16, frames = 0, calls = 0, young = 0, t, limit = 0;
	uint32_t n;
	struct record **old = side_by_age(s, &n);

	if (!old)
		return false;
	s->nr_gone = 0;
	t = os_clock_ns();
	for (uint64_t got = 1; frames < want && got; calls++, frames += got)
		if (zpool_shrink(s->zp, 1, &got))
			got = 0;
	s->evict_us[round] = (double)(os_clock_ns() - t) / 1e3 / (double)(frames ? frames : 1);
	if (s->nr_gone && s->nr_gone <= n)
		limit = old[s->nr_gone - 1]->age;
	for (uint64_t i = 0; i < s->nr_gone; i++)
		young += s->gone[i] > limit;
	s->objects_per_frame = (double)s->nr_gone / (double)(frames ? frames : 1);
	s->frames_per_call = (double)frames / (double)(calls ? calls : 1);
	s->too_young = (double)young / (double)(s->nr_gone ? s->nr_gone : 1);
	free(old);

	old = side_by_age(s, &n);
	if (!old)
		return false;
	frames = side_frames(s);
	for (uint64_t i = 0; i < s->nr_gone && i < n; i++)
		side_drop(s, (uint32_t)(old[i] - s->rec));
	zpool_compact(s->zp, UINT64_MAX);
	frames -= side_frames(s);
	s->queue_objects_per_frame = (double)s->nr_gone / (double)(frames ? frames : 1);
	free(old);
	return true;
}

static bool side_round(struct side *s, unsigned round, char *bytes)
{
	bool ok;

	frames_init(&s->frames, 0);
	if (zpool_create(s->type, &s->frames, &side_owner, s, &s->zp))
		return false;
	ok = side_fill(s, round, bytes);
	if (ok) {
		side_get(s, round, bytes);
		ok = side_churn(s, bytes) && side_evictions(s, round);
	}
	for (uint32_t i = 0; i < s->n; i++)
		side_drop(s, i);
	zpool_destroy(s->zp);
	return ok;
}

static json_t *side_report(struct side *s)
{
	return json_pack("{s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "zpool", s->type, "density",
			 s->density, "put_ns", median(s->put), "get_ns", median(s->get),
			 "frames_per_shrink", s->frames_per_call, "evicted_per_frame",
			 s->objects_per_frame, "evicted_too_young", s->too_young, "evict_us_frame",
			 median(s->evict_us), "queue_evicted_per_frame",
			 s->queue_objects_per_frame);
}

struct json_t *bench_alloc_drivers(const uint32_t *sizes, uint64_t n)
{
	struct side side[] = {{.type = "zsmalloc"}, {.type = "zbud"}};
	uint32_t *fit = malloc((n ? n : 1) * sizeof(*fit)), count = 0;
	json_t *out = NULL, *list = json_array();
	char *bytes = calloc(1, ZS_MAX_SIZE);
	bool ok = fit && bytes && list;

	for (uint64_t i = 0; ok && i < n && count < UINT32_MAX; i++)
		if (sizes[i] >= 4 && sizes[i] <= ZBUD_MAX_SIZE)
			fit[count++] = sizes[i];
	ok = ok && count;
	for (unsigned i = 0; ok && i < 2; i++) {
		side[i].sizes = fit;
		side[i].n = count;
		side[i].rnd = 0x9e3779b97f4a7c15ull;
		side[i].rec = calloc(count, sizeof(*side[i].rec));
		side[i].gone = calloc(count, sizeof(*side[i].gone));
		ok = side[i].rec && side[i].gone;
	}
	for (unsigned r = 0; ok && r < ROUNDS; r++)
		for (unsigned i = 0; ok && i < 2; i++)
			ok = side_round(&side[i], r, bytes);
	for (unsigned i = 0; ok && i < 2; i++)
		json_array_append_new(list, side_report(&side[i]));
	if (ok)
		out = json_pack("{s:I,s:I,s:O}", "common_objects", (json_int_t)count, "left_out",
				(json_int_t)(n - count), "drivers", list);
	for (unsigned i = 0; i < 2; i++) {
		free(side[i].rec);
		free(side[i].gone);
	}
	json_decref(list);
	free(bytes);
	free(fit);
	return out;
}
