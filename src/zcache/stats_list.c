/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Statistics by name: stats.def turned into lists, for a host, a client, a pool; and the
 * distributions.
 */
#include "alloc/zbud.h"
#include "zcache/zcache.h"

/* What the G lines of stats.def may use. */
struct zc_stat_input {
	const struct zc_sum *sum;
	tmem_stats host; /* of a host only, like zp and what follows */
	struct zpool_stats zp;
	uint64_t buddied, unbuddied, unused;
	/* Of whatever the list is of. */
	uint64_t pages, pools, objects, store_bytes, limit, weight, zsize_mean;
};

enum scope { HOST = 1, CLIENT = 2, POOL = 4, H = 1, C = 2, HC = 3, HCP = 7 };
enum kind { NOW, EVER, MAX };

struct def {
	const char *name, *unit, *meaning;
	enum kind kind;
	enum scope scope;
};

static const struct def defs[] = {
#define C(id, dname, dunit, dkind, dscope, dmeaning)	{dname, dunit, dmeaning, dkind, dscope},
#define G(dname, dunit, dkind, dscope, value, dmeaning) {dname, dunit, dmeaning, dkind, dscope},
#include "zcache/stats.def"
#undef C
#undef G
};
#define DEFS (sizeof(defs) / sizeof(defs[0]))

static void values(const struct zc_stat_input *in, uint64_t v[DEFS])
{
	const uint64_t all[] = {
#define C(id, name, unit, kind, scope, meaning)	   in->sum->n[ZC_##id],
#define G(name, unit, kind, scope, value, meaning) (uint64_t)(value),
#include "zcache/stats.def"
#undef C
#undef G
	};

	memcpy(v, all, sizeof(all));
}

static int list(const struct zc_stat_input *in, enum scope scope, tmem_stat *out, unsigned max)
{
	static const char *const kinds[] = {"now", "ever", "max"};
	uint64_t v[DEFS];
	unsigned n = 0;

	values(in, v);
	for (unsigned i = 0; i < DEFS; i++) {
		const struct def *d = &defs[i];

		if (!(d->scope & scope))
			continue;
		if (n < max)
			out[n] = (tmem_stat){d->name, d->unit, kinds[d->kind], d->meaning, v[i]};
		n++;
	}
	return (int)n;
}

static uint64_t zsize_mean(const struct zc_sum *sum, uint64_t pages)
{
	uint64_t in_zpages = pages - sum->n[ZC_SAME_NOW] - sum->n[ZC_OVER_WORDS_NOW];

	return (int64_t)in_zpages > 0 ? sum->n[ZC_ZBYTES_NOW] / in_zpages : 0;
}

/* ---- hosts -------------------------------------------------------------------------- */

int tmem_host_stat_list(tmem_host *h, tmem_stat *out, unsigned max)
{
	struct zc_stat_input in = {.host = {.size = sizeof(in.host)}};
	struct zbud_info zb = {0};
	struct zc_sum sum;

	zc_sum_host(h, &sum);
	in.sum = &sum;
	(void)tmem_host_stats(h, &in.host);
	zpool_stats(h->zpool, &in.zp);
	if (strcmp(h->zpool->ops->type, "zbud") == 0)
		zbud_info(h->zpool, &zb);
	in.buddied = zb.buddied;
	in.unused = zb.spare;
	for (unsigned i = 0; i < ZBUD_CHUNKS; i++)
		in.unbuddied += zb.unbuddied[i];
	in.pages = in.host.pages;
	in.pools = in.host.pools;
	in.objects = in.host.objects;
	in.store_bytes = in.host.store_bytes;
	in.limit = in.host.limit_bytes;
	in.zsize_mean = zsize_mean(&sum, in.pages);
	return list(&in, HOST, out, max);
}

/* ---- clients -------------------------------------------------------------------------- */

static void input_client(struct tmem_client *c, struct zc_stat_input *in, struct zc_sum *sum)
{
	memset(in, 0, sizeof(*in));
	zc_sum_client(c, sum);
	in->sum = sum;
	for (uint32_t i = 0; i < ZC_SLOTS; i++) {
		struct zc_slot *slot = zc_slot_of(c, i), *s;
		int32_t id = slot ? atomic_load(&slot->id) : -1;

		if (!slot)
			break;
		s = id < 0 ? NULL : zc_pool_enter(c, id);
		if (!s)
			continue;
		in->pools++;
		if (!s->shared) { /* of that the pages are the pool's, not the client's */
			in->pages += index_pool_pages(s->pool);
			in->objects += index_pool_objects(s->pool);
		}
		zc_pool_leave(s);
	}
	in->store_bytes = zc_client_bytes(c, zc_credits(c));
	in->limit = atomic_load_explicit(&c->limit, memory_order_relaxed);
	in->weight = atomic_load_explicit(&c->weight, memory_order_relaxed);
	in->zsize_mean = zsize_mean(sum, in->pages);
}

int tmem_client_stat_list(tmem_client *c, tmem_stat *out, unsigned max)
{
	struct zc_stat_input in;
	struct zc_sum sum;

	input_client(c, &in, &sum);
	return list(&in, CLIENT, out, max);
}

int tmem_client_stats_get(tmem_client *c, tmem_client_stats *out)
{
	struct zc_stat_input in;
	struct zc_sum sum;

	if (out->size != sizeof(*out))
		return -EINVAL;
	input_client(c, &in, &sum);
	*out = (tmem_client_stats){.size = sizeof(*out),
				   .pages = in.pages,
				   .same_filled_pages = sum.n[ZC_SAME_NOW],
				   .zpages = sum.n[ZC_ZPAGES_NOW],
				   .compressed_bytes = sum.n[ZC_ZBYTES_NOW],
				   .overflow_pages = sum.n[ZC_OVER_WORDS_NOW],
				   .store_bytes = in.store_bytes,
				   .limit_bytes = in.limit,
				   .weight = in.weight,
				   .pools = in.pools,
				   .puts = sum.n[ZC_PUTS],
				   .puts_ok = sum.n[ZC_PUTS_OK],
				   .gets = sum.n[ZC_GETS],
				   .gets_found = sum.n[ZC_GETS_FOUND],
				   .gets_missed = sum.n[ZC_GETS_MISSED],
				   .invalidates_found = sum.n[ZC_INVALIDATES_FOUND],
				   .evicted_pages = zc_evicted(&sum)};
	memcpy(out->name, c->name, sizeof(out->name));
	return 0;
}

/* ---- pools ------------------------------------------------------------------------------ */

static void input_pool(struct zc_slot *s, struct zc_stat_input *in, struct zc_sum *sum)
{
	memset(in, 0, sizeof(*in));
	zc_sum_pool(s, sum);
	in->sum = sum;
	in->pages = index_pool_pages(s->pool);
	in->objects = index_pool_objects(s->pool);
}

int tmem_pool_stat_list(tmem_client *c, tmem_pool pool, tmem_stat *out, unsigned max)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	struct zc_stat_input in;
	struct zc_sum sum;
	int n;

	if (!s)
		return -ENOENT;
	input_pool(s, &in, &sum);
	n = list(&in, POOL, out, max);
	zc_pool_leave(s);
	return n;
}

int tmem_pool_stats_get(tmem_client *c, tmem_pool pool, tmem_pool_stats *out)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	struct zc_stat_input in;
	struct zc_sum sum;
	int rc = -EINVAL;

	if (!s)
		return -ENOENT;
	if (out->size != sizeof(*out))
		goto out;
	input_pool(s, &in, &sum);
	*out = (tmem_pool_stats){.size = sizeof(*out),
				 .pages = in.pages,
				 .same_filled_pages = sum.n[ZC_SAME_NOW],
				 .overflow_pages = sum.n[ZC_OVER_WORDS_NOW],
				 .objects = in.objects,
				 .index_bytes = sum.n[ZC_META_NOW],
				 .puts = sum.n[ZC_PUTS],
				 .puts_ok = sum.n[ZC_PUTS_OK],
				 .gets = sum.n[ZC_GETS],
				 .gets_found = sum.n[ZC_GETS_FOUND],
				 .gets_missed = sum.n[ZC_GETS_MISSED],
				 .invalidates_found = sum.n[ZC_INVALIDATES_FOUND],
				 .evicted_pages = zc_evicted(&sum)};
	rc = 0;
out:
	zc_pool_leave(s);
	return rc;
}

/* ---- distributions ------------------------------------------------------------------------ */

static void sizes(tmem_host *h, tmem_client *c, bool ever, tmem_histogram *out)
{
	struct zc_sum sum;

	if (c)
		zc_sum_client(c, &sum);
	else
		zc_sum_host(h, &sum);
	out->unit = "zpages";
	out->buckets = ZC_ZSIZE_BUCKETS;
	for (unsigned i = 0; i < ZC_ZSIZE_BUCKETS; i++) {
		out->most[i] = (i + 1) * (uint64_t)ZC_ZSIZE_CHUNK;
		out->count[i] = ever ? sum.made[i] : sum.made[i] - sum.freed[i];
	}
}

static void times(tmem_host *h, enum zc_latency what, tmem_histogram *out)
{
	uint64_t sum[ZC_LATENCIES][ZC_LATENCY_BUCKETS];

	zc_sum_latency(h, sum);
	out->unit = "operations";
	out->buckets = ZC_LATENCY_BUCKETS;
	for (unsigned i = 0; i < ZC_LATENCY_BUCKETS; i++) {
		out->most[i] = ((uint64_t)2 << i) - 1;
		out->count[i] = sum[what][i];
	}
}

int tmem_host_histogram(tmem_host *h, tmem_client *c, tmem_histogram_kind kind, tmem_histogram *out)
{
	_Static_assert(ZC_ZSIZE_BUCKETS <= 64 && ZC_LATENCY_BUCKETS <= 64, "tmem_histogram");
	memset(out, 0, sizeof(*out));
	switch (kind) {
	case TMEM_PUT_NS:
	case TMEM_GET_NS:
		if (c)
			return -EINVAL;
		times(h, kind == TMEM_PUT_NS ? ZC_PUT_NS : ZC_GET_NS, out);
		break;
	case TMEM_ZSIZE_NOW:
	case TMEM_ZSIZE_EVER:
		sizes(h, c, kind == TMEM_ZSIZE_EVER, out);
		break;
	default:
		return -EINVAL;
	}
	for (unsigned i = 0; i < out->buckets; i++)
		out->total += out->count[i];
	return 0;
}
