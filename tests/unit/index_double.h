/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A test double for what backs an index pool: words are tickets, and each
 * ticket knows which handle it was made for. It finds
 *
 *   double drop, drop of something never linked   ticket not live at drop
 *   take of something gone                        ticket not live at take
 *   leak                                          tickets live at the end
 *   a word under the wrong handle                 ticket's handle, by the caller
 *
 * Tickets are reused, with a generation in the word, so a stale word is seen.
 * Immediate words are only counted. Thread-safe.
 */
#ifndef TMEM_TESTS_INDEX_DOUBLE_H
#define TMEM_TESTS_INDEX_DOUBLE_H

#include "index/index.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIE(...)                                                                                   \
	do {                                                                                       \
		fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                    \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		abort();                                                                           \
	} while (0)

struct ticket {
	_Atomic uint32_t state; /* generation << 1 | live */
	struct index_oid oid;
	uint64_t index, version;
};

struct pam_double {
	struct ticket *ticket;
	uint32_t tickets;
	_Atomic uint32_t hand;
	_Atomic int64_t live, immediate_drops;
	_Atomic uint64_t takes, drops, drop_calls;
	_Atomic int take_error; /* returned by take when non-zero */
	void (*in_drop)(void *arg);
	void *in_drop_arg;
};

/* What take copies out. */
struct taken {
	struct index_oid oid;
	uint64_t index, version;
};

static inline bool index_oid_same(const struct index_oid *a, const struct index_oid *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static inline void pam_double_init(struct pam_double *d, uint32_t tickets)
{
	memset(d, 0, sizeof(*d));
	d->tickets = tickets;
	d->ticket = calloc(tickets, sizeof(d->ticket[0]));
	if (!d->ticket)
		DIE("no memory");
}

static inline void pam_double_fini(struct pam_double *d)
{
	if (atomic_load(&d->live))
		DIE("%lld tickets leaked", (long long)atomic_load(&d->live));
	free(d->ticket);
}

static inline struct pampd pam_double_new(struct pam_double *d, const struct index_oid *oid,
					  uint64_t index, uint64_t version)
{
	for (uint32_t tries = 0; tries < d->tickets; tries++) {
		uint32_t i = atomic_fetch_add(&d->hand, 1) % d->tickets;
		struct ticket *t = &d->ticket[i];
		uint32_t state = atomic_load(&t->state);

		if (state & 1 || !atomic_compare_exchange_strong(&t->state, &state, state + 3))
			continue;
		t->oid = *oid;
		t->index = index;
		t->version = version;
		atomic_fetch_add(&d->live, 1);
		return (struct pampd){(uint64_t)(state + 3) << 32 | (i + 1), false};
	}
	DIE("no ticket left of %u", d->tickets);
}

/* The live ticket that a word names. */
static inline struct ticket *pam_double_ticket(struct pam_double *d, struct pampd p)
{
	uint32_t i = (uint32_t)p.word - 1;

	if (i >= d->tickets)
		DIE("word %llx names nothing", (unsigned long long)p.word);
	if (atomic_load(&d->ticket[i].state) != p.word >> 32)
		DIE("ticket %u is not live", i);
	return &d->ticket[i];
}

static inline int pam_double_take(void *ctx, struct pampd p, void *taken)
{
	struct pam_double *d = ctx;
	struct taken *out = taken;
	int err = atomic_load_explicit(&d->take_error, memory_order_relaxed);

	atomic_fetch_add_explicit(&d->takes, 1, memory_order_relaxed);
	if (!p.immediate) {
		const struct ticket *t = pam_double_ticket(d, p);

		if (out)
			*out = (struct taken){t->oid, t->index, t->version};
	}
	return err;
}

static inline void pam_double_drop_one(struct pam_double *d, struct pampd p)
{
	struct ticket *t;
	uint32_t state = (uint32_t)(p.word >> 32);

	if (p.immediate) {
		atomic_fetch_add(&d->immediate_drops, 1);
		return;
	}
	t = pam_double_ticket(d, p);
	if (!atomic_compare_exchange_strong(&t->state, &state, state - 1))
		DIE("double drop of ticket %u", (uint32_t)p.word - 1);
	atomic_fetch_sub(&d->live, 1);
}

static inline void pam_double_drop(void *ctx, const struct pampd *p, unsigned n)
{
	struct pam_double *d = ctx;

	if (n < 1 || n > INDEX_BATCH)
		DIE("drop of %u words", n);
	atomic_fetch_add_explicit(&d->drop_calls, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&d->drops, n, memory_order_relaxed);
	if (d->in_drop)
		d->in_drop(d->in_drop_arg);
	for (unsigned i = 0; i < n; i++)
		pam_double_drop_one(d, p[i]);
}

static const struct pam_ops pam_double_ops = {
	.take = pam_double_take,
	.drop = pam_double_drop,
};

#endif
