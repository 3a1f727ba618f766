/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Identities of files whose pages are in the store, and which the kernel has forgotten.
 *
 * Names go from the kernel's cache long before our pages do. When a file comes back, what its
 * pages were read under must still be known, or they are worth nothing (C2). So identities stay,
 * 64 bytes each, for as long as there is room: in turns, those that were not asked for since the
 * last turn go. Their pages are left to the store, which evicts what nobody gets.
 *
 * Whose they are is not known, so where a folder's files are dropped all of them go: before those
 * are looked for that have a node, and none comes in until all of them were found (K2).
 *
 * A file that comes back takes its identity out, and brings it again when it goes, if it has one
 * then: a source that is what it was before (a snapshot that is rolled back) must not find pages
 * that were read meanwhile.
 *
 * What is saved over a restart is this table, and the pages (warm.c).
 */
#include "cleancache/cleancache.h"

#include "os/check.h"
#include "os/mem.h"

#include <errno.h>
#include <string.h>

#define SLOTS_FIRST 1024u
#define PART	    8u /* of --size may be identities */

/* A slot; oid all zeros: free. */
struct slot {
	tmem_oid oid;
	struct cc_identity id;
	bool young, used, passing;
};

/*
 * Open addressing, linear probing; at most three quarters are taken.
 *
 *   K1  every identity is found by its name; n of them
 *   K2  closed > 0  =>  n = 0
 *   K3  none is of a file that is there: who leaves the nodes' table comes in before that, so
 *       before the next node of that name can be made
 */
struct cc_known {
	struct os_mutex lock;
	struct slot *slot;
	uint64_t slots, n; /* 2^n; taken */
	uint64_t hand;
	uint32_t closed; /* invalidations of folders under way */
};

static bool is_free(const struct slot *s)
{
	return !s->oid.w[0] && !s->oid.w[1] && !s->oid.w[2];
}

static uint64_t place_of(const struct cc_known *k, const tmem_oid *oid)
{
	uint64_t h = (oid->w[0] ^ oid->w[1] * 3 ^ oid->w[2] * 5) * 0x9e3779b97f4a7c15ull;

	return (h ^ h >> 32) & (k->slots - 1);
}

/* Where it is, or where it would go. */
static struct slot *find(struct cc_known *k, const tmem_oid *oid)
{
	uint64_t i = place_of(k, oid);

	while (!is_free(&k->slot[i]) && memcmp(&k->slot[i].oid, oid, sizeof(*oid)) != 0)
		i = (i + 1) & (k->slots - 1);
	return &k->slot[i];
}

/* Those behind it in its run move up, so that no probe ends early. */
static void take_out(struct cc_known *k, struct slot *s)
{
	uint64_t hole = (uint64_t)(s - k->slot), mask = k->slots - 1;

	for (uint64_t i = (hole + 1) & mask; !is_free(&k->slot[i]); i = (i + 1) & mask) {
		uint64_t home = place_of(k, &k->slot[i].oid);

		/* It may not move before its home. */
		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		k->slot[hole] = k->slot[i];
		hole = i;
	}
	k->slot[hole] = (struct slot){0};
	k->n--;
}

static bool grow(struct cc_mount *m, struct cc_known *k)
{
	struct slot *was = k->slot, *slot;
	uint64_t n = k->slots, more = n * 2 * sizeof(*slot);

	/* Both are there for a moment. */
	if (more > m->o->size_bytes / PART || !cc_charge(m, more))
		return false;
	slot = os_zalloc(more);
	if (!slot) {
		cc_uncharge(m, more);
		return false;
	}
	k->slot = slot;
	k->slots = n * 2;
	for (uint64_t i = 0; i < n; i++)
		if (!is_free(&was[i]))
			*find(k, &was[i].oid) = was[i];
	os_free(was);
	cc_uncharge(m, n * sizeof(*was));
	return true;
}

static void evict_one(struct cc_known *k)
{
	for (;; k->hand++) {
		struct slot *s = &k->slot[k->hand & (k->slots - 1)];

		if (is_free(s))
			continue;
		if (!s->used) {
			take_out(k, s);
			return;
		}
		s->used = false;
	}
}

static void keep(struct cc_mount *m, const struct slot *s)
{
	struct cc_known *k = m->known;
	struct slot *at;

	os_mutex_lock(&k->lock);
	if (k->closed) {
		os_mutex_unlock(&k->lock);
		return;
	}
	at = find(k, &s->oid);
	if (is_free(at)) {
		if (k->n >= k->slots - k->slots / 4 && !grow(m, k))
			evict_one(k);
		at = find(k, &s->oid);
		k->n++;
	}
	*at = *s;
	os_mutex_unlock(&k->lock);
}

void cc_known_keep(struct cc_mount *m, const struct cc_file *f)
{
	struct slot s = {.oid = f->oid,
			 .id = f->id,
			 .young = f->young,
			 .used = f->adopted,
			 .passing = f->passing};

	/* Without pages, or with pages that nobody may have, there is nothing to know. */
	if (f->known && f->stored && m->known)
		keep(m, &s);
}

void cc_known_adopt(struct cc_mount *m, struct cc_file *f)
{
	struct cc_known *k = m->known;
	struct slot *s;

	os_mutex_lock(&k->lock);
	s = find(k, &f->oid);
	if (!is_free(s)) {
		if (s->passing == f->passing) { /* else of a process before */
			f->id = s->id;
			f->young = s->young;
			f->known = f->stored = f->adopted = true;
		}
		take_out(k, s);
	}
	os_mutex_unlock(&k->lock);
}

void cc_known_drop_begin(struct cc_mount *m)
{
	struct cc_known *k = m->known;

	os_mutex_lock(&k->lock);
	memset(k->slot, 0, k->slots * sizeof(*k->slot));
	k->n = 0;
	k->closed++;
	os_mutex_unlock(&k->lock);
}

void cc_known_drop_end(struct cc_mount *m)
{
	struct cc_known *k = m->known;

	os_mutex_lock(&k->lock);
	k->closed--;
	os_mutex_unlock(&k->lock);
}

void cc_known_verify(struct cc_mount *m)
{
	struct cc_known *k = m->known;
	uint64_t n = 0;

	os_mutex_lock(&k->lock);
	for (uint64_t i = 0; i < k->slots; i++)
		if (!is_free(&k->slot[i])) {
			tmem_assert(K1, find(k, &k->slot[i].oid) == &k->slot[i]);
			n++;
		}
	tmem_assert(K1, n == k->n && n <= k->slots - k->slots / 4);
	tmem_assert(K2, !k->closed || !n);
	os_mutex_unlock(&k->lock);
	(void)n;
}

void cc_known_add(struct cc_mount *m, const tmem_oid *oid, const struct cc_identity *id)
{
	struct slot s = {.oid = *oid, .id = *id};

	if (!is_free(&s))
		keep(m, &s);
}

/* Those that were young when they were last looked at, or pass with the source, are nothing to go
 * by later. */
int cc_known_each(struct cc_mount *m,
		  int (*fn)(void *arg, const tmem_oid *oid, const struct cc_identity *id),
		  void *arg)
{
	struct cc_known *k = m->known;
	int rc = 0;

	for (uint64_t i = 0; i < k->slots && rc == 0; i++)
		if (!is_free(&k->slot[i]) && !k->slot[i].young && !k->slot[i].passing)
			rc = fn(arg, &k->slot[i].oid, &k->slot[i].id);
	return rc;
}

int cc_known_open(struct cc_mount *m)
{
	uint64_t bytes = SLOTS_FIRST * sizeof(struct slot);
	struct cc_known *k = os_zalloc(sizeof(*k));

	if (!k)
		return -ENOMEM;
	os_mutex_init(&k->lock, OS_RANK_CC_KNOWN, "identities");
	k->slots = SLOTS_FIRST;
	if (cc_charge(m, bytes)) {
		k->slot = os_zalloc(bytes);
		if (!k->slot)
			cc_uncharge(m, bytes);
	}
	if (!k->slot) {
		os_mutex_destroy(&k->lock);
		os_free(k);
		return -ENOMEM;
	}
	m->known = k;
	return 0;
}

void cc_known_close(struct cc_mount *m)
{
	struct cc_known *k = m->known;

	if (!k)
		return;
	os_mutex_destroy(&k->lock);
	os_free(k->slot);
	cc_uncharge(m, k->slots * sizeof(*k->slot));
	os_free(k);
	m->known = NULL;
}
