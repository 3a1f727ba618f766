/* SPDX-License-Identifier: BSD-2-Clause */
/* Statistics: counters summed over threads, and the gauges of the parts. */
#include "zcache/zcache.h"

_Static_assert(ZC_EVICTED + ZC_WHYS == ZC_EVICTED_ZPAGES, "stats.def: one a reason");
/* Pages that are compressed in memory: mean over them is looked up every so often. */
#define MEAN_EVERY 64u

bool zc_mean_is_poor(struct tmem_host *h, struct zc_thread *t)
{
	uint32_t mean = atomic_load_explicit(&h->mean_zsize, memory_order_relaxed);

	/* Who holds the emergency state may not take the lock of the counters. */
	if (t != h->emergency && (!mean || ++t->poor_seen % MEAN_EVERY == 0)) {
		uint64_t n[ZC_COUNTERS], pages;
		struct index_stats ix;

		zc_threads_sum(h, n);
		index_stats(h->index, &ix);
		pages = ix.pages - n[ZC_SAME_NOW] - n[ZC_OVER_WORDS_NOW];
		/* Counters of threads that run are not of one instant. */
		if ((int64_t)pages <= 0)
			return false;
		mean = (uint32_t)(n[ZC_ZBYTES_NOW] / pages);
		atomic_store_explicit(&h->mean_zsize, mean, memory_order_relaxed);
	}
	return mean > atomic_load_explicit(&h->max_mean_zsize, memory_order_relaxed);
}

uint64_t zc_evicted(const struct zc_sum *sum)
{
	uint64_t pages = 0;

	for (unsigned why = 0; why < ZC_WHYS; why++)
		pages += sum->n[ZC_EVICTED + why];
	return pages;
}

/* What clients and shared pools are charged for. */
static void add_shared(void *arg, struct zc_slot *home)
{
	*(uint64_t *)arg += zc_client_bytes(home->client, zc_pool_credits(home));
}

static uint64_t client_bytes(struct tmem_host *h)
{
	uint64_t bytes = 0;

	os_mutex_lock(&h->lock);
	for (struct tmem_client *c = h->clients; c; c = c->next)
		bytes += zc_client_bytes(c, zc_credits_locked(c));
	zc_shared_each(h, add_shared, &bytes);
	os_mutex_unlock(&h->lock);
	return bytes;
}

int tmem_host_stats(tmem_host *h, tmem_stats *out)
{
	size_t size = out->size, least = __builtin_offsetof(tmem_stats, pages);
	tmem_stats s = {.size = sizeof(s)};
	uint64_t n[ZC_COUNTERS];
	struct index_stats ix;
	struct zpool_stats zp;

	if (size < least || size > sizeof(s))
		return -EINVAL;
	zc_threads_sum(h, n);
	index_stats(h->index, &ix);
	zpool_stats(h->zpool, &zp);

	s.pages = ix.pages;
	s.same_filled_pages = n[ZC_SAME_NOW];
	s.zpages = n[ZC_ZPAGES_NOW];
	s.compressed_bytes = n[ZC_ZBYTES_NOW];
	s.store_bytes = frames_used(&h->frames);
	s.store_peak_bytes = atomic_load_explicit(&h->frames.peak_bytes, memory_order_relaxed);
	s.limit_bytes = atomic_load_explicit(&h->frames.limit_bytes, memory_order_relaxed);
	s.frame_bytes = zp.frame_bytes;
	s.meta_bytes = s.store_bytes > zp.frame_bytes ? s.store_bytes - zp.frame_bytes : 0;
	s.objects = ix.objects;
	s.nodes = ix.nodes;
	s.pools = atomic_load(&h->npools);
	s.clients = atomic_load(&h->nclients);
	s.overflow_pages = n[ZC_OVER_WORDS_NOW];
	s.overflow_bytes = n[ZC_OVER_BYTES_NOW];
	s.puts = n[ZC_PUTS];
	s.puts_ok = n[ZC_PUTS_OK];
	s.puts_same_filled = n[ZC_PUTS_SAME];
	s.puts_replaced = n[ZC_PUTS_REPLACED];
	s.puts_poor = n[ZC_PUTS_POOR];
	s.puts_nomem = n[ZC_PUTS_NOMEM];
	s.puts_frozen = n[ZC_PUTS_FROZEN];
	s.puts_raw = n[ZC_PUTS_RAW];
	s.gets = n[ZC_GETS];
	s.gets_found = n[ZC_GETS_FOUND];
	s.gets_missed = n[ZC_GETS_MISSED];
	s.checksum_failures = n[ZC_BAD_CHECKSUMS];
	s.invalidates = n[ZC_INVALIDATES];
	s.invalidates_found = n[ZC_INVALIDATES_FOUND];
	s.object_invalidates = n[ZC_OBJECT_INVALIDATES];
	s.pool_flushes = n[ZC_FLUSHES];
	s.shared_pages = n[ZC_SHARED_PAGES];
	s.compacted_bytes = zp.compacted_frames * OS_FRAME_SIZE;
	s.moved_zpages = zp.moved_objects;
	s.puts_full = n[ZC_PUTS_FULL];
	s.puts_packed = n[ZC_PUTS_PACKED];
	s.puts_mean_poor = n[ZC_PUTS_MEAN_POOR];
	s.puts_mean_passed = n[ZC_PUTS_MEAN_PASSED];
	s.puts_inactive = n[ZC_PUTS_INACTIVE];
	s.puts_inactive_ok = n[ZC_PUTS_INACTIVE_OK];
	s.gets_removed = n[ZC_GETS_REMOVED];
	s.eph_ate_tail = n[ZC_EVICTED + ZC_WHY_EPHEMERAL];
	s.pers_ate_eph = n[ZC_EVICTED + ZC_WHY_PERSISTENT];
	s.evicted_shrink = n[ZC_EVICTED + ZC_WHY_SHRINK];
	s.evicted_target = n[ZC_EVICTED + ZC_WHY_TARGET];
	s.evicted_idle = n[ZC_EVICTED + ZC_WHY_IDLE];
	s.evicted_pressure = n[ZC_EVICTED + ZC_WHY_PRESSURE];
	s.evicted_driver = n[ZC_EVICTED + ZC_WHY_DRIVER];
	for (unsigned why = 0; why < ZC_WHYS; why++)
		s.evicted_pages += n[ZC_EVICTED + why];
	s.evicted_zpages = n[ZC_EVICTED_ZPAGES];
	s.evicted_bytes = n[ZC_EVICTED_BYTES];
	s.puts_quota = n[ZC_PUTS_QUOTA];
	s.evicted_quota = n[ZC_EVICTED + ZC_WHY_QUOTA];
	s.gets_failed = n[ZC_GETS_FAILED];
	s.saved_pages = n[ZC_SAVED_PAGES];
	s.restored_pages = n[ZC_RESTORED_PAGES];
	s.zpage_bytes = n[ZC_ZALLOC_NOW];
	s.index_bytes = n[ZC_META_NOW];
	s.client_bytes = client_bytes(h);
	s.own_bytes = s.store_bytes > s.client_bytes ? s.store_bytes - s.client_bytes : 0;
	s.objects_max = ix.objects_max;
	s.nodes_max = ix.nodes_max;
	s.overflow_zpages = n[ZC_OVER_ZPAGES_NOW];
	s.zpages_made = n[ZC_ZPAGES_EVER];
	s.failed_charges = atomic_load_explicit(&h->frames.refused, memory_order_relaxed);
	s.recompress_tried = n[ZC_RECOMPRESS_TRIED];
	s.recompressed = n[ZC_RECOMPRESSED];
	s.recompress_saved_bytes = n[ZC_RECOMPRESS_SAVED];
	s.dictionary_bytes = zc_dicts_bytes(h, &s.dictionaries);

	s.overflow_file_bytes = h->overflow ? zc_overflow_file_bytes(h) : 0;
	s.overflow_moved_pages = n[ZC_OVER_MOVED];
	s.overflow_direct_pages = n[ZC_OVER_DIRECT];
	s.overflow_returned_pages = n[ZC_OVER_BACK];
	s.overflow_second_chances = n[ZC_OVER_CHANCES];
	s.overflow_throttled = n[ZC_OVER_THROTTLED];
	s.overflow_write_errors = n[ZC_OVER_WRITE_ERRORS];
	s.overflow_read_errors = n[ZC_OVER_READ_ERRORS];

	s.size = size;
	memcpy(out, &s, size);
	return 0;
}

int64_t tmem_pool_pages(tmem_client *c, tmem_pool pool)
{
	struct zc_slot *s = zc_pool_enter(c, pool);
	int64_t pages;

	if (!s)
		return -ENOENT;
	pages = (int64_t)index_pool_pages(s->pool);
	zc_pool_leave(s);
	return pages;
}
