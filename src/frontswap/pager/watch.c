/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The watch for thrashing. Two sides share struct watch of the run:
 *
 *   sampling thread            pagers
 *   ---------------            ------
 *   slice  + 1, each slice     fade their counts of refaults, as often
 *   stall  + 1, at its begin   note their eviction clock: what leaves from here on
 *                              is recent when it comes back
 *   question + 1               how many pages more would have been enough, by
 *                              refault.h: a sum over all of them
 *
 * Ages are of a space's own clock: spaces share the limit but not their pages, and each
 * keeps what it used last. So what they want adds up.
 *
 * A fault pays for it with a look at its page's stamp and three stores to memory of the
 * space's own; nothing is allocated, and no lock is taken.
 */
#include "frontswap/pager/sight.h"

#include <string.h>

#define FEW_REFAULTS (32u * REFAULT_WEIGHT) /* a space with fewer has no say */
#define PATIENCE_NS  1000000000ull	    /* for answers */
#define ASK_NS	     900000000ull	    /* from question to question */
#define SETTLED_NS   10000000000ull	    /* for answers that fall and fall */
#define OVER_NS	     1000000000ull	    /* over the limit: less is not worth a word */

/* ---- a pager's side ------------------------------------------------------------------------ */

uint32_t watch_age(struct space *sp, uint32_t area, uint64_t page)
{
	const struct chunk *c = space_chunk(sp, area, page, false);
	uint32_t stamp = c ? c->place[page % CHUNK_PAGES].stamp : 0;

	return stamp ? sp->evict_clock - stamp : WATCH_UNKNOWN;
}

void watch_refault(struct space *sp, uint32_t age)
{
	struct refaults *rf = &sp->refaults;

	if (age == WATCH_UNKNOWN)
		return;
	refaults_note(rf, age);
	if (rf->stall && age <= sp->evict_clock - rf->since)
		atomic_fetch_add_explicit(&sp->run->n.recent_refaults, 1, memory_order_relaxed);
}

/* Pages that are out, by the bucket of their age. */
static void count_out(const struct space *sp, uint64_t out[REFAULT_BUCKETS])
{
	for (uint32_t a = 0; a < sp->nareas; a++) {
		for (uint32_t i = 0; i < sp->areas[a].nchunks; i++) {
			const struct chunk *c = sp->areas[a].chunks[i];

			for (uint32_t p = 0; c && c->out && p < c->pages; p++)
				if ((c->page[p] & PAGE_STATE) == PAGE_OUT)
					out[c->place[p].stamp ? refault_bucket(sp->evict_clock -
									       c->place[p].stamp)
							      : REFAULT_BUCKETS - 1]++;
		}
	}
}

static void answer(struct space *sp)
{
	struct watch *w = &sp->run->watch;
	uint64_t out[REFAULT_BUCKETS] = {0}, pages = 0;

	count_out(sp, out);
	for (unsigned b = 0; b < REFAULT_BUCKETS; b++)
		pages += out[b];
	atomic_fetch_add(&w->out_pages, pages);
	if (refaults_weight(&sp->refaults) >= FEW_REFAULTS)
		atomic_fetch_add(&w->extra_pages,
				 refaults_extra(&sp->refaults, out, atomic_load(&w->left_ppm),
						sp->evict_clock - sp->refaults.since));
	atomic_fetch_add(&w->answers, 1);
}

void watch_tick(struct space *sp)
{
	struct watch *w = &sp->run->watch;
	struct refaults *rf = &sp->refaults;
	uint32_t slice = atomic_load_explicit(&w->slice, memory_order_relaxed);

	if (slice == rf->slice && atomic_load(&w->question) == rf->answered)
		return;
	refaults_fade(rf, slice - rf->slice);
	rf->slice = slice;
	if (rf->stall != atomic_load(&w->stall)) {
		rf->stall = atomic_load(&w->stall);
		rf->since = sp->evict_clock;
	}
	if (rf->answered != atomic_load(&w->question)) {
		rf->answered = atomic_load(&w->question);
		answer(sp);
	}
}

/* ---- the sampling thread's side ---------------------------------------------------------------
 */

static void ask(struct run *r, struct sight *s, uint64_t now)
{
	struct watch *w = &r->watch;

	/* Who did not answer in time may be counted for this question: it is an estimate. */
	atomic_store(&w->answers, 0);
	atomic_store(&w->extra_pages, 0);
	atomic_store(&w->out_pages, 0);
	atomic_store(&w->left_ppm, thrash_left_ppm(&s->thrash));
	atomic_fetch_add(&w->question, 1);
	s->asked_at_ns = now;
}

static uint64_t answered(struct run *r, const struct sight *s)
{
	const struct thrash_memory m = {
		.limit = r->opts.limit_bytes,
		.total = run_total(r),
		.store = s->now.level[LEVEL_STORE],
		.stored_pages = s->now.level[LEVEL_STORED_PAGES],
		.out_pages = atomic_load(&r->watch.out_pages),
		.extra_pages = atomic_load(&r->watch.extra_pages),
		.cluster = r->opts.cluster,
	};

	return thrash_enough(&m);
}

/* Once: what is wrong, and what would be enough. */
static void say(struct run *r, struct sight *s)
{
	s->thrash_at_ns = s->now.at_ns;
	run_say(r,
		"%.80s waits for its own pages %.0f %% of its time: what it works on does not fit "
		"in %llu MiB; --limit %lluM would be enough",
		r->opts.argv[0], s->waiting * 100, (unsigned long long)r->opts.limit_bytes >> 20,
		(unsigned long long)(s->enough_bytes >> 20));
}

/*
 * Answers, again and again, until they do not fall any more: at first what is cold leaves, beside
 * what is wanted again, and is taken for a part of it.
 */
static void listen_to(struct run *r, struct sight *s, uint64_t now)
{
	uint64_t enough;

	if (now - s->asked_at_ns < ASK_NS ||
	    (atomic_load(&r->watch.answers) < atomic_load(&r->nspaces) &&
	     now - s->asked_at_ns < PATIENCE_NS))
		return;
	enough = answered(r, s);
	if (s->thrash.stalled) {
		s->waiting = thrash_waiting(&s->thrash);
		if (!s->enough_bytes || (enough < s->enough_bytes - s->enough_bytes / 32 &&
					 now - s->known_at_ns < SETTLED_NS)) {
			s->enough_bytes = enough;
			ask(r, s, now);
			return;
		}
	}
	if (!s->enough_bytes || enough < s->enough_bytes)
		s->enough_bytes = enough;
	say(r, s);
}

void watch_slice(struct run *r, struct sight *s, uint64_t now)
{
	struct watch *w = &r->watch;
	const struct figures *f = &s->now;
	const struct thrash_figures t = {
		.at_ns = now,
		.wait_ns = f->count[COUNT_WAIT_NS],
		.program_ns = f->count[COUNT_PROGRAM_NS],
		.faults = f->count[COUNT_FAULTS],
		.refaults = f->count[COUNT_FAULTS_STORED] + atomic_load(&r->n.faults_transit),
		.recent = atomic_load(&r->n.recent_refaults),
	};
	enum thrash_verdict verdict;

	/* What sizes itself backs off by itself; it is --max that may be too low. */
	if (s->thrash_at_ns || (r->opts.automatic && run_total(r) < run_goal_managed(r)))
		return;
	verdict = thrash_slice(&s->thrash, &t);
	if (verdict == THRASH_BEGINS && !s->asked_at_ns)
		atomic_fetch_add(&w->stall, 1);
	atomic_fetch_add(&w->slice, 1);
	if (s->asked_at_ns) {
		listen_to(r, s, now);
	} else if (verdict == THRASH_YES) {
		s->waiting = thrash_waiting(&s->thrash);
		s->known_at_ns = now;
		ask(r, s, now);
	}
}

void watch_over(struct run *r, const struct sight *s)
{
	uint64_t over = s->now.count[COUNT_OVER_NS], limit = r->opts.limit_bytes;
	uint64_t peak = atomic_load(&r->peak_total), refused = atomic_load(&r->n.refused_pages);
	const char *why = "it was locked, or came faster than it could leave";

	if (over < OVER_NS || over < s->now.at_ns / 10 || peak <= limit)
		return;
	if (r->peak_stray_bytes >= (peak - limit) / 2)
		why = "processes have it that cannot be managed";
	else if (r->full_ns >= over / 2)
		why = "what it holds is more than that even compressed";
	else if (refused * AGENT_PAGE >= (peak - limit) / 2)
		why = "it does not compress";
	else if (atomic_load(&r->n.forks) &&
		 (r->opts.evict != RUN_EVICT_MOVE ||
		  atomic_load(&r->n.busy_pages) * AGENT_PAGE >= (peak - limit) / 2))
		why = "it was shared after forks";
	run_say(r, "%.80s was over the limit for %.1f of %.1f s, by up to %llu MiB of memory: %s",
		r->opts.argv[0], (double)over / 1e9, (double)s->now.at_ns / 1e9,
		(unsigned long long)(((peak - limit) >> 20) + 1), why);
}
