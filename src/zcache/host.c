/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hosts: creation, destruction, limits, codec.
 *
 * A host owns everything below it and the account (struct frames) that all of
 * it is charged to. Creation goes down the list of parts and unwinds from
 * where it failed; destruction is the same list upwards.
 */
#include "os/clock.h"
#include "zcache/trace.h"
#include "zcache/zcache.h"

#include <stdio.h>

/* A put that the limit refused may try a compaction this often, and for this much. */
#define COMPACT_PAUSE_NS 20000000ull
#define COMPACT_FRAMES	 64

const char *tmem_version(void)
{
	return TMEM_VERSION;
}

const char *tmem_strerror(int err)
{
	switch (err) {
	case 0:
		return "success";
	case 1:
		return "no such page";
	case -ENOENT:
		return "no such pool or name";
	case -ENOMEM:
		return "out of memory or over the limit";
	case -E2BIG:
		return "the page compresses too poorly";
	case -EAGAIN:
		return "the store is frozen";
	case -EACCES:
		return "not allowed to join this shared pool";
	case -EPERM:
		return "only its maker decides who may join a shared pool";
	case -ECANCELED:
		return "never used, and memory is short";
	case -EOPNOTSUPP:
		return "not supported for this kind of pool, or another page size than 4096";
	case -EIO:
		return "stored data is damaged";
	case -EINVAL:
		return "invalid argument";
	case -EDQUOT:
		return "the client is at its own limit";
	case -EBADMSG:
		return "the file is damaged";
	case -ERANGE:
		return "level out of range";
	default:
		return "unknown error";
	}
}

/* What the C library's allocator adds to a block, about. */
uint64_t zc_block_cost(size_t bytes)
{
	return (bytes + 63) / 64 * 64 + 64;
}

void *zc_alloc_scratch(struct tmem_host *h, size_t bytes)
{
	void *p;

	if (!frames_charge(&h->frames, zc_block_cost(bytes)))
		return NULL;
	p = os_alloc_aligned(bytes);
	if (!p)
		frames_uncharge(&h->frames, zc_block_cost(bytes));
	return p;
}

void *zc_alloc(struct tmem_host *h, size_t bytes)
{
	void *p = zc_alloc_scratch(h, bytes);

	return p ? memset(p, 0, bytes) : NULL;
}

void zc_free(struct tmem_host *h, void *p, size_t bytes)
{
	if (!p)
		return;
	os_free(p);
	frames_uncharge(&h->frames, zc_block_cost(bytes));
}

/* ---- the codec, packed into one word so that puts read it without a lock --- */

uint32_t zc_codec_pack(const struct codec_spec *spec)
{
	return (uint32_t)spec->level << 8 | spec->codec->id;
}

struct codec_spec zc_codec_unpack(uint32_t word)
{
	return (struct codec_spec){codec_by_id(word & 0xff), (int32_t)word >> 8};
}

void zc_codec_text(const struct codec_spec *spec, char *text, size_t len)
{
	if (spec->codec->level_min == spec->codec->level_max)
		snprintf(text, len, "%s", spec->codec->name);
	else
		snprintf(text, len, "%s:%d", spec->codec->name, spec->level);
}

struct codec_spec zc_codec(const struct tmem_host *h)
{
	return zc_codec_unpack(atomic_load_explicit(&h->codec, memory_order_relaxed));
}

int tmem_pool_set_codec(tmem_client *c, tmem_pool pool, const char *codec)
{
	struct codec_spec spec;
	struct zc_slot *s;
	uint32_t word = 0;
	char err[160];
	int rc = 0;

	if (codec) {
		rc = codec_parse(codec, &spec, err, sizeof(err));
		if (rc)
			return rc == -ENOENT ? -EINVAL : rc;
		rc = zc_emergency_ready(c->host, spec.codec);
		word = zc_codec_pack(&spec) | ZC_CODEC_SET;
	}
	if (rc)
		return rc;
	s = zc_pool_enter(c, pool);
	if (!s)
		return -ENOENT;
	atomic_store_explicit(&s->codec, word, memory_order_relaxed);
	zc_pool_leave(s);
	return 0;
}

int tmem_host_set_codec(tmem_host *h, const char *codec)
{
	struct codec_spec spec;
	char err[160];
	int rc = codec_parse(codec ? codec : "lz4", &spec, err, sizeof(err));

	if (rc == 0)
		rc = zc_emergency_ready(h, spec.codec);
	if (rc == 0)
		atomic_store_explicit(&h->codec, zc_codec_pack(&spec), memory_order_relaxed);
	return rc;
}

/* ---- creation --------------------------------------------------------------- */

static void say(char *err, size_t errlen, const char *fmt, const char *a, const char *b)
{
	if (err && errlen)
		snprintf(err, errlen, fmt, a, b);
}

/* Copy the caller's options over the defaults and judge them. */
static int read_options(const tmem_host_options *in, tmem_host_options *o, char *err, size_t errlen)
{
	size_t least = __builtin_offsetof(tmem_host_options, limit_bytes) + sizeof(o->limit_bytes);

	*o = TMEM_HOST_OPTIONS;
	if (in && (in->size < least || in->size > sizeof(*o))) {
		say(err, errlen, "size of the options is not of this version%s%s", "", "");
		return -EINVAL;
	}
	if (in)
		memcpy(o, in, in->size);
	if (!o->codec)
		o->codec = "lz4";
	if (!o->zpool)
		o->zpool = "zsmalloc";
	if (!o->max_zsize)
		o->max_zsize = ZC_MAX_ZSIZE_DEFAULT;
	if (!o->policy)
		o->policy = "lru";
	if (!o->accept_percent)
		o->accept_percent = ZC_ACCEPT_PERCENT_DEFAULT;
	if (!o->max_mean_zsize)
		o->max_mean_zsize = o->max_zsize < ZC_PAGE ? ZC_MEAN_ZSIZE_DEFAULT : ZC_PAGE;
	if (o->accept_percent > 100) {
		say(err, errlen, "accept_percent is above 100%s%s", "", "");
		return -EINVAL;
	}
	if (!zc_policy_find(o->policy)) {
		say(err, errlen, "unknown eviction policy '%s'; known: %s", o->policy,
		    zc_policy_names());
		return -EINVAL;
	}
	if (o->max_zsize > ZC_PAGE) {
		say(err, errlen, "max_zsize is above the page size (4096)%s%s", "", "");
		return -EINVAL;
	}
	return 0;
}

static int check_zpool(const tmem_host_options *o, char *err, size_t errlen)
{
	const struct zpool_ops *ops = zpool_find(o->zpool);
	char names[256];

	if (!ops) {
		say(err, errlen, "unknown allocator '%s'; known: %s", o->zpool,
		    zpool_names(names, sizeof(names)));
		return -EINVAL;
	}
	if (o->store_raw && !zpage_fits_raw(ops)) {
		say(err, errlen, "store_raw: allocator '%s' has no room for a whole page%s",
		    o->zpool, "");
		return -EINVAL;
	}
	return 0;
}

static int create_parts(struct tmem_host *h, const tmem_host_options *o,
			const struct codec_spec *spec, char *err, size_t errlen)
{
	int rc = zc_threads_init(h);

	if (rc)
		goto out;
	rc = zc_emergency_ready(h, codec_by_id(0));
	if (rc == 0)
		rc = zc_emergency_ready(h, spec->codec);
	if (rc)
		goto no_pool;
	rc = zpool_create(o->zpool, &h->frames, &zc_owner, h, &h->zpool);
	if (rc)
		goto no_pool;
	h->by_frames = strcmp(zpool_type(h->zpool), "zbud") == 0;
	rc = index_create(&h->frames, &h->index);
	if (rc)
		goto no_index;
	rc = arena_create(&h->frames, "eviction queues", sizeof(struct zc_chunk), ZC_CHUNKS_MAX,
			  &h->chunks);
	if (rc)
		goto no_chunks;
	if (o->overflow_path) {
		const char *why;

		rc = zc_overflow_create(h, o, &h->overflow, &why);
		if (rc) {
			if (rc != -ENOMEM)
				say(err, errlen, "cannot use the overflow file %s: %s",
				    o->overflow_path, why ? why : strerror(-rc));
			goto no_overflow;
		}
	}
	rc = zc_maintain_start(h, o);
	if (rc == 0)
		return 0;
	say(err, errlen, "no thread for maintenance: %s%s", strerror(-rc), "");
	if (h->overflow)
		zc_overflow_destroy(h, h->overflow);
no_overflow:
	arena_destroy(h->chunks);
no_chunks:
	index_destroy(h->index);
no_index:
	zpool_destroy(h->zpool);
no_pool:
	zc_threads_exit(h);
out:
	if (rc == -ENOMEM)
		say(err, errlen, "out of memory, or the limit is too low for an empty store%s%s",
		    "", "");
	return rc;
}

static void locks_destroy(struct tmem_host *h)
{
	os_mutex_destroy(&h->lock);
	os_mutex_destroy(&h->sets_lock);
	os_cond_destroy(&h->sets_unused);
}

int tmem_host_create(const tmem_host_options *opts, tmem_host **out, char *err, size_t errlen)
{
	struct codec_spec spec;
	tmem_host_options o;
	tmem_host *h = NULL;
	int rc;

	if (err && errlen)
		err[0] = '\0';
	rc = read_options(opts, &o, err, errlen);
	if (rc)
		goto out;
	if (codec_parse(o.codec, &spec, err, errlen)) {
		rc = -EINVAL;
		goto out;
	}
	rc = check_zpool(&o, err, errlen);
	if (rc)
		goto out;
	h = os_zalloc_aligned(sizeof(*h));
	if (!h) {
		rc = -ENOMEM;
		goto out;
	}
	frames_init(&h->frames, o.limit_bytes);
	os_mutex_init(&h->lock, OS_RANK_HOST, "zcache host");
	os_mutex_init(&h->sets_lock, OS_RANK_LEAF, "sets of eviction queues");
	os_cond_init(&h->sets_unused);
	h->policy = zc_policy_find(o.policy);
	atomic_store(&h->accept_percent, o.accept_percent);
	atomic_store(&h->max_mean_zsize, o.max_mean_zsize);
	atomic_store(&h->target_bytes, o.target_bytes);
	zc_marks_update(h);
	zc_counts_init(&h->own, NULL, NULL);
	h->max_zsize = o.max_zsize;
	h->store_raw = o.store_raw != 0;
	atomic_store(&h->codec, zc_codec_pack(&spec));
	atomic_store(&h->adopt_after_ns, UINT64_MAX);
	rc = frames_charge(&h->frames, zc_block_cost(sizeof(*h)))
		     ? create_parts(h, &o, &spec, err, errlen)
		     : -ENOMEM;
	if (rc) {
		locks_destroy(h);
		os_free(h);
		h = NULL;
	}
out:
	if (rc == -ENOMEM && err && errlen && !err[0])
		say(err, errlen, "out of memory, or the limit is too low for an empty store%s%s",
		    "", "");
	*out = h;
	return rc;
}

void tmem_host_destroy(tmem_host *h)
{
	if (!h)
		return;
	zc_maintain_stop(h);
	while (h->clients)
		tmem_client_destroy(h->clients);
	zc_trace_destroy(h);
	zc_recompress_destroy(h);
	if (h->overflow)
		zc_overflow_destroy(h, h->overflow);
	arena_destroy(h->chunks);
	index_destroy(h->index);
	zpool_destroy(h->zpool);
	zc_dicts_destroy(h);
	zc_threads_exit(h);
	/* Whatever was charged has been given back, or somebody forgot to. */
	tmem_assert(frames.I2, frames_used(&h->frames) == zc_block_cost(sizeof(*h)));
	locks_destroy(h);
	os_free(h);
}

/* ---- limits ----------------------------------------------------------------- */

int tmem_host_set_limit(tmem_host *h, uint64_t limit_bytes)
{
	frames_set_limit(&h->frames, limit_bytes);
	zc_marks_update(h);
	return 0;
}

void zc_marks_update(struct tmem_host *h)
{
	uint64_t limit = atomic_load(&h->frames.limit_bytes);
	uint64_t target = zc_soft_bytes(h);

	limit = limit ? limit : UINT64_MAX;
	target = target ? target : UINT64_MAX;
	/* Two that change limit and target at once: the last one to get here sees both. */
	atomic_store(&h->mark_bytes, limit < target ? limit : target);
}

void tmem_host_freeze(tmem_host *h, int frozen)
{
	atomic_store(&h->frozen, frozen != 0);
}

uint64_t tmem_host_compact(tmem_host *h, uint64_t max_bytes)
{
	uint64_t frames = max_bytes / OS_FRAME_SIZE;

	zc_adopt(h);
	if (frames == 0 && max_bytes)
		frames = 1;
	return frames ? zpool_compact(h->zpool, frames) * OS_FRAME_SIZE : 0;
}

bool zc_make_room(struct tmem_host *h)
{
	uint64_t now = os_clock_ns();
	uint64_t after = atomic_load_explicit(&h->compact_after_ns, memory_order_relaxed);

	/* One thread at a time, and a pause: what cannot be gained is not asked for at every put.
	 */
	if (now < after ||
	    !atomic_compare_exchange_strong(&h->compact_after_ns, &after, now + COMPACT_PAUSE_NS))
		return false;
	return zpool_compact(h->zpool, COMPACT_FRAMES) > 0;
}
