/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sets of eviction queues: whose they are, how one is chosen, the policy "lru".
 * See evict.h. Who takes pages out by them is reclaim.c.
 *
 * The list of a host's sets has a lock of its own, a leaf, because whoever is
 * looking for a victim may hold the emergency state, which ranks above the
 * host's tables. A set that is being evicted from is counted (users), and the
 * end of its client sleeps until nobody is.
 */
#include "os/clock.h"
#include "zcache/zcache.h"

/* ---- policies ------------------------------------------------------------------- */

static unsigned lru_admit(struct zc_evict *ev, uint32_t name)
{
	return 0;
}

static unsigned lru_choose(struct zc_evict *ev)
{
	return 0;
}

static int lru_judge(unsigned from, unsigned *seen)
{
	int verdict = *seen ? 0 : ZC_EVICT;

	*seen = 0;
	return verdict;
}

const struct zc_policy zc_policy_lru = {
	.name = "lru",
	.fifos = 1,
	.admit = lru_admit,
	.choose = lru_choose,
	.judge = lru_judge,
};

static const struct zc_policy *const policies[] = {&zc_policy_lru, &zc_policy_s3fifo};

const struct zc_policy *zc_policy_find(const char *name)
{
	for (unsigned i = 0; i < sizeof(policies) / sizeof(policies[0]); i++)
		if (strcmp(policies[i]->name, name) == 0)
			return policies[i];
	return NULL;
}

const char *zc_policy_names(void)
{
	return "lru, s3fifo";
}

/* ---- names ------------------------------------------------------------------------ */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

uint32_t zc_name_hash(const struct zc_slot *s, const struct index_oid *oid, uint64_t index)
{
	uint64_t h = mix(index + ((uint64_t)s->name_seed << 32));

	h = mix(h ^ oid->w[0]);
	h = mix(h + oid->w[1]);
	return (uint32_t)mix(h ^ oid->w[2]);
}

uint64_t zc_stamp_draw(struct zc_thread *t)
{
	/*
	 * Not a plain counter: who puts the same 2048 pages round and round would
	 * draw the same stamp for the same page each time.
	 */
	t->stamp_state += 0x9e3779b97f4a7c15u;
	return mix(t->stamp_state) << ZC_STAMP_SHIFT;
}

/* ---- sets --------------------------------------------------------------------------- */

void zc_evict_init(struct zc_evict *ev, struct tmem_host *h, struct tmem_client *c,
		   enum zc_class cls, unsigned worth)
{
	memset(ev, 0, sizeof(*ev));
	os_mutex_init(&ev->lock, OS_RANK_LEAF, "eviction queues");
	ev->host = h;
	ev->client = c;
	ev->cls = cls;
	ev->worth = worth;
	/* What goes to a file is chosen by age, whatever the policy for what is dropped. */
	ev->policy = cls == ZC_EPHEMERAL ? h->policy : &zc_policy_lru;
	os_mutex_lock(&h->sets_lock);
	ev->next = h->sets;
	if (ev->next)
		ev->next->prev = ev;
	h->sets = ev;
	ev->listed = true;
	os_mutex_unlock(&h->sets_lock);
}

void zc_evict_exit(struct zc_evict *ev)
{
	struct tmem_host *h = ev->host;
	struct zc_entry e;
	unsigned from;

	os_mutex_lock(&h->sets_lock);
	ev->listed = false;
	if (ev->next)
		ev->next->prev = ev->prev;
	if (ev->prev)
		ev->prev->next = ev->next;
	else
		h->sets = ev->next;
	while (ev->users)
		os_cond_wait(&h->sets_unused, &h->sets_lock);
	os_mutex_unlock(&h->sets_lock);
	tmem_assert(E2, atomic_load(&ev->pages) == 0);
	while (zc_dequeue(ev, UINT64_MAX, &e, &from))
		;
	zc_evict_trim(ev);
	os_mutex_destroy(&ev->lock);
}

void zc_words_left(struct zc_slot *s, unsigned n)
{
	if (s->ev)
		atomic_fetch_sub_explicit(&s->ev->pages, n, memory_order_relaxed);
}

/* ---- the list -------------------------------------------------------------------------- */

static bool has_entries(const struct zc_evict *ev, enum zc_class cls)
{
	return ev->cls == cls && atomic_load_explicit(&ev->entries, memory_order_relaxed);
}

#define CREDIT_ONE ((uint64_t)1 << 32)

/* Who was empty comes with as much credit as a page that comes now. Under the list's lock. */
static void note_empty(struct zc_evict *ev, bool empty)
{
	if (empty)
		ev->credit = 0;
	else if (!ev->credit)
		ev->credit = ev->client->credit + ev->worth * CREDIT_ONE;
}

/*
 * Of two clients the one further above its weighted share pays (client.c), of the sets
 * of one the one with less credit; when it is age that counts, the one with the oldest page.
 */
static bool goes_first(const struct zc_evict *a, const struct zc_evict *b, uint64_t young_ms)
{
	if (young_ms == UINT64_MAX && a->client != b->client)
		return zc_client_pays_before(a->client, b->client);
	if (young_ms == UINT64_MAX)
		return a->credit < b->credit;
	return atomic_load_explicit(&a->oldest_ms, memory_order_relaxed) <
	       atomic_load_explicit(&b->oldest_ms, memory_order_relaxed);
}

struct zc_evict *zc_sets_pick(struct tmem_host *h, enum zc_class cls,
			      const struct tmem_client *client, uint64_t young_ms)
{
	struct zc_evict *best = NULL;

	os_mutex_lock(&h->sets_lock);
	for (struct zc_evict *ev = h->sets; ev; ev = ev->next) {
		uint64_t ms = atomic_load_explicit(&ev->oldest_ms, memory_order_relaxed);

		note_empty(ev, !atomic_load_explicit(&ev->entries, memory_order_relaxed));
		if (!has_entries(ev, cls) || (client && ev->client != client) ||
		    (best && !goes_first(ev, best, young_ms)) ||
		    (young_ms != UINT64_MAX && ms + ZC_TIME_UNIT_MS > young_ms))
			continue;
		best = ev;
	}
	if (best)
		best->users++;
	if (best && young_ms == UINT64_MAX)
		best->client->credit = best->credit;
	os_mutex_unlock(&h->sets_lock);
	return best;
}

void zc_sets_took(struct zc_evict *ev, unsigned victims)
{
	uint64_t n = atomic_load_explicit(&ev->entries, memory_order_relaxed) + victims;

	if (!victims)
		return;
	os_mutex_lock(&ev->host->sets_lock);
	ev->credit += victims * (ev->worth * CREDIT_ONE / n);
	os_mutex_unlock(&ev->host->sets_lock);
}

void zc_sets_get(struct zc_evict *ev)
{
	os_mutex_lock(&ev->host->sets_lock);
	ev->users++;
	os_mutex_unlock(&ev->host->sets_lock);
}

void zc_sets_put(struct zc_evict *ev)
{
	struct tmem_host *h = ev->host;

	os_mutex_lock(&h->sets_lock);
	if (--ev->users == 0 && !ev->listed)
		os_cond_broadcast(&h->sets_unused);
	os_mutex_unlock(&h->sets_lock);
}

void zc_evict_trim_all(struct tmem_host *h)
{
	os_mutex_lock(&h->sets_lock);
	for (struct zc_evict *ev = h->sets; ev;) {
		struct zc_evict *next;

		if (atomic_load_explicit(&ev->entries, memory_order_relaxed)) {
			ev = ev->next;
			continue;
		}
		/* Chunks are freed without the list's lock, which is a leaf. */
		ev->users++;
		os_mutex_unlock(&h->sets_lock);
		zc_evict_trim(ev);
		os_mutex_lock(&h->sets_lock);
		/* Out of the list it leads to what has ended since: begin again. */
		next = ev->listed ? ev->next : h->sets;
		if (--ev->users == 0 && !ev->listed)
			os_cond_broadcast(&h->sets_unused);
		ev = next;
	}
	os_mutex_unlock(&h->sets_lock);
}
