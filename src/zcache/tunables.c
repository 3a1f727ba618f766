/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tunables: one table with name, unit, range and meaning, from which setting, reading,
 * listing and the check of docs/tunables.md come.
 *
 * A value is judged completely before anything changes; what is refused leaves the old
 * one. Each is a word that the operations read by itself, so a change takes effect with
 * the next operation and needs no lock.
 */
#include "zcache/overflow.h"
#include "zcache/zcache.h"

#include <stdio.h>

#define PPM_MAX 1000000u

struct target {
	tmem_host *h;
	tmem_client *c;
};

struct tunable {
	tmem_tunable is;
	uint64_t least, most;
	/* Numbers; a setter may refuse all the same (-errno). */
	int (*set)(const struct target *t, uint64_t v);
	uint64_t (*get)(const struct target *t);
	/* Texts instead. */
	int (*set_text)(const struct target *t, const char *v);
	void (*get_text)(const struct target *t, char *text, size_t len);
};

/* ---- hosts ------------------------------------------------------------------------- */

static int set_limit(const struct target *t, uint64_t v)
{
	return tmem_host_set_limit(t->h, v);
}
static uint64_t get_limit(const struct target *t)
{
	return atomic_load(&t->h->frames.limit_bytes);
}
static int set_target(const struct target *t, uint64_t v)
{
	return tmem_host_set_target(t->h, v);
}
static uint64_t get_target(const struct target *t)
{
	return atomic_load(&t->h->target_bytes);
}
static int set_accept(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->accept_percent, (uint32_t)v);
	zc_marks_update(t->h);
	return 0;
}
static uint64_t get_accept(const struct target *t)
{
	return atomic_load(&t->h->accept_percent);
}
static int set_max_zsize(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->max_zsize, (uint32_t)v);
	return 0;
}
static uint64_t get_max_zsize(const struct target *t)
{
	return atomic_load(&t->h->max_zsize);
}
static int set_max_mean(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->max_mean_zsize, (uint32_t)v);
	return 0;
}
static uint64_t get_max_mean(const struct target *t)
{
	return atomic_load(&t->h->max_mean_zsize);
}
static int set_raw(const struct target *t, uint64_t v)
{
	if (v && !zpage_fits_raw(t->h->zpool->ops))
		return -EINVAL;
	atomic_store(&t->h->store_raw, v != 0);
	return 0;
}
static uint64_t get_raw(const struct target *t)
{
	return atomic_load(&t->h->store_raw);
}
static int set_freeze(const struct target *t, uint64_t v)
{
	tmem_host_freeze(t->h, v != 0);
	return 0;
}
static uint64_t get_freeze(const struct target *t)
{
	return atomic_load(&t->h->frozen) != 0;
}
static int set_rate(const struct target *t, uint64_t v)
{
	return tmem_host_set_overflow_rate(t->h, v);
}
static uint64_t get_rate(const struct target *t)
{
	return t->h->overflow ? atomic_load(&t->h->overflow->rate) : 0;
}
static int set_codec(const struct target *t, const char *v)
{
	return tmem_host_set_codec(t->h, v);
}
static void get_codec(const struct target *t, char *text, size_t len)
{
	struct codec_spec spec = zc_codec(t->h);

	zc_codec_text(&spec, text, len);
}

/* ---- maintenance ----------------------------------------------------------------------- */

static int set_idle(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->maintain.idle_ms, v);
	return 0;
}
static uint64_t get_idle(const struct target *t)
{
	return atomic_load(&t->h->maintain.idle_ms);
}
/* All of the time is more than can be exceeded: off, and shown as that. */
static int set_pressure(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->maintain.pressure_ppm, v < PPM_MAX ? (uint32_t)v : TMEM_PRESSURE_OFF);
	return 0;
}
static uint64_t get_pressure(const struct target *t)
{
	uint32_t ppm = atomic_load(&t->h->maintain.pressure_ppm);

	return ppm < PPM_MAX ? ppm : PPM_MAX;
}
static int set_recompress_rate(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->maintain.recompress_rate, (uint32_t)v);
	return 0;
}
static uint64_t get_recompress_rate(const struct target *t)
{
	return atomic_load(&t->h->maintain.recompress_rate);
}
static int set_recompress_idle(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->maintain.recompress_idle_ms, (uint32_t)v);
	return 0;
}
static uint64_t get_recompress_idle(const struct target *t)
{
	return atomic_load(&t->h->maintain.recompress_idle_ms);
}
static int set_recompress_codec(const struct target *t, const char *v)
{
	struct codec_spec spec;
	char err[160];
	int rc = codec_parse(v, &spec, err, sizeof(err));

	/* What is packed with it must be readable when memory is short. */
	if (rc == 0)
		rc = zc_emergency_ready(t->h, spec.codec);
	if (rc == 0)
		atomic_store(&t->h->maintain.recompress_codec, zc_codec_pack(&spec));
	return rc;
}
static void get_recompress_codec(const struct target *t, char *text, size_t len)
{
	struct codec_spec spec = zc_codec_unpack(atomic_load(&t->h->maintain.recompress_codec));

	zc_codec_text(&spec, text, len);
}

static int set_recompress_cluster(const struct target *t, uint64_t v)
{
	atomic_store(&t->h->maintain.recompress_cluster, (uint32_t)v);
	return 0;
}
static uint64_t get_recompress_cluster(const struct target *t)
{
	return atomic_load(&t->h->maintain.recompress_cluster);
}

/* ---- clients ------------------------------------------------------------------------ */

static int set_client_limit(const struct target *t, uint64_t v)
{
	return tmem_client_set_limit(t->c, v);
}
static uint64_t get_client_limit(const struct target *t)
{
	return atomic_load(&t->c->limit);
}
static int set_weight(const struct target *t, uint64_t v)
{
	return tmem_client_set_weight(t->c, (uint32_t)v);
}
static uint64_t get_weight(const struct target *t)
{
	return atomic_load(&t->c->weight);
}
static int set_client_freeze(const struct target *t, uint64_t v)
{
	tmem_client_freeze(t->c, v != 0);
	return 0;
}
static uint64_t get_client_freeze(const struct target *t)
{
	return atomic_load(&t->c->frozen) != 0;
}

/* ---- the table ------------------------------------------------------------------------ */

#define BYTES_MAX ((uint64_t)1 << 60)
#define DAY_MS	  86400000u

static const struct tunable table[] = {
	{.is = {"limit", "host", "bytes", "0 (none) to 1024P", "hard limit on all memory"},
	 .most = BYTES_MAX,
	 .set = set_limit,
	 .get = get_limit},
	{.is = {"target", "host", "bytes", "0 (none) to 1024P", "soft limit: puts evict above it"},
	 .most = BYTES_MAX,
	 .set = set_target,
	 .get = get_target},
	{.is = {"accept_percent", "host", "percent", "1 to 100",
		"a full host takes ephemeral pages again below so much of the limit"},
	 .least = 1,
	 .most = 100,
	 .set = set_accept,
	 .get = get_accept},
	{.is = {"max_zsize", "host", "bytes", "1 to 4096",
		"a page that compresses to more is refused, or kept raw"},
	 .least = 1,
	 .most = ZC_PAGE,
	 .set = set_max_zsize,
	 .get = get_max_zsize},
	{.is = {"max_mean_zsize", "host", "bytes", "1 to 4096 (off)",
		"a page above it is refused while the mean is, too; not with store_raw"},
	 .least = 1,
	 .most = ZC_PAGE,
	 .set = set_max_mean,
	 .get = get_max_mean},
	{.is = {"store_raw", "host", "yes or no", "0, or 1 where the allocator has room",
		"keep pages that compress poorly as they are"},
	 .most = 1,
	 .set = set_raw,
	 .get = get_raw},
	{.is = {"codec", "host", "name", "NAME or NAME:LEVEL", "codec of later puts"},
	 .set_text = set_codec,
	 .get_text = get_codec},
	{.is = {"freeze", "host", "yes or no", "0 or 1", "puts fail and act as invalidates"},
	 .most = 1,
	 .set = set_freeze,
	 .get = get_freeze},
	{.is = {"overflow_rate", "host", "bytes a second",
		"0 (any) to 1024P, with an overflow file",
		"how fast pages may be written to the overflow file"},
	 .most = BYTES_MAX,
	 .set = set_rate,
	 .get = get_rate},
	{.is = {"idle_ms", "host", "ms", "0 (never) to 2592000000",
		"maintenance evicts ephemeral pages idle for so long"},
	 .most = (uint64_t)30 * DAY_MS,
	 .set = set_idle,
	 .get = get_idle},
	{.is = {"pressure_ppm", "host", "millionths of time", "0 to 1000000 (off)",
		"maintenance gives memory back while tasks wait for memory longer than that"},
	 .most = PPM_MAX,
	 .set = set_pressure,
	 .get = get_pressure},
	{.is = {"recompress_rate", "host", "zpages a second", "0 (off) to 1000000",
		"how fast maintenance compresses idle pages with recompress_codec"},
	 .most = 1000000,
	 .set = set_recompress_rate,
	 .get = get_recompress_rate},
	{.is = {"recompress_idle_ms", "host", "ms", "1000 to 86400000",
		"pages are left alone until they were not put or got for so long"},
	 .least = 1000,
	 .most = DAY_MS,
	 .set = set_recompress_idle,
	 .get = get_recompress_idle},
	{.is = {"recompress_codec", "host", "name", "NAME or NAME:LEVEL",
		"what idle pages are compressed with"},
	 .set_text = set_recompress_codec,
	 .get_text = get_recompress_codec},
	{.is = {"recompress_cluster", "host", "pages", "0 (as they were put) to 16",
		"idle neighbours in persistent pools are stored together, up to so many"},
	 .most = TMEM_CLUSTER_MAX,
	 .set = set_recompress_cluster,
	 .get = get_recompress_cluster},
	{.is = {"client_limit", "client", "bytes", "0 (none) to 1024P",
		"hard limit on what the client is charged for"},
	 .most = BYTES_MAX,
	 .set = set_client_limit,
	 .get = get_client_limit},
	{.is = {"weight", "client", "parts", "1 to 10000",
		"under pressure the client with the most memory for its weight pays first"},
	 .least = 1,
	 .most = TMEM_WEIGHT_MAX,
	 .set = set_weight,
	 .get = get_weight},
	{.is = {"client_freeze", "client", "yes or no", "0 or 1",
		"the same as freeze, of one client"},
	 .most = 1,
	 .set = set_client_freeze,
	 .get = get_client_freeze},
};
#define TUNABLES (sizeof(table) / sizeof(table[0]))

static const struct tunable *find(const struct target *t, const char *name)
{
	for (unsigned i = 0; i < TUNABLES; i++)
		if (strcmp(table[i].is.name, name) == 0)
			return (table[i].is.of[0] == 'c') == (t->c != NULL) ? &table[i] : NULL;
	return NULL;
}

/* Decimal, at most 2^64 - 1, with a suffix where bytes are meant. */
static bool parse(const char *text, bool bytes, uint64_t *v)
{
	static const char suffix[] = "KMGT";
	const char *s;
	unsigned shift;

	*v = 0;
	if (*text < '0' || *text > '9')
		return false;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(*v, 10, v) ||
		    __builtin_add_overflow(*v, (uint64_t)(*text - '0'), v))
			return false;
	s = *text && bytes ? strchr(suffix, *text) : NULL;
	if (s) {
		shift = 10 * (unsigned)(s - suffix + 1);
		if (*v > UINT64_MAX >> shift)
			return false;
		*v <<= shift;
		text++;
	}
	return !*text;
}

/* ---- calls -------------------------------------------------------------------------------- */

int tmem_tunable_list(tmem_tunable *out, unsigned max)
{
	for (unsigned i = 0; i < TUNABLES && i < max; i++)
		out[i] = table[i].is;
	return (int)TUNABLES;
}

static void say(char *err, size_t errlen, const struct target *t, const struct tunable *k,
		const char *name)
{
	size_t used;

	if (!err || !errlen)
		return;
	if (k) {
		snprintf(err, errlen, "%s is refused: allowed is %s (%s)", name, k->is.range,
			 k->is.unit);
		return;
	}
	snprintf(err, errlen, "no tunable '%.40s'; known:", name);
	for (unsigned i = 0; i < TUNABLES; i++) {
		used = strlen(err);
		if ((table[i].is.of[0] == 'c') == (t->c != NULL))
			snprintf(err + used, errlen - used, " %s", table[i].is.name);
	}
}

int tmem_tunable_set(tmem_host *h, tmem_client *c, const char *name, const char *value, char *err,
		     size_t errlen)
{
	struct target t = {h, c};
	const struct tunable *k = find(&t, name);
	int rc = -EINVAL;
	uint64_t v;

	if (err && errlen)
		err[0] = '\0';
	if (!k) {
		rc = -ENOENT;
	} else if (k->set_text) {
		rc = k->set_text(&t, value);
		rc = rc == -ENOMEM || rc == 0 ? rc : -EINVAL;
	} else if (parse(value, strncmp(k->is.unit, "bytes", 5) == 0, &v) && v >= k->least &&
		   v <= k->most) {
		rc = k->set(&t, v);
	}
	if (rc)
		say(err, errlen, &t, k, name);
	return rc;
}

int tmem_tunable_get(tmem_host *h, tmem_client *c, const char *name, char *text, size_t len)
{
	struct target t = {h, c};
	const struct tunable *k = find(&t, name);
	char value[64];
	size_t n;

	if (!k)
		return -ENOENT;
	if (k->get_text)
		k->get_text(&t, value, sizeof(value));
	else
		snprintf(value, sizeof(value), "%llu", (unsigned long long)k->get(&t));
	n = strlen(value) + 1;
	if (n > len)
		return -ENOSPC;
	memcpy(text, value, n);
	return 0;
}
