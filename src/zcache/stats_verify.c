/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The identities between the statistics (docs/statistics.md lists them by these
 * names). Each says of a number that it is another's sum, part or bound; together
 * they leave a counter that is forgotten or counted twice little room to hide.
 */
#include "zcache/zcache.h"

#include <stdio.h>

enum relation { EQUAL, AT_MOST };

struct identity {
	const char *name, *text;
	enum relation relation;
	uint64_t left, right;
};

static int judge(const struct identity *d, char *err, size_t errlen)
{
	if (d->relation == EQUAL ? d->left == d->right : d->left <= d->right)
		return 0;
	if (err && errlen)
		snprintf(err, errlen, "%s: %s: %llu, %llu", d->name, d->text,
			 (unsigned long long)d->left, (unsigned long long)d->right);
	return -EINVAL;
}

int tmem_stats_verify(const tmem_stats *s, char *err, size_t errlen)
{
	const struct identity all[] = {
		{"S1", "puts = ok + refused by reason", EQUAL, s->puts,
		 s->puts_ok + s->puts_poor + s->puts_nomem + s->puts_frozen + s->puts_inactive +
			 s->puts_quota},
		{"S2", "gets = found + missed + failed", EQUAL, s->gets,
		 s->gets_found + s->gets_missed + s->gets_failed},
		{"S3", "store_bytes = frame_bytes + meta_bytes", EQUAL, s->store_bytes,
		 s->frame_bytes + s->meta_bytes},
		{"S4", "store_bytes = client_bytes + own_bytes", EQUAL, s->store_bytes,
		 s->client_bytes + s->own_bytes},
		{"S5", "evicted_pages = sum over reasons", EQUAL, s->evicted_pages,
		 s->eph_ate_tail + s->pers_ate_eph + s->evicted_shrink + s->evicted_target +
			 s->evicted_idle + s->evicted_pressure + s->evicted_driver +
			 s->evicted_quota},
		{"S6", "same_filled + overflow <= pages", AT_MOST,
		 s->same_filled_pages + s->overflow_pages, s->pages},
		{"S7", "compressed_bytes + 12 a zpage <= zpage_bytes", AT_MOST,
		 s->compressed_bytes + s->zpages * ZPAGE_SINGLE_HEAD, s->zpage_bytes},
		{"S8", "zpage_bytes <= compressed_bytes + 14 a zpage", AT_MOST, s->zpage_bytes,
		 s->compressed_bytes + s->zpages * ZPAGE_CLUSTER_HEAD},
		{"S9", "zpage_bytes <= frame_bytes", AT_MOST, s->zpage_bytes, s->frame_bytes},
		{"S10", "index_bytes <= meta_bytes", AT_MOST, s->index_bytes, s->meta_bytes},
		{"S11", "zpage_bytes + index_bytes <= client_bytes", AT_MOST,
		 s->zpage_bytes + s->index_bytes, s->client_bytes},
		{"S12", "store_bytes <= store_peak_bytes", AT_MOST, s->store_bytes,
		 s->store_peak_bytes},
		{"S13", "objects <= objects_max", AT_MOST, s->objects, s->objects_max},
		{"S14", "nodes <= nodes_max", AT_MOST, s->nodes, s->nodes_max},
		{"S15", "zpages <= zpages_made", AT_MOST, s->zpages, s->zpages_made},
		{"S16", "invalidates_found <= invalidates", AT_MOST, s->invalidates_found,
		 s->invalidates},
		{"S17", "pages and those that went <= pages that came", AT_MOST,
		 s->pages + s->puts_replaced + s->invalidates_found + s->gets_removed +
			 s->evicted_pages,
		 s->puts_ok + s->shared_pages + s->restored_pages},
		{"S18", "pages in memory that are not same-filled <= 16 a zpage", AT_MOST,
		 s->zpages, s->pages - s->same_filled_pages - s->overflow_pages},
	};
	int rc = 0;

	if (s->size != sizeof(*s))
		return -EINVAL;
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]) && rc == 0; i++)
		rc = judge(&all[i], err, errlen);
	return rc;
}
