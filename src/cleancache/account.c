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
 */
#include "cleancache/cleancache.h"

#include "os/check.h"

#include <errno.h>

#define STEP	   ((uint64_t)256 << 10)
#define STORE_PART 4 /* of what is not fixed */

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

bool cc_charge(struct cc_mount *m, uint64_t bytes)
{
	struct cc_account *a = &m->account;
	bool fits = true;

	os_mutex_lock(&a->lock);
	if (a->used + bytes > a->granted) {
		uint64_t want = (a->used + bytes + 2 * STEP - 1) / STEP * STEP;

		fits = want <= spare(a) - spare(a) / STORE_PART;
		if (fits)
			set_limit(m, want);
	}
	if (fits)
		a->used += bytes;
	os_mutex_unlock(&a->lock);
	if (!fits)
		cc_notify_trim(m);
	return fits;
}

void cc_uncharge(struct cc_mount *m, uint64_t bytes)
{
	struct cc_account *a = &m->account;

	os_mutex_lock(&a->lock);
	a->used -= bytes;
	/* Not at once: what goes comes again. */
	if (a->granted > STEP && a->used + 4 * STEP < a->granted)
		set_limit(m, (a->used + 2 * STEP - 1) / STEP * STEP);
	os_mutex_unlock(&a->lock);
}
