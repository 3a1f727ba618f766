/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The recorder's hooks, for put.c, get.c, invalidate.c, pool.c. Each is called
 * after its operation, with no lock held, by a thread that is inside the pool
 * (or has just ended it). A host that is not traced pays one load
 * of a line that the operation has read anyway.
 */
#ifndef TMEM_ZCACHE_TRACE_H
#define TMEM_ZCACHE_TRACE_H

#include "trace/format.h"
#include "zcache/zcache.h"

void zc_trace_write(struct tmem_client *c, struct trace_op *op);
/* Of a host that is being destroyed: stops a recording that still runs. */
void zc_trace_destroy(struct tmem_host *h);

static inline bool zc_traced(const struct tmem_host *h)
{
	return tmem_unlikely(atomic_load_explicit(&h->trace, memory_order_relaxed) != NULL);
}

/* n pages (or what format.h says of this operation) from index on. */
static inline void zc_trace(struct tmem_client *c, tmem_pool pool, enum trace_opcode code,
			    const tmem_oid *oid, uint64_t index, uint64_t n, bool ok, size_t zsize)
{
	if (zc_traced(c->host)) {
		struct trace_op op;

		op.op = code;
		op.ok = ok;
		op.pool = pool;
		for (unsigned i = 0; i < 3; i++)
			op.oid[i] = oid ? oid->w[i] : 0;
		op.index = index;
		op.n = n;
		op.zsize = (uint32_t)zsize;
		op.nsizes = 0;
		zc_trace_write(c, &op);
	}
}

#endif
