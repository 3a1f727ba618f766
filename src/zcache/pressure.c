/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The law by which the store yields memory.
 *
 * Pressure is the part of time in which some task waited for memory, measured
 * between two steps from the kernel's running total (no averages, which lag).
 * The idea of a small target that is not zero, 0.1 %, is that of TMO and
 * senpai (Weiner and others, ASPLOS 2022): no pressure at all means that
 * memory lies idle, and the first stalls come long before anybody suffers.
 *
 *   pressure        > target     over: give frames back, the more the further
 *                                above; the ceiling is what is then left
 *   target/2 .. target           hold: no shrinking, no growing
 *                  < target/2    calm: the ceiling rises a little; when it has
 *                                long been far above what is used, it goes
 *
 * Why it settles. Shrinking is a factor of what is used (1 % to 10 % a step),
 * growing is a small one (2 % a step): fast down, slow up, as in congestion
 * control. After a step down the next one waits for the full interval, in
 * which the effect shows in the total. Between half and the whole target
 * nothing moves, so a pressure that stands still there is an equilibrium, and
 * a step up that is smaller than that band does not provoke one down.
 *
 *   P1  frames out <= used / 10
 *   P2  pressure <= target  =>  frames out = 0
 *   P3  over  =>  ceiling > 0
 */
#include "zcache/pressure.h"

#include "os/check.h"

#define PERCENT_MAX   10u
#define RISE_PERCENT  2u
#define RISE_LEAST    64u
#define CALM_RELEASES 30u /* steps */

uint64_t zc_pressure_step(struct zc_pressure *p, const struct zc_pressure_in *in)
{
	uint64_t took = in->now_us - p->last_us, ppm, percent, frames = 0;

	if (p->last_us && took < ZC_PRESSURE_STEP_US)
		return 0;
	/* The first look, or one after the counter began anew: nothing to compare with. */
	if (!p->last_us || in->stall_us < p->last_stall_us) {
		p->last_us = in->now_us;
		p->last_stall_us = in->stall_us;
		return 0;
	}
	ppm = (in->stall_us - p->last_stall_us) * 1000000 / took;
	p->last_us = in->now_us;
	p->last_stall_us = in->stall_us;
	if (ppm > in->target_ppm) {
		percent = in->target_ppm ? ppm / in->target_ppm : PERCENT_MAX;
		percent = percent < PERCENT_MAX ? percent : PERCENT_MAX;
		frames = in->used_frames * percent / 100;
		p->over = true;
		p->calm = 0;
		p->ceiling_frames = in->used_frames > frames ? in->used_frames - frames : 0;
		p->ceiling_frames = p->ceiling_frames ? p->ceiling_frames : 1;
	} else if (ppm * 2 < in->target_ppm || (ppm == 0 && in->target_ppm == 0)) {
		uint64_t rise = p->ceiling_frames * RISE_PERCENT / 100;

		p->over = false;
		p->calm++;
		if (p->ceiling_frames)
			p->ceiling_frames += rise > RISE_LEAST ? rise : RISE_LEAST;
		if (p->calm >= CALM_RELEASES && p->ceiling_frames > in->used_frames / 4 * 5)
			p->ceiling_frames = 0;
	}
	tmem_assert(P1, frames <= in->used_frames / PERCENT_MAX);
	tmem_assert(P2, frames == 0 || ppm > in->target_ppm);
	tmem_assert(P3, !p->over || p->ceiling_frames);
	return frames;
}
