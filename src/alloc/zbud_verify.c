/* SPDX-License-Identifier: BSD-2-Clause */
/* Statistics and the full walk of zbud. Invariants I1 to I6: zbud.c. */
#include "alloc/zbud_internal.h"
#include "os/log.h"

#include <errno.h>

/* Sums over all frames that the walk compares with the counters. */
struct zbud_sums {
	uint64_t where[ZBUD_EVICTING + 1], queued[ZBUD_KINDS];
	uint64_t listed[ZBUD_KINDS][ZBUD_CHUNKS];
	uint64_t objects, chunks, huge;
};

static int zbud_broken(uint32_t id, const char *what)
{
	os_log(OS_LOG_ERROR, "zbud: frame %u: %s", id, what);
	return -EINVAL;
}

static int zbud_verify_object(struct zbud_pool *p, uint32_t id, unsigned chunk, unsigned chunks,
			      struct zbud_sums *s)
{
	unsigned state =
		atomic_load_explicit(zbud_state(p, zbud_handle(id, chunk)), memory_order_relaxed);

	if (!chunks)
		return 0;
	if (!(state & ZBUD_ALLOCATED))
		return zbud_broken(id, "I5: an object is not allocated");
	s->objects++;
	s->chunks += chunks;
	s->huge += chunks >= ZBUD_HUGE_CHUNKS;
	return 0;
}

static int zbud_verify_frame(struct zbud_pool *p, uint32_t id, struct zbud_sums *s)
{
	struct zbud_frame *f = &p->desc[id];
	bool one = !f->first != !f->last;
	int ret;

	if (f->where > ZBUD_EVICTING || f->kind >= ZBUD_KINDS)
		return zbud_broken(id, "where or kind is impossible");
	s->where[f->where]++;
	if (f->first + f->last > ZBUD_CHUNKS)
		return zbud_broken(id, "I1: buddies overlap");
	if ((f->where <= ZBUD_SPARE && (f->first || f->last)) ||
	    (f->where == ZBUD_QUEUED && !f->first && !f->last))
		return zbud_broken(id, "I1: objects in an empty frame, or none in a queued one");
	if (f->listed !=
	    (f->where == ZBUD_QUEUED && one ? (ZBUD_CHUNKS - f->first - f->last) % ZBUD_CHUNKS : 0))
		return zbud_broken(id, "I3: is on the wrong list");
	s->listed[f->kind][f->listed] += f->listed != 0;
	s->queued[f->kind] += f->where == ZBUD_QUEUED;
	ret = f->where >= ZBUD_QUEUED ? zbud_verify_object(p, id, 0, f->first, s) : 0;
	if (!ret && f->where >= ZBUD_QUEUED)
		ret = zbud_verify_object(p, id, (ZBUD_CHUNKS - f->last) % ZBUD_CHUNKS, f->last, s);
	return ret;
}

/* A ring has `n` frames that are where they say; queues ascend. */
static int zbud_verify_ring(struct zbud_pool *p, uint32_t head, enum zbud_ring r, uint64_t n,
			    enum zbud_kind kind, unsigned room)
{
	uint64_t found = 0, stamp = 0;
	uint32_t id = head;

	while (id) {
		struct zbud_frame *f = &p->desc[id];

		if (++found > n || id >= p->next)
			return zbud_broken(id, "I2, I3: a ring is longer than counted");
		if (f->where != ZBUD_QUEUED || f->kind != kind ||
		    (r == ZBUD_UNBUDDIED && f->listed != room))
			return zbud_broken(id, "I2, I3: is in a ring of others");
		if (p->desc[f->link[r].next].link[r].prev != id)
			return zbud_broken(id, "I2, I3: a ring is broken");
		if (r == ZBUD_QUEUE && (f->stamp <= stamp || f->stamp > p->stamp))
			return zbud_broken(id, "I2: a queue is not in the order of age");
		stamp = f->stamp;
		id = f->link[r].next;
		if (id == head)
			break;
	}
	return found == n ? 0 : zbud_broken(head, "I2, I3: a ring is shorter than counted");
}

static int zbud_verify_list(struct zbud_pool *p, uint32_t id, enum zbud_where where, uint64_t most)
{
	uint64_t found = 0;

	for (; id; id = p->desc[id].link[ZBUD_QUEUE].next)
		if (++found > most || id >= p->next || p->desc[id].where != where)
			return zbud_broken(id, "a list of free or spare frames is wrong");
	return where != ZBUD_SPARE || found == most ? 0 : zbud_broken(0, "I4: spare frames");
}

int zbud_verify_locked(struct zbud_pool *p)
{
	struct zbud_sums s = {0};
	int ret = 0;

	os_mutex_assert_held(&p->lock);
	for (uint32_t id = 1; id < p->next && !ret; id++)
		ret = zbud_verify_frame(p, id, &s);
	for (unsigned k = 0; k < ZBUD_KINDS && !ret; k++) {
		if (s.queued[k] != p->queued[k])
			ret = zbud_broken(0, "I4: frames in a queue");
		if (!ret)
			ret = zbud_verify_ring(p, p->queue[k], ZBUD_QUEUE, s.queued[k], k, 0);
		for (unsigned f = 1; f < ZBUD_CHUNKS && !ret; f++) {
			if ((p->lists[k] >> f & 1) != (p->unbuddied[k][f] != 0))
				ret = zbud_broken(0, "I3: bits of the lists");
			else
				ret = zbud_verify_ring(p, p->unbuddied[k][f], ZBUD_UNBUDDIED,
						       s.listed[k][f], k, f);
		}
	}
	if (!ret)
		ret = zbud_verify_list(p, p->free_ids, ZBUD_FREE, s.where[ZBUD_FREE]);
	if (!ret)
		ret = zbud_verify_list(p, p->spare, ZBUD_SPARE, p->nr_spare);
	if (!ret &&
	    (s.where[ZBUD_SPARE] != p->nr_spare || s.where[ZBUD_EVICTING] != p->nr_evicting ||
	     p->resident != p->queued[0] + p->queued[1] + p->nr_spare + p->nr_evicting))
		ret = zbud_broken(0, "I4: resident frames are not the sum");
	if (!ret && (s.objects != p->objects || s.chunks != p->chunks || s.huge != p->huge))
		ret = zbud_broken(0, "I5: counters are not the sums over the frames");
	return ret;
}

int zbud_verify(struct zpool *zp)
{
	struct zbud_pool *p = zbud_pool(zp);
	int ret;

	os_mutex_lock(&p->lock);
	ret = zbud_verify_locked(p);
	os_mutex_unlock(&p->lock);
	return ret;
}

void zbud_stats(struct zpool *zp, struct zpool_stats *st)
{
	struct zbud_pool *p = zbud_pool(zp);

	os_mutex_lock(&p->lock);
	*st = (struct zpool_stats){
		.objects = p->objects,
		.object_bytes = p->chunks * ZBUD_CHUNK,
		.frame_bytes = p->resident << OS_FRAME_SHIFT,
		.meta_bytes = p->meta_bytes + sizeof(*p),
		.huge_objects = p->huge,
		.moved_objects = p->moved,
		.freed_frames = p->freed,
		.compacted_frames = p->compacted,
		.evicted_objects = p->evicted,
		.evict_refused = p->evict_refused,
		.shrunk_frames = p->shrunk,
	};
	os_mutex_unlock(&p->lock);
}

void zbud_info(struct zpool *zp, struct zbud_info *info)
{
	struct zbud_pool *p = zbud_pool(zp);

	*info = (struct zbud_info){0};
	os_mutex_lock(&p->lock);
	info->spare = p->nr_spare;
	info->evicting = p->nr_evicting;
	info->ids = p->next - 1;
	for (unsigned k = 0; k < ZBUD_KINDS; k++) {
		uint32_t id = p->queue[k];

		info->queued[k] = p->queued[k];
		for (uint64_t i = 0; i < p->queued[k];
		     i++, id = p->desc[id].link[ZBUD_QUEUE].next) {
			info->buddied += p->desc[id].first && p->desc[id].last;
			info->unbuddied[p->desc[id].listed] += p->desc[id].listed != 0;
		}
	}
	os_mutex_unlock(&p->lock);
}
