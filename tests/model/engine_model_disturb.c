/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What one more thread does while the others work: limits and tunables, freezing,
 * evicting, compaction, recompression, maintenance, statistics, recordings. None of it
 * may change what a page holds, nor lose one that may not be lost.
 */
#include "engine_model.h"

#include "os/clock.h"

_Atomic bool stop;

/* ---- tunables --------------------------------------------------------------------------- */

/* The first is the default, and comes most often. */
static const struct {
	const char *name;
	bool of_client;
	const char *good[4], *bad[3];
} tunables[] = {
	{"target", false, {"0", "1M", "2097152", "4096K"}, {"-1", "1X", "2000000P"}},
	{"accept_percent", false, {"90", "1", "50", "100"}, {"0", "101", "9 "}},
	{"max_zsize", false, {"3584", "4096", "2048", "1"}, {"0", "4097", "0x10"}},
	{"max_mean_zsize", false, {"2560", "4096", "1024", "1"}, {"0", "4097", ""}},
	{"store_raw", false, {"0", "1", "1", "0"}, {"2", "yes", "-0"}},
	{"codec", false, {"lz4", "zstd:1", "deflate", "lz4hc:3"}, {"lz5", "zstd:99", "lz4:"}},
	{"idle_ms", false, {"0", "300", "2000", "50"}, {"-1", "1K", "1.5"}},
	{"pressure_ppm", false, {"1000000", "1000", "0", "1"}, {"1000001", "off", ""}},
	{"recompress_rate", false, {"0", "1000", "1000000", "1"}, {"1000001", "-1", "1M"}},
	{"recompress_idle_ms", false, {"1000", "1500", "60000", "1001"}, {"999", "0", "1s"}},
	{"recompress_cluster", false, {"0", "1", "8", "16"}, {"17", "-1", "x"}},
	{"recompress_codec", false, {"zstd:3", "deflate:1", "lz4hc:3", "lz4"}, {"zstd:x", "", "0"}},
	{"weight", true, {"100", "1", "10000", "5"}, {"0", "10001", "1K"}},
};

static void get_tunable(struct worker *w, tmem_client *c, const char *name, char text[64])
{
	if (tmem_tunable_get(host, c, name, text, 64))
		fail(w, "tunable %s cannot be read", name);
}

/* What is refused leaves the old value; what is read can be set, and is what was set. */
static void tunable(struct worker *w)
{
	unsigned k = (unsigned)rnd(w, sizeof(tunables) / sizeof(tunables[0]));
	tmem_client *c = tunables[k].of_client ? client : NULL;
	const char *name = tunables[k].name, *good;
	char before[64], after[64], err[160];
	bool no_room;
	int rc;

	get_tunable(w, c, name, before);
	rc = tmem_tunable_set(host, c, name, tunables[k].bad[rnd(w, 3)], err, sizeof(err));
	get_tunable(w, c, name, after);
	if (rc != -EINVAL || !err[0] || strcmp(before, after) != 0)
		fail(w, "tunable %s: a bad value: %d, %s, was %s, is %s", name, rc, err, before,
		     after);
	good = tunables[k].good[rnd(w, 4) ? 0 : rnd(w, 4)];
	/* It has no room for a page as it is. */
	no_room = zbud && strcmp(name, "store_raw") == 0 && *good == '1';
	rc = tmem_tunable_set(host, c, name, good, NULL, 0);
	/* A codec may need memory. */
	if (no_room ? rc != -EINVAL : rc && rc != -ENOMEM)
		fail(w, "tunable %s: %d", name, rc);
	get_tunable(w, c, name, before);
	rc = tmem_tunable_set(host, c, name, before, NULL, 0);
	get_tunable(w, c, name, after);
	if ((rc && rc != -ENOMEM) || strcmp(before, after) != 0)
		fail(w, "tunable %s: %d, was %s, is %s", name, rc, before, after);
}

static void overflow_rate(struct worker *w)
{
	static const uint64_t rate[] = {0, 0, 64u << 20, 1u << 20, 1};
	int rc = tmem_host_set_overflow_rate(host, rate[rnd(w, 5)]);

	if (rc != (has_overflow ? 0 : -EINVAL))
		fail(w, "overflow_rate: %d", rc);
}

/* ---- what the host does with pages -------------------------------------------------------- */

/* A pass, or a bounded step, to this codec or that. */
static void recompress(struct worker *w)
{
	static const char *const to[] = {"zstd:1", "zstd:3", "deflate:1", "lz4hc:3"};
	tmem_recompress_result r = {.size = sizeof(r)};
	tmem_recompress o = TMEM_RECOMPRESS;
	int rc;

	o.codec = to[rnd(w, 4)];
	o.idle_ms = rnd(w, 2) ? 1 : 0;
	o.max_pages = rnd(w, 2) ? 100 : 0;
	o.min_gain_percent = rnd(w, 4) ? 0 : (uint32_t)rnd(w, 91);
	o.pages_per_s = rnd(w, 8) ? 0 : 1u << 20;
	o.cpu_percent = rnd(w, 8) ? 0 : 90;
	o.train = rnd(w, 16) == 0;
	o.cluster = rnd(w, 2) ? (uint32_t)rnd(w, TMEM_CLUSTER_MAX + 1) : 0;
	rc = tmem_host_recompress(host, &o, &r);
	/* Maintenance may be in a step of it. */
	if (rc && rc != -ENOMEM && rc != -EBUSY)
		fail(w, "recompress: %d", rc);
	if (r.recompressed > r.tried || r.tried > r.looked_at || r.passes > 1 || r.trained > 1 ||
	    (r.saved_bytes && !r.recompressed))
		fail(w,
		     "recompress says: looked at %llu, tried %llu, recompressed %llu, saved %llu",
		     ULL(r.looked_at), ULL(r.tried), ULL(r.recompressed), ULL(r.saved_bytes));
}

static void freeze(struct worker *w)
{
	bool all = rnd(w, 2);

	if (all)
		tmem_host_freeze(host, 1);
	else
		tmem_client_freeze(client, 1);
	os_sleep_ns(100000);
	if (all)
		tmem_host_freeze(host, 0);
	else
		tmem_client_freeze(client, 0);
}

static void limits(struct worker *w)
{
	switch (rnd(w, 6)) {
	case 0:
		host_limit_set(w, (tight ? 1 : 3) * (3u + rnd(w, 4)) << 20);
		break;
	case 1:
	case 2:
		/* Not none while it is tight: then the peak has a bound. */
		host_limit_set(w, tight ? TIGHT_BYTES : 0);
		break;
	case 3:
		client_limit_set(w, (1u + rnd(w, 4)) << 20);
		break;
	default:
		client_limit_set(w, 0);
	}
}

static void evict(struct worker *w)
{
	uint64_t got;

	switch (rnd(w, 4)) {
	case 0:
		if (tmem_host_shrink(host, rnd(w, 200), &got))
			fail(w, "shrink");
		break;
	case 1:
		(void)tmem_host_age(host, 1 + rnd(w, 100));
		break;
	case 2:
		if (tmem_host_set_target(host, rnd(w, 2) ? (1 + rnd(w, 4)) << 20 : 0))
			fail(w, "set_target");
		break;
	default:
		tmem_host_maintain(host);
	}
}

/* ---- looking ----------------------------------------------------------------------------------
 */

static void look(struct worker *w)
{
	tmem_histogram_kind kind = (tmem_histogram_kind)rnd(w, 4);
	tmem_histogram hist;
	tmem_stat list[192];
	uint64_t sum = 0;
	int n = tmem_host_stat_list(host, list, 192);

	if (n < 50 || n > 192 || tmem_client_stat_list(client, list, 192) < 10)
		fail(w, "lists of statistics: %d", n);
	if (tmem_host_histogram(host, kind >= TMEM_ZSIZE_NOW && rnd(w, 2) ? client : NULL, kind,
				&hist))
		fail(w, "histogram");
	for (unsigned i = 0; i < hist.buckets; i++)
		sum += hist.count[i];
	if (sum != hist.total)
		fail(w, "histogram %d: %llu in buckets, %llu in all", (int)kind, ULL(sum),
		     ULL(hist.total));
	if (rnd(w, 8) == 0 && tmem_host_verify(host, 0))
		fail(w, "verify while others run");
}

void *disturb(void *arg)
{
	static const char *const codec[] = {"lz4", "lz4", "lz4", "zstd:1", "zstd:-3", "none"};
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		uint64_t what = rnd(w, 26);

		if (what < 2)
			limits(w);
		else if (what < 3 && tmem_host_set_codec(host, codec[rnd(w, 6)]) == -ENOENT)
			fail(w, "set_codec");
		else if (what < 5)
			freeze(w);
		else if (what < 6)
			look(w);
		else if (what < 9)
			evict(w);
		else if (what < 12)
			recompress(w);
		else if (what < 15)
			tunable(w);
		else if (what < 16)
			overflow_rate(w);
		else if (what < 17 && rnd(w, 4) == 0)
			trace_toggle();
		else
			(void)tmem_host_compact(host, 1u << 20);
		limits_sample();
		os_sleep_ns(200000 + rnd(w, 400000));
	}
	return NULL;
}
