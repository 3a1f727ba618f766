/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much of the store goes when the machine is short of memory: a control
 * law without clock, files or store; time and pressure come in, frames go out.
 * See pressure.c for what it does and why it is stable.
 */
#ifndef TMEM_ZCACHE_PRESSURE_H
#define TMEM_ZCACHE_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#define ZC_PRESSURE_PPM_DEFAULT 1000u /* of time stalled: 0.1 % */
#define ZC_PRESSURE_STEP_US	1000000u

/* Zero it to begin. */
struct zc_pressure {
	uint64_t last_us, last_stall_us; /* of the last step; 0: none yet */
	uint64_t ceiling_frames;	 /* the store shall not grow past this; 0: no matter */
	uint32_t calm;			 /* steps in a row below half of the target */
	bool over;			 /* above the target, and not below half of it since */
};

struct zc_pressure_in {
	uint64_t now_us, stall_us; /* both only grow */
	uint64_t used_frames;
	uint32_t target_ppm;
};

/* One step; at most one each ZC_PRESSURE_STEP_US counts. Frames to give back now. */
uint64_t zc_pressure_step(struct zc_pressure *p, const struct zc_pressure_in *in);

#endif
