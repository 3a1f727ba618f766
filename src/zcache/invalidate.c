/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Invalidations: pages dropped by handle, by range, by object, by pool.
 *
 * All of it is the index's work, in batches; what the words named is let go
 * of in zc_pam.drop(). When the index has returned, no later get finds the
 * words (T7).
 */
#include "zcache/trace.h"
#include "zcache/zcache.h"

static void count(struct zc_slot *s, enum zc_counter event, uint64_t events, uint64_t tried,
		  uint64_t found)
{
	struct zc_thread *t = zc_thread_enter(s->host, s);

	zc_count(t, event, events);
	zc_count(t, ZC_INVALIDATES, tried);
	zc_count(t, ZC_INVALIDATES_FOUND, found);
	zc_thread_leave(t);
}

int tmem_invalidate_page(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	bool found;

	if (tmem_unlikely(!s))
		return -ENOENT;
	found = index_invalidate(s->pool, zc_oid(oid), index);
	count(s, ZC_INVALIDATES, 1, 0, found);
	zc_trace(c, pool, TRACE_DROP, oid, index, 1, found, 0);
	zc_pool_leave(s);
	return found;
}

int64_t tmem_invalidate_range(tmem_client *c, tmem_pool pool, const tmem_oid *oid, uint64_t index,
			      uint64_t n)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	uint64_t found;

	if (!s)
		return -ENOENT;
	if (n && index + (n - 1) < index) /* past the last index: up to it */
		n = -index;
	found = n ? index_invalidate_range(s->pool, zc_oid(oid), index, n) : 0;
	count(s, ZC_INVALIDATES, found, 0, found);
	zc_trace(c, pool, TRACE_DROP, oid, index, n, found, 0);
	zc_pool_leave(s);
	return (int64_t)found;
}

int64_t tmem_invalidate_object(tmem_client *c, tmem_pool pool, const tmem_oid *oid)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	uint64_t found;

	if (!s)
		return -ENOENT;
	found = index_invalidate_object(s->pool, zc_oid(oid));
	count(s, ZC_OBJECT_INVALIDATES, 1, found, found);
	zc_trace(c, pool, TRACE_DROP_OBJECT, oid, 0, 0, found, 0);
	zc_pool_leave(s);
	return (int64_t)found;
}

int64_t tmem_pool_flush(tmem_client *c, tmem_pool pool)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	uint64_t found;

	if (!s)
		return -ENOENT;
	found = index_flush(s->pool);
	count(s, ZC_FLUSHES, 1, found, found);
	zc_trace(c, pool, TRACE_FLUSH_POOL, NULL, 0, 0, found, 0);
	zc_pool_leave(s);
	return (int64_t)found;
}
