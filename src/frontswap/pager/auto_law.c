/* SPDX-License-Identifier: BSD-2-Clause */
/* How much may leave under `--limit auto`; see auto_law.h. */
#include "frontswap/pager/auto_law.h"

#include "os/check.h"

#include <math.h>
#include <string.h>

#define MINUTE_MS    60000.0
#define BURST	     2.0	/* minutes of the budget that may be saved up, */
#define BURST_LEAST  64.0	/* or so many pages: a small program has to be learnt, too */
#define DEBT_AGES    5.0	/* a first breach costs so many cold ages at most */
#define DEBT_MOST    720.0	/* and any breach so many: a day, of two minutes */
#define LATELY_AGES  5.0	/* what left fades over so many */
#define TRIALS	     16.0	/* minutes of the budget: so much has to stay out to be believed */
#define UNWARY	     (1.0 / 64) /* with a chance below that a breach is forgotten */
#define WAIT_PART    0.01	/* of the time: more is a breach, */
#define WAIT_BURST   100000	/* us: when it has come to so much */
#define PRESSURE_PPM 1000	/* zcache/pressure.h */

#define E	  (1.0 / 64)
#define NO_PLAN	  (1.0 / 4096) /* so seldom that nothing is charged */
#define MIXED	  (1.0 / 32)   /* from here on a chunk is doubtful */
#define HOT	  0.5
#define TRIED_MAX 1024u
#define FAILS_MAX 6u

/* ---- the law ------------------------------------------------------------------------------- */

static double burst(const struct auto_law *l)
{
	return fmax(BURST * l->budget, BURST_LEAST);
}

static double ages(const struct auto_law *l, double n)
{
	return n * l->base_ms / MINUTE_MS;
}

void auto_law_start(struct auto_law *l, uint32_t base_ms, uint32_t target_ppm)
{
	*l = (struct auto_law){.base_ms = base_ms, .target_ppm = target_ppm, .chance = UNWARY};
	l->debt = ages(l, DEBT_AGES);
}

uint32_t auto_law_cold_ms(const struct auto_law *l)
{
	return l->base_ms << l->raise >> l->eager;
}

double auto_law_chance(const struct auto_law *l)
{
	return l->chance;
}

void auto_law_spend(struct auto_law *l, double pages)
{
	l->plan -= pages;
}

static void breach(struct auto_law *l, uint64_t now)
{
	l->eager = 0;
	l->wary = true;
	l->calm_ms = now;
	if (l->stopped)
		return;
	l->stopped = true;
	l->breaches++;
	if (l->raise < AUTO_RAISES)
		l->raise++;
	if (l->breaches > 1 && l->debt * 2 <= ages(l, DEBT_MOST))
		l->debt *= 2;
}

/* Threads waited for promoted pages. Whether that was too much: one long wait is not. */
static bool waited(struct auto_law *l, const struct auto_in *in, double minutes)
{
	l->waited_us += (double)(in->wait_us - l->last.wait_us);
	l->waited_us = fmax(0, l->waited_us - WAIT_PART * minutes * MINUTE_MS * 1000);
	if (l->waited_us <= WAIT_BURST)
		return false;
	l->waited_us = 0;
	return true;
}

/* Credit, and whether it has run out. */
static void account(struct auto_law *l, const struct auto_in *in, double minutes)
{
	double least;

	l->credit += l->budget * minutes - (double)(in->promotions - l->last.promotions);
	l->credit = fmin(l->credit, burst(l));
	if (waited(l, in, minutes) && l->credit > -l->budget * ages(l, 1))
		l->credit = -l->budget * ages(l, 1);
	if (l->credit < 0 && (!l->stopped || in->promotions != l->last.promotions))
		breach(l, in->now_ms);
	least = -l->budget * l->debt;
	if (l->credit < least)
		l->credit = least;
	/* Paid off: half an age's worth above nothing, so that one promotion is no breach again. */
	if (l->stopped && l->credit >= l->budget * fmin(1, ages(l, 0.5)))
		l->stopped = false;
}

static void calm_down(struct auto_law *l, uint64_t now)
{
	double quiet = (double)(now - l->calm_ms) / MINUTE_MS;

	if (l->stopped || quiet < l->debt)
		return;
	if (l->raise) {
		l->raise--;
		l->calm_ms = now;
	} else if (quiet > 8 * l->debt && l->debt > ages(l, DEBT_AGES)) {
		l->debt /= 2;
		l->calm_ms = now;
	}
}

static void press(struct auto_law *l, const struct auto_in *in, uint64_t ms)
{
	uint64_t ppm;

	if (in->now_ms - l->eager_ms < auto_law_cold_ms(l) || l->raise || l->stopped)
		return;
	if (!in->stall_us || in->stall_us < l->last.stall_us)
		return;
	ppm = (in->stall_us - l->last.stall_us) * 1000 / ms;
	if (ppm > PRESSURE_PPM && l->eager < AUTO_EAGER) {
		l->eager++;
		l->eager_ms = in->now_ms;
	} else if (ppm < PRESSURE_PPM / 2 && l->eager) {
		l->eager--;
		l->eager_ms = in->now_ms;
	}
}

/*
 * An average over the last pages that left, not over time: while nothing can leave, nothing is
 * learnt. Those that have just left count as gone for good; so it is over many minutes' worth,
 * and over all that left lately.
 */
static void remember(struct auto_law *l, const struct auto_in *in, uint64_t ms)
{
	double weight = TRIALS * l->budget + BURST_LEAST;

	l->lately = l->lately * exp(-(double)ms / (LATELY_AGES * l->base_ms)) +
		    (double)(in->offloaded - l->last.offloaded);

	l->chance *= exp(-(double)(in->offloaded - l->last.offloaded) / weight);
	weight += l->lately;
	l->chance = 1 - (1 - l->chance) * exp(-(double)(in->returned - l->last.returned) / weight);
	l->wary &= l->stopped || l->chance > UNWARY;
}

void auto_law_step(struct auto_law *l, const struct auto_in *in)
{
	uint64_t ms = in->now_ms - l->last.now_ms;
	double minutes = (double)ms / MINUTE_MS;

	if ((l->begun && ms < AUTO_STEP_MS) || (!l->begun && !in->working_set))
		return;
	l->budget = (double)in->working_set * l->target_ppm / 1e6 * (1u << l->eager);
	if (l->budget < 1)
		l->budget = 1;
	if (!l->begun) {
		l->begun = true;
		l->last = *in;
		l->calm_ms = l->eager_ms = in->now_ms;
		l->credit = l->plan = burst(l);
		return;
	}
	account(l, in, minutes);
	l->plan += l->budget * minutes;
	l->plan = fmin(l->plan, burst(l));
	remember(l, in, ms);
	calm_down(l, in->now_ms);
	press(l, in, ms);
	l->last = *in;
#if TMEM_CHECKS >= 1
	auto_law_verify(l);
#endif
}

void auto_law_verify(const struct auto_law *l)
{
	tmem_must(l->credit <= burst(l) + 1e-6 && l->plan <= burst(l) + 1e-6);
	tmem_must(l->credit >= -l->budget * l->debt - 1e-6);
	tmem_must(l->stopped || !l->begun || l->credit >= 0);
	tmem_must(l->raise <= AUTO_RAISES && l->eager <= AUTO_EAGER && !(l->raise && l->eager));
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static double chunk_chance(const struct auto_chunk *c, double referenced)
{
	return (c->back + E * referenced) / (c->tried + E);
}

/* It is as if nothing was known, but how often that was so. */
static void forget(struct auto_chunk *c)
{
	c->stage = AUTO_UNKNOWN;
	c->tried = c->back = 0;
}

/* Pages that came back may leave again; if they are back at once, after twice the time. */
static void cool(struct auto_chunk *c, const struct auto_view *v)
{
	c->warm = !c->any_hot ? 0 : c->warm < FAILS_MAX ? c->warm + 1 : c->warm;
	c->any_hot = false;
	memset(c->hot, 0, sizeof(c->hot));
	c->cool_ms = v->now_ms + ((uint64_t)v->cold_ms << c->warm);
}

uint32_t auto_chunk_offer(struct auto_chunk *c, const struct auto_view *v, uint32_t there,
			  double *chance)
{
	uint32_t n = there;

	if (v->now_ms >= c->cool_ms)
		cool(c, v);
	if (v->now_ms < c->due_ms || !there)
		return 0;
	if (c->stage != AUTO_UNKNOWN && chunk_chance(c, v->referenced) >= HOT)
		forget(c);
	*chance = chunk_chance(c, v->referenced);
	if (c->stage == AUTO_UNKNOWN && (*chance > NO_PLAN || c->fails)) {
		n = 1;
		*chance = c->fails ? 1 : *chance;
	} else if (c->stage == AUTO_PROBED) {
		n = there < AUTO_SAMPLE ? there : AUTO_SAMPLE;
	}
	if (n > 1 && (c->stage != AUTO_UNKNOWN || v->wary) && *chance < v->chance)
		*chance = v->chance;
	if ((*chance >= MIXED && n > 1) || c->fails)
		n = v->doubtful ? n : 0;
	if (*chance > NO_PLAN && *chance * n > v->plan)
		n = v->plan > 0 ? (uint32_t)(v->plan / *chance) : 0;
	if (*chance <= NO_PLAN)
		*chance = 0;
	return n;
}

void auto_chunk_left(struct auto_chunk *c, const struct auto_view *v, uint32_t n)
{
	if (c->tried > TRIED_MAX) {
		c->tried /= 2;
		c->back /= 2;
	}
	c->tried += (uint16_t)n;
	if (c->stage == AUTO_UNKNOWN && n == 1) {
		c->stage = AUTO_PROBED;
		c->due_ms = v->now_ms + v->cold_ms;
	} else if (c->stage == AUTO_PROBED) {
		c->stage = AUTO_SAMPLED;
		c->due_ms = v->now_ms + v->cold_ms / 4;
	} else {
		c->stage = AUTO_OPEN;
	}
}

bool auto_chunk_back(struct auto_chunk *c, uint64_t now_ms, uint32_t cold_ms, uint32_t page)
{
	bool learnt = c->stage >= AUTO_SAMPLED;

	c->hot[page / 64] |= 1ull << page % 64;
	c->any_hot = true;
	c->cool_ms = now_ms + ((uint64_t)cold_ms << c->warm);
	if (c->back < c->tried)
		c->back++;
	if (chunk_chance(c, 0) >= HOT) {
		c->due_ms = now_ms + ((uint64_t)cold_ms << c->fails);
		if (c->fails < FAILS_MAX)
			c->fails++;
	}
	return learnt;
}
