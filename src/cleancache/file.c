/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A file's data: what keeps C1, C2 and C3 of cleancache.h.
 *
 *   reader of the source    c = changes ── read the source ── put, if changes is still c
 *   change of ours          changes++, no puts from here on ── pages go ── the source is changed ──
 *                           changes++
 *
 *   F1  putting > 0 and changing > 0 only while the change waits for the puts to end
 *   F2  changing > 0  =>  no put begins
 *   F3  of what was read before or during a change nothing is put after its end:
 *       changes is not what it was
 *
 * F1 and F2: pages that the change drops were all put before it; F3: none older comes after. A
 * file that is written all the time puts little, then; it is not what a cache of clean pages is
 * for. The lock is held for a few instructions; the puts themselves, which compress, run beside
 * each other.
 *
 * The kernel's pages. It drops those that it has of a file when it is told so in the answer to an
 * open, and a little later than we have said so. Meanwhile another open must not be told that
 * it may keep them, though it finds nothing changed:
 *
 *   F4  an open may keep the kernel's pages only if confirmed = version: since the last time that
 *       pages went, the kernel has dropped its own, which is known by the first request that comes
 *       by a handle whose open said so
 *
 * What a change of ours leaves. After it no look can tell whether somebody else has changed the
 * file, too: nothing is believed of it for a while. Pages that it does not touch, and the size that
 * goes with them, would be given to who has the file open for as long as nobody opens it again. So
 * all of them go with the first change, and none come until something is known again:
 *
 *   F5  known is false, and no change and no drop is under way  =>  the store has nothing of it
 *
 * Something is known again with the next open, or, when unsure is set, with the next look of any
 * kind: who has the file open has its pages kept again, and is told of changes. A look can be
 * believed whenever it was begun after the last change of ours. But a file that is still written
 * would be put and dropped in turn:
 *
 *   F6  unsure is set by what is no change of the source, and when there are no writers and no
 *       change of ours is under way any more
 *
 * One reader of a page. Two that miss the same one would ask a slow source twice: each run that
 * is being read is in the list of fetches, and who wants a page of it waits for its end, and
 * then looks into the store again. What was read may not have got there; then it is read again,
 * by one at a time.
 */
#include "cleancache/cleancache.h"

void cc_file_init(struct cc_file *f, const tmem_oid *oid)
{
	*f = (struct cc_file){.oid = *oid, .version = 1};
	os_mutex_init(&f->lock, OS_RANK_CC_FILE, "file");
	os_cond_init(&f->idle);
}

void cc_file_destroy(struct cc_file *f)
{
	os_cond_destroy(&f->idle);
	os_mutex_destroy(&f->lock);
}

/* ---- changes ---------------------------------------------------------------------------- */

/* Under the lock: no put is under way, and none begins until changing is 0 again. */
static void exclude_puts(struct cc_file *f)
{
	f->changing++;
	f->changes++;
	while (f->putting)
		os_cond_wait(&f->idle, &f->lock);
}

static void admit_puts(struct cc_file *f)
{
	f->changes++;
	f->changing--;
}

/* Under the lock. F6. */
static void nobody_writes(struct cc_file *f)
{
	if (!f->writers && !f->ours_now)
		f->unsure = !f->known;
}

void cc_change_begin(struct cc_mount *m, struct cc_file *f)
{
	os_mutex_lock(&f->lock);
	exclude_puts(f);
	f->known = f->unsure = false;
	f->ours_now++;
	os_mutex_unlock(&f->lock);
	/* Also where another drop is under way: it may not have come to its end. */
	(void)cc_store_drop(m, &f->oid);
}

void cc_change_end(struct cc_mount *m, struct cc_file *f)
{
	os_mutex_lock(&f->lock);
	f->ours_now--;
	f->ours_order = cc_order();
	admit_puts(f);
	nobody_writes(f);
	os_mutex_unlock(&f->lock);
}

void cc_file_forget(struct cc_mount *m, struct cc_file *f)
{
	cc_change_begin(m, f);
	cc_change_end(m, f);
	os_mutex_lock(&f->lock);
	f->unsure = !f->known;
	os_mutex_unlock(&f->lock);
}

void cc_writer_comes(struct cc_file *f)
{
	os_mutex_lock(&f->lock);
	f->writers++;
	os_mutex_unlock(&f->lock);
}

bool cc_writer_goes(struct cc_file *f)
{
	bool told;

	os_mutex_lock(&f->lock);
	f->writers--;
	nobody_writes(f);
	told = !f->writers && f->unsure;
	os_mutex_unlock(&f->lock);
	return told;
}

bool cc_has_writers(struct cc_file *f)
{
	bool has;

	os_mutex_lock(&f->lock);
	has = f->writers;
	os_mutex_unlock(&f->lock);
	return has;
}

/* ---- looks ------------------------------------------------------------------------------ */

/*
 * A file that we change ourselves has a new identity after that, and nobody can tell whether
 * another's change hides behind it. So it is as good as a change of theirs: known is false until
 * the next open, or until nobody writes it (F6). Looks before that say nothing.
 */
bool cc_file_seen(struct cc_mount *m, struct cc_file *f, const struct cc_look *look,
		  enum cc_why why)
{
	bool at_open = why == CC_OPENED;
	bool same, young, drops, gone, is, ours, late;

	os_mutex_lock(&f->lock);
	same = f->known && cc_identity_same(&f->id, &look->id);
	young = same && f->young && why != CC_ASKED;
	drops = at_open ? !same || young : (f->known && !same) || f->unsure || young;
	if (drops) {
		/* Also where another drop is under way: it may not have come to its end. */
		exclude_puts(f);
		os_mutex_unlock(&f->lock);
		gone = cc_store_drop(m, &f->oid);
		os_mutex_lock(&f->lock);
		admit_puts(f);
		f->version++;
		f->drops += gone;
		cc_count(m, young ? CC_YOUNG_DROPS : CC_DROPS, gone);
	}
	is = f->known && cc_identity_same(&f->id, &look->id);
	ours = look->order < f->ours_order || f->ours_now;
	late = look->order < f->order || ours;
	if (is || (drops && !late)) {
		if (!is) /* a look that was begun before this may have been answered earlier */
			f->order = cc_order();
		f->id = look->id;
		f->known = true;
		f->unsure = false;
		/* While it is young only a look that drops what is there says what it is. */
		if ((at_open || drops || !f->young) && f->looked_ns < look->at_ns)
			f->looked_ns = look->at_ns;
		if (at_open || drops)
			f->young = !cc_look_is_settled(look, cc_grain_of(m, look));
	} else if (drops) {
		/* From before what is known, or a change of ours: it says that, not what is. */
		f->known = false;
		f->unsure |= !ours; /* the next look tells, whoever asks */
	}
	os_mutex_unlock(&f->lock);
	return drops;
}

/* ---- the kernel's pages ----------------------------------------------------------------- */

bool cc_kernel_is_fresh(struct cc_file *f, uint64_t *version)
{
	bool fresh;

	os_mutex_lock(&f->lock);
	*version = f->version;
	fresh = f->confirmed == f->version;
	os_mutex_unlock(&f->lock);
	return fresh;
}

void cc_kernel_has_dropped(struct cc_file *f, uint64_t version)
{
	os_mutex_lock(&f->lock);
	if (f->confirmed < version)
		f->confirmed = version;
	os_mutex_unlock(&f->lock);
}

/* ---- puts ------------------------------------------------------------------------------- */

struct cc_view cc_view(struct cc_file *f)
{
	struct cc_view v;

	os_mutex_lock(&f->lock);
	/* Of a change that is under way: it will be another number when that ends. */
	v.changes = f->changes;
	v.size = f->known ? f->id.size : 0; /* F5 */
	os_mutex_unlock(&f->lock);
	return v;
}

bool cc_put_begin(struct cc_file *f, uint64_t changes)
{
	bool may;

	os_mutex_lock(&f->lock);
	may = !f->changing && f->changes == changes && f->known;
	f->putting += may;
	f->stored |= may;
	os_mutex_unlock(&f->lock);
	return may;
}

void cc_put_end(struct cc_file *f)
{
	os_mutex_lock(&f->lock);
	if (!--f->putting)
		os_cond_broadcast(&f->idle);
	os_mutex_unlock(&f->lock);
}

/* ---- fetches ---------------------------------------------------------------------------- */

uint64_t cc_fetch_begin(struct cc_file *f, struct cc_fetch *fetch, uint64_t first, uint64_t n)
{
	bool waited = false;

	os_mutex_lock(&f->lock);
	for (const struct cc_fetch *other = f->fetches; other;) {
		if (other->first <= first && first < other->first + other->n) {
			os_cond_wait(&f->idle, &f->lock);
			waited = true;
			other = f->fetches;
			continue;
		}
		if (other->first > first && other->first < first + n)
			n = other->first - first;
		other = other->next;
	}
	if (waited)
		n = 0;
	if (n) {
		*fetch = (struct cc_fetch){.first = first, .n = n, .next = f->fetches};
		f->fetches = fetch;
	}
	os_mutex_unlock(&f->lock);
	return n;
}

void cc_fetch_end(struct cc_file *f, struct cc_fetch *fetch)
{
	struct cc_fetch **at;

	os_mutex_lock(&f->lock);
	for (at = &f->fetches; *at != fetch; at = &(*at)->next)
		;
	*at = fetch->next;
	os_cond_broadcast(&f->idle);
	os_mutex_unlock(&f->lock);
}
