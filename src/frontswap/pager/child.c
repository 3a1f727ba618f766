/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fork that the kernel has told of: the child gets books, a clone of the pool, and a
 * pager of its own. (Forks of which it does not tell: fork.c.)
 */
#include "frontswap/pager/discard.h"
#include "frontswap/pager/run.h"
#include "frontswap/uffd.h"

#include "os/check.h"
#include "os/lock.h"
#include "os/log.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

/*
 * What a child did not get: mappings with MADV_DONTFORK, and those whose UNMAP
 * we have yet to read. A segment without our registration must not be: there
 * pages could leave that no fault would bring back. UFFDIO_CONTINUE changes
 * nothing and tells: EINVAL where one registered mapping, which is not shared
 * memory, covers the range; ENOENT else. False: EAGAIN.
 */
static bool drop_unregistered(struct space *sp, uint64_t start, uint64_t end)
{
	struct uffdio_continue c = {.range = {start, end - start}};
	uint64_t half = start + (end - start) / 2 / AGENT_PAGE * AGENT_PAGE;

	if (ioctl(sp->uffd, UFFDIO_CONTINUE, &c) == 0)
		return true;
	if (errno != ENOENT)
		return errno != EAGAIN;
	if (end - start > AGENT_PAGE)
		return drop_unregistered(sp, start, half) && drop_unregistered(sp, half, end);
	space_drop_range(sp, start, end, true);
	return true;
}

static bool drop_all_unregistered(struct space *sp)
{
	for (uint32_t i = sp->nsegs; i-- > 0;) {
		struct segment seg = sp->segs[i]; /* dropping changes what lies behind it only */

		if (!drop_unregistered(sp, seg.start, seg.end))
			return false;
	}
	return true;
}

/* A page that the parent has in a slot, and the child nowhere: by our books it was never there. */
static void give_child(struct space *child, uint32_t area, uint64_t page, const void *from)
{
	const struct chunk *c;
	uint64_t addr, done;

	while (!child->gone && (addr = space_address(child, area, page)) &&
	       (c = space_chunk(child, area, page, false)) &&
	       !c->place[page % CHUNK_PAGES].emptied) {
		if (pager_copy_in(child, addr, from, 1, &done)) {
			space_mark_resident(child, space_find(child, addr), addr, 1, ARRIVAL_FRESH);
			return;
		}
		pager_read_what_is_there(child);
	}
}

/*
 * What the store refused is in slots still, on its way back to the parent; or to the parent's
 * parent, when that is still giving it to the parent, which forked past libc.
 */
static void give_from_slots(struct space *child, const struct space *giver)
{
	for (unsigned i = 0; giver->shm && i < AGENT_SLOTS; i++) {
		const struct slot *sl = &giver->slots[i];

		if (atomic_load(&sl->state) == SLOT_FREE)
			continue;
		for (uint32_t k = 0; k < sl->pages; k++) {
			uint64_t addr = space_address(child, sl->area, sl->first + k);

			if ((giver->discard.marking || giver->discard.looking) &&
			    atomic_load(&sl->state) == SLOT_MOVING && addr &&
			    !(sl->dropped & 1u << k)) /* it is there still, in both */
				space_mark_resident(child, space_find(child, addr), addr, 1,
						    ARRIVAL_FOUND);
			/* All else has been settled: of what is stored the child has a clone. */
			tmem_assert(I2, atomic_load(&sl->state) != SLOT_STORED ||
						!(sl->moved & sl->stored));
			if (sl->moved & ~sl->dropped & ~sl->stored & 1u << k)
				give_child(child, sl->area, sl->first + k,
					   giver->shm->slots[i] + (size_t)k * AGENT_PAGE);
		}
	}
}

/*
 * The child could never have its pages. It is not known by number yet, and to end its parent
 * alone would have it wait for ever; so the whole program ends.
 */
static void abandon_child(const struct space *sp, const char *why)
{
	os_log(OS_LOG_ERROR, "the program is ended: %s for a child of process %d", why,
	       (int)sp->pid);
	run_abandon(sp->run);
}

/*
 * The kernel lets the child go as soon as we have read of it. By libc's fork() it waits at once
 * for its name; one that was forked past libc may change its mappings, and then waits until
 * somebody reads that. Here it is us: all that says EAGAIN reads the child's events.
 */
void child_begins(struct space *sp, int uffd)
{
	struct run *r = sp->run;
	uint64_t name = listen_name();
	struct space *child;
	os_thread t;

	discard_changed(sp, 0, UINT64_MAX);
	evict_drain(sp, false);
	sp->unsharing =
		false; /* what was its own again is shared anew, and all of it to be walked */
	child = space_fork(sp, uffd);
	if (child && !events_inherit(child, sp)) {
		child->uffd = -1;
		space_free(child);
		child = NULL;
	}
	if (!child) {
		run_hold(r, name, 0, uffd); /* until it is killed it must not read zeros */
		abandon_child(sp, "out of memory");
		close(uffd);
		return;
	}
	child->giver = sp;
	while (!drop_all_unregistered(child) && !child->gone)
		pager_read_what_is_there(child);
	for (const struct space *giver = sp; giver; giver = giver->giver)
		give_from_slots(child, giver);
	child->giver = NULL;
	os_mutex_lock(&r->lock);
	child->id = name;
	child->next = r->spaces;
	r->spaces = child;
	atomic_fetch_add(&r->nspaces, 1);
	os_mutex_unlock(&r->lock);
	atomic_fetch_add(&r->n.spaces, 1);
	atomic_fetch_add(&r->n.forks, 1);
	run_hold(r, child->id, 0, uffd);
	evict_resync(child);
	if (os_thread_create(&t, "tmem-pager", pager_thread, child) < 0)
		abandon_child(sp, "no thread");
}
