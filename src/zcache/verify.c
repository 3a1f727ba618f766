/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem_host_verify(): every word against the zpage it names, each part's own
 * walk, and the sums that must agree when nothing else runs:
 *
 *   V1  words found = pages = same-filled + local words + overflow words
 *   V2  each word's zpage: place < pages; slot of place 0 = slot - place;
 *       refs >= its words in this leaf; checksum right
 *   V3  sum over local words of 1 / refs = zpages      (each zpage is counted once)
 *   V4  sum over local words of zsize / refs = compressed bytes
 *   V5  the zpool's objects = zpages
 *   V6  store_bytes >= what the parts hold
 *   V7  a client's used = zpage_bytes + index_bytes + block_bytes + credits
 *   V8  sum of index_bytes over clients = what the index charged
 *
 * V3 and V4 find a reference too many or too few anywhere, without a table of
 * zpages: a lost one makes the sum too large, a leaked one too small.
 */
#include "os/log.h"
#include "zcache/zcache.h"

struct tally {
	struct tmem_host *h;
	uint64_t same, local, overflow;
	double zpages, zbytes, over_zpages;
	char *buf; /* for zpages of the overflow file */
	struct index_cursor *c;
	double dict[ZC_DICTS]; /* zpages that need it */
	uint64_t queued;       /* words in pools with a set of queues */
};

static int damage(const struct tally *y, unsigned slot, const char *what)
{
	os_log(OS_LOG_ERROR, "verify: index %#llx: %s", (unsigned long long)(y->c->base + slot),
	       what);
	return -EINVAL;
}

static int verify_local(struct tally *y, unsigned slot, uint64_t word)
{
	struct zpage *z = zpool_peek(y->h->zpool, zc_word_handle(word));
	uint16_t info = zpage_info(z, __ATOMIC_ACQUIRE);
	unsigned refs = zpage_refs(z, info), pages = zpage_pages(info), words;
	uint32_t mask;

	if (zc_word_place(word) >= pages)
		return damage(y, slot, "place past the end of its zpage");
	if (zpage_slot(info) + zc_word_place(word) != slot)
		return damage(y, slot, "zpage does not agree with its slot");
	if (!codec_by_id(zpage_codec(info)))
		return damage(y, slot, "zpage of an unknown codec");
	words = zc_words_of(y->c, slot, pages, &mask);
	if (refs < words || words == 0)
		return damage(y, slot, "fewer references than words");
	if (z->zsize == 0 || zc_checksum(zpage_bytes(z, info), z->zsize) != z->checksum)
		return damage(y, slot, "checksum of a zpage is wrong");
	y->local++;
	if (zpage_codec(info) == CODEC_ID_ZSTD_DICT)
		y->dict[zc_dict_of(zpage_bytes(z, info)) % ZC_DICTS] += 1.0 / refs;
	y->zpages += 1.0 / refs;
	y->zbytes += (double)z->zsize / refs;
	return 0;
}

static int verify_overflow(struct tally *y, unsigned slot, uint64_t word)
{
	uint64_t item = zc_word_handle(word);
	unsigned refs = zc_overflow_refs(y->h, item);
	struct zc_stored s;

	zc_overflow_info(y->h, item, &s);
	if (refs == 0 || zc_word_place(word) >= s.pages || !codec_by_id(s.codec))
		return damage(y, slot, "item of the overflow file is wrong");
	if (zc_overflow_read(y->h, item, y->buf) || zc_checksum(y->buf, s.zsize) != s.checksum)
		return damage(y, slot, "checksum in the overflow file is wrong");
	y->overflow++;
	y->over_zpages += 1.0 / refs;
	if (s.dict)
		y->dict[s.dict % ZC_DICTS] += 1.0 / refs;
	return 0;
}

static int verify_leaf(void *arg, struct index_cursor *c)
{
	struct tally *y = arg;
	struct zc_slot *s = index_pool_owner(c->pool);
	int rc = 0;

	y->c = c;
	for (unsigned slot = 0; slot < INDEX_FANOUT && rc == 0; slot++) {
		struct pampd p;

		if (!index_cursor_present(c, slot))
			continue;
		p = index_cursor_get(c, slot);
		y->queued += s->ev != NULL;
		if (p.immediate)
			y->same++;
		else if (zc_word_kind(p.word) == ZC_LOCAL)
			rc = verify_local(y, slot, p.word);
		else if (zc_word_kind(p.word) == ZC_OVERFLOW && y->h->overflow)
			rc = verify_overflow(y, slot, p.word);
		else
			rc = damage(y, slot, "word of unknown kind");
	}
	return rc;
}

static int verify_pool(void *arg, struct zc_slot *s)
{
	int rc = index_verify(s->pool);

	return rc ? rc : index_walk(s->pool, verify_leaf, arg);
}

static int compare(const char *what, double is, double should)
{
	double off = is > should ? is - should : should - is;

	if (off <= 0.01 + should * 1e-9)
		return 0;
	os_log(OS_LOG_ERROR, "verify: %s: %.3f, should be %.3f", what, is, should);
	return -EINVAL;
}

/* E1 to E3 of every set; only right when nothing else runs. */
static int verify_queues(const struct tally *y)
{
	uint64_t named, pages = 0;
	int bad = 0;

	/* Nobody changes the list now; its lock is a leaf, as each set's is. */
	for (struct zc_evict *ev = y->h->sets; ev; ev = ev->next) {
		uint64_t n = atomic_load(&ev->pages);

		pages += n;
		if (zc_evict_verify(ev, &named)) {
			os_log(OS_LOG_ERROR, "verify: E3: the queues of a client");
			bad = -EINVAL;
		}
		/*
		 * A stale entry may fit by chance, so more is right; persistent words
		 * may be in the file, which nobody queues.
		 */
		if (ev->cls == ZC_EPHEMERAL && named < n) {
			os_log(OS_LOG_ERROR, "verify: E1: %llu pages, %llu in queues",
			       (unsigned long long)n, (unsigned long long)named);
			bad = -EINVAL;
		}
	}
	return compare("E2 pages that can be evicted", (double)y->queued, (double)pages) | bad;
}

struct charged {
	uint64_t meta;
	int bad;
};

static void verify_charge(struct charged *y, const struct tmem_client *c, const struct zc_sum *sum,
			  uint64_t credits)
{
	y->meta += sum->n[ZC_META_NOW];
	y->bad |= compare("V7 used by a client",
			  (double)(sum->n[ZC_ZALLOC_NOW] + sum->n[ZC_META_NOW] +
				   atomic_load(&c->block_bytes) + credits),
			  (double)zc_client_used(c));
}

static void verify_shared(void *arg, struct zc_slot *home)
{
	struct zc_sum sum;

	zc_sum_pool(home, &sum);
	verify_charge(arg, home->client, &sum, zc_pool_credits(home));
}

/* V7 and V8. A client made or destroyed meanwhile would be somebody running. */
static int verify_clients(struct tmem_host *h)
{
	struct charged y = {0};
	struct index_stats ix;

	for (struct tmem_client *c = h->clients; c; c = c->next) {
		struct zc_sum sum;

		zc_sum_client(c, &sum);
		verify_charge(&y, c, &sum, zc_credits(c));
	}
	os_mutex_lock(&h->lock);
	zc_shared_each(h, verify_shared, &y);
	os_mutex_unlock(&h->lock);
	index_stats(h->index, &ix);
	return y.bad |
	       compare("V8 metadata charged to clients", (double)y.meta, (double)ix.charged_bytes);
}

/* Only right when nothing else runs. */
static int verify_sums(const struct tally *y)
{
	tmem_stats s = {.size = sizeof(s)};
	uint64_t n[ZC_COUNTERS];
	struct zpool_stats zp;
	char line[160];
	int bad = 0;

	(void)tmem_host_stats(y->h, &s);
	zc_threads_sum(y->h, n);
	zpool_stats(y->h->zpool, &zp);
	if (tmem_stats_verify(&s, line, sizeof(line))) {
		os_log(OS_LOG_ERROR, "verify: %s", line);
		bad = -EINVAL;
	}
	bad |= compare("V1 pages", (double)(y->same + y->local + y->overflow), (double)s.pages);
	bad |= compare("V1 same-filled", (double)y->same, (double)s.same_filled_pages);
	bad |= compare("V1 overflow words", (double)y->overflow, (double)s.overflow_pages);
	bad |= compare("V3 zpages", y->zpages, (double)s.zpages);
	bad |= compare("V3 overflow zpages", y->over_zpages, (double)n[ZC_OVER_ZPAGES_NOW]);
	bad |= compare("V4 compressed bytes", y->zbytes, (double)s.compressed_bytes);
	bad |= compare("V5 objects of the zpool", (double)zp.objects, (double)s.zpages);
	bad |= compare("puts by outcome",
		       (double)(s.puts_ok + s.puts_poor + s.puts_nomem + s.puts_frozen +
				s.puts_inactive + n[ZC_PUTS_QUOTA]),
		       (double)s.puts);
	if (zp.frame_bytes > s.store_bytes) {
		os_log(OS_LOG_ERROR, "verify: V6: the zpool holds more than was charged");
		bad = -EINVAL;
	}
	bad |= verify_queues(y);
	bad |= verify_clients(y->h);
	bad |= zc_dicts_verify(y->h, y->dict);
	return bad ? -EINVAL : 0;
}

int tmem_host_verify(tmem_host *h, int quiet)
{
	struct tally y = {.h = h};
	int rc = -ENOMEM;

	/* Not charged to the host: verifying works at the limit too. */
	y.buf = os_alloc(ZC_BIG_BYTES);
	if (!y.buf)
		return rc;
	if (quiet) /* the host's own thread is somebody who runs, too */
		zc_maintain_hold(h);
	rc = zc_each_pool(h, verify_pool, &y);
	if (rc == 0)
		rc = zpool_verify(h->zpool);
	if (rc == 0 && h->overflow)
		rc = zc_overflow_verify(h);
	if (rc == 0 && quiet)
		rc = verify_sums(&y);
	if (quiet)
		zc_maintain_release(h);
	os_free(y.buf);
	return rc;
}
