/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `tmem run --limit auto`: how much may leave, and how cold it has to be.
 *
 * The promise is the one published for far memory in warehouses: of the working
 * set at most `target` a minute is *promoted*, that is touched after it left. All
 * else follows from that. Two accounts are kept, in pages, both filled with the
 * budget (target times working set, a minute):
 *
 *   plan     what leaves is charged in advance with the promotions that are
 *            expected of it: so what is sure to be cold leaves at once, what is
 *            doubtful as slowly as the target wants;
 *   credit   what really happened: each promotion costs one.
 *
 *        budget --+--> plan   ---- pages x chance that they come back ----> leave
 *                 +--> credit ---- promotions ------------------------> go on / stop
 *
 * Expectations err, when a program turns to something else, or looks through all
 * of its memory every five minutes. Then credit is below zero (or threads wait
 * for their pages for more than a hundredth of the time): a *breach*. Nothing
 * leaves until it has been paid off, the age at which a page counts as cold is
 * doubled, and the next breach costs twice the time. And the chance that pages
 * come back is learnt: of those that left lately, how many did. A chunk of which some page
 * may be in use is not believed to be better than that (programs that mix what they use with
 * what they do not, do so everywhere); and after a breach (*wary*) nothing is: few pages
 * leave then, as a trial, and many only when those have stayed out.
 *
 * Where memory is short (PSI, as in zcache/pressure.c) the age is halved and the
 * budget doubled, up to three times; not while a breach is remembered.
 *
 *   L1  -budget * debt <= credit <= burst, plan <= burst;
 *       burst = two minutes' worth, or 64 pages: so much is allowed for learning
 *   L2  stopped  <=>  credit fell below 0, and has not been paid off since
 *   L3  cold_ms = base_ms << raise >> eager;  raise > 0  =>  eager = 0
 *   L4  raise rises at a breach only, and falls after quiet of debt minutes
 *   L5  between two changes of eager there is at least one cold_ms
 *
 * It cannot swing: everything that makes it more careful acts at once and is
 * remembered for twice as long each time it is repeated (L4), everything that
 * makes it bolder is slower than what it is measured by (L5, the trials).
 *
 * What a space's pager knows of 2 MiB of memory is judged here, too: a chunk is
 * *unknown*, then *probed* (one page left, and a cold age has to pass), then
 * *sampled* (some more, spread), then *open*. Chunks are nearly always of one
 * kind, so the chance that a page of it comes back is
 *
 *        h = (back + e * h0) / (tried + e),   e = 1/64
 *
 * with h0 the part of the mapping that the kernel saw referenced. A chunk of which half
 * comes back is hot: it is left alone for a time that doubles.
 *
 *   C1  back <= tried (as counted: both fade)
 *   C2  offers 0 pages before due_ms, and when h >= 1/2
 *
 * Pure: no clock, no calls, no locks.
 */
#ifndef TMEM_PAGER_AUTO_LAW_H
#define TMEM_PAGER_AUTO_LAW_H

#include <stdbool.h>
#include <stdint.h>

#define AUTO_COLD_MS	120000u
#define AUTO_TARGET_PPM 2000u /* 0.2 % of the working set a minute */
#define AUTO_STEP_MS	1000u
#define AUTO_RAISES	5u
#define AUTO_EAGER	3u

struct auto_in { /* all but working_set since the start, and only growing */
	uint64_t now_ms;
	uint64_t working_set; /* pages */
	uint64_t promotions;  /* pages that were out and touched */
	uint64_t offloaded;   /* pages that left chunks whose probe has stayed out */
	uint64_t returned;    /* of those, touched */
	uint64_t wait_us;     /* that threads waited for promotions, all together */
	uint64_t stall_us; /* pressure: time in which some task waited for memory; 0: not known */
};

struct auto_law {
	uint32_t base_ms, target_ppm;
	struct auto_in last;
	bool begun, stopped;
	bool wary; /* since a breach: what came back lately says what will */
	unsigned raise, eager;
	double budget;	     /* pages a minute */
	double credit, plan; /* pages */
	double debt;	     /* minutes that a breach may cost */
	double waited_us;    /* for promotions, less what is allowed */
	double chance;	     /* that what leaves comes back, 0 to 1 */
	double lately;	     /* pages that left, fading */
	uint64_t calm_ms;    /* the last breach, or what was forgotten of it */
	uint64_t eager_ms;
	uint64_t breaches;
};

void auto_law_start(struct auto_law *l, uint32_t base_ms, uint32_t target_ppm);
/* A step, at most one each AUTO_STEP_MS counts; none before the working set is known. */
void auto_law_step(struct auto_law *l, const struct auto_in *in);
/* How old a page has to be. */
uint32_t auto_law_cold_ms(const struct auto_law *l);
/* The chance that what leaves comes back, lately: 0 to 1. */
double auto_law_chance(const struct auto_law *l);
/* Expected promotions, in pages, were taken from the plan. */
void auto_law_spend(struct auto_law *l, double pages);
/* Stops the process when L1 to L3 do not hold. */
void auto_law_verify(const struct auto_law *l);

enum auto_stage { AUTO_UNKNOWN, AUTO_PROBED, AUTO_SAMPLED, AUTO_OPEN };

struct auto_chunk {
	uint64_t due_ms;  /* nothing leaves before */
	uint64_t cool_ms; /* what came back is no victim before */
	uint16_t tried, back;
	uint8_t stage;
	uint8_t fails; /* times that it was found hot: the next time to wait doubles */
	uint8_t warm;  /* times that pages of it came back again */
	bool any_hot;
	uint64_t hot[8]; /* bit of a page: it came back */
};

struct auto_view { /* what a chunk is judged by */
	uint64_t now_ms;
	uint32_t cold_ms;
	double referenced; /* h0: part of the mapping, 0 to 1 */
	double chance;	   /* auto_law_chance() */
	double plan;	   /* pages, left to spend */
	bool wary;	   /* not even mappings that were idle are believed to be better */
	bool doubtful;	   /* second sweep: also what is known to be mixed */
};

#define AUTO_SAMPLE 16u /* pages that are tried after a probe has stayed out */

/*
 * How many of `there` pages of a chunk may leave now, and the chance that is to be
 * charged for each. 0: none. AUTO_UNKNOWN, AUTO_PROBED: pages that lie apart are to be taken.
 */
uint32_t auto_chunk_offer(struct auto_chunk *c, const struct auto_view *v, uint32_t there,
			  double *chance);
/* n pages leave. */
void auto_chunk_left(struct auto_chunk *c, const struct auto_view *v, uint32_t n);
/* One of its pages, 0 to 511, was touched when it was out. Whether it had left behind a probe. */
bool auto_chunk_back(struct auto_chunk *c, uint64_t now_ms, uint32_t cold_ms, uint32_t page);
static inline bool auto_chunk_hot(const struct auto_chunk *c, uint32_t page)
{
	return c->hot[page / 64] >> page % 64 & 1;
}

#endif
