/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * --size bounds everything:
 *
 *   M1  fixed + used + the store's limit <= size
 *   M2  when nothing is left that was charged, used = 0
 *
 * fixed: the process as it is without a node, and the buffers of all its threads as if they were
 * in use. used: nodes, files, handles, which the kernel's questions make. The rest is the
 * store's. It is lent to the others in steps of STEP, which the store gives up before they are
 * used: its limit first, then pages until it is kept. What the store is to keep at least is a
 * quarter of what there was to give, so names alone cannot push out all data; beyond that a
 * charge fails, and the kernel is asked to forget names (notify.c).
 *
 * What was freed the C library may keep. So it is told to give that back before the store may have
 * it; not under the lock, as that takes its time, and not often: for a few steps at a time. What is
 * left of a node may keep the pages that it is in: so much of the most that was used stays lent.
 */
#include "cleancache/cleancache.h"

#include "os/check.h"
#include "os/mem.h"

#include <errno.h>

#define STEP	   ((uint64_t)256 << 10)
#define STORE_PART 4 /* of what is not fixed */
#define NODE_KEEPS ((uint64_t)2 * CC_PAGE)

static uint64_t spare(const struct cc_account *a)
{
	return a->size - a->fixed;
}

/* Under the lock. */
static void set_limit(struct cc_mount *m, uint64_t granted)
{
	struct cc_account *a = &m->account;
	tmem_stats s = {.size = sizeof(s)};
	uint64_t limit = spare(a) - granted, got;

	(void)tmem_host_set_limit(m->host, limit);
	(void)tmem_host_stats(m->host, &s);
	while (s.store_bytes > limit) {
		(void)tmem_host_shrink(m->host, (s.store_bytes - limit) / CC_PAGE + 1, &got);
		if (!got)
			break; /* what is left is not pages */
		(void)tmem_host_stats(m->host, &s);
	}
	a->granted = granted;
}

int cc_account_open(struct cc_mount *m, uint64_t fixed)
{
	struct cc_account *a = &m->account;

	os_mutex_init(&a->lock, OS_RANK_CC_ACCOUNT, "account");
	a->size = m->o->size_bytes;
	a->fixed = fixed;
	if (fixed + CC_SIZE_MIN / 4 > a->size)
		return -EINVAL;
	os_mutex_lock(&a->lock);
	set_limit(m, STEP);
	os_mutex_unlock(&a->lock);
	return 0;
}

/* At the end; files that are open still are the kernel's fault, not ours. */
void cc_account_verify(struct cc_mount *m)
{
	uint64_t used = atomic_load(&m->account.used);

	tmem_assert(M2, used == 0 || atomic_load(&m->handles));
	(void)used;
}

/* Under the lock: what is taken, as far as it is known. */
static uint64_t taken(struct cc_mount *m, uint64_t used)
{
	const struct cc_account *a = &m->account;
	uint64_t most = used + atomic_load(&m->nodes) * NODE_KEEPS;

	return most < a->most ? most : a->most;
}

static uint64_t in_steps(uint64_t bytes)
{
	return (bytes + 2 * STEP - 1) / STEP * STEP;
}

bool cc_charge(struct cc_mount *m, uint64_t bytes)
{
	struct cc_account *a = &m->account;
	bool fits = true;

	os_mutex_lock(&a->lock);
	if (a->used + bytes > a->granted) {
		uint64_t want = in_steps(a->used + bytes);

		fits = want <= spare(a) - spare(a) / STORE_PART;
		if (fits)
			set_limit(m, want);
	}
	if (fits) {
		a->used += bytes;
		a->most = a->used > a->most ? a->used : a->most;
	}
	os_mutex_unlock(&a->lock);
	if (!fits)
		cc_notify_trim(m);
	return fits;
}

/* Under the lock. Not at once: what goes comes again. */
static bool has_too_much(struct cc_mount *m, uint64_t used)
{
	const struct cc_account *a = &m->account;

	return a->granted > STEP && taken(m, used) + 4 * STEP < a->granted;
}

void cc_uncharge(struct cc_mount *m, uint64_t bytes)
{
	struct cc_account *a = &m->account;
	uint64_t used;
	bool gives;

	os_mutex_lock(&a->lock);
	a->used -= bytes;
	used = a->used;
	gives = has_too_much(m, used) && !a->giving;
	a->giving |= gives;
	os_mutex_unlock(&a->lock);
	if (!gives)
		return;
	os_blocks_return();
	os_mutex_lock(&a->lock);
	a->giving = false;
	used = a->used > used ? a->used : used; /* what went since has not been given back */
	if (has_too_much(m, used)) {
		a->most = taken(m, used);
		set_limit(m, in_steps(a->most));
	}
	os_mutex_unlock(&a->lock);
}
