/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Maintenance: what a host does beside its operations, in steps that its owner
 * calls (tmem_host_maintain()) or a thread of its own does.
 *
 *   soft target      shrink down to it
 *   pressure         look at it, shrink, set the ceiling (pressure.c)
 *   idle pages       evict what was not touched for idle_ms
 *   clones           adopt what can be moved again (share.c)
 *
 * One step at a time: a second caller goes away at once. Each step does a bounded
 * piece of each, so that it ends soon after the host wants to.
 */
#include "os/clock.h"
#include "os/pressure.h"
#include "zcache/zcache.h"

#define STEP_FRAMES 16384u /* given back for one reason in one step, at most */
#define PERIOD_NS   1000000000ull

static void yield_to_pressure(struct tmem_host *h)
{
	struct zc_maintain *m = &h->maintain;
	struct zc_pressure_in in = {
		.now_us = os_clock_ns() / 1000 + 1,
		.used_frames = frames_used(&h->frames) / OS_FRAME_SIZE,
		.target_ppm = atomic_load_explicit(&m->pressure_ppm, memory_order_relaxed)};
	uint64_t frames, got, ceiling = m->law.ceiling_frames;

	/* Looked for when it is first wanted: a host without maintenance opens no file. */
	if (!m->looked && os_pressure_find(m->path, sizeof(m->path)))
		m->path[0] = '\0';
	m->looked = true;
	if (in.target_ppm == TMEM_PRESSURE_OFF || !m->path[0] ||
	    os_pressure_read(m->path, &in.stall_us))
		return;
	frames = zc_pressure_step(&m->law, &in);
	atomic_store_explicit(&h->pressed, m->law.over, memory_order_relaxed);
	if (m->law.ceiling_frames != ceiling) {
		atomic_store(&h->ceiling_bytes, m->law.ceiling_frames * OS_FRAME_SIZE);
		zc_marks_update(h);
	}
	if (frames)
		(void)zc_shrink(h, frames < STEP_FRAMES ? frames : STEP_FRAMES, ZC_WHY_PRESSURE,
				&got);
}

static void keep_target(struct tmem_host *h)
{
	uint64_t soft = zc_soft_bytes(h), used = frames_used(&h->frames), frames, got;

	if (!soft || used <= soft)
		return;
	frames = (used - soft) / OS_FRAME_SIZE + 1;
	(void)zc_shrink(h, frames < STEP_FRAMES ? frames : STEP_FRAMES, ZC_WHY_TARGET, &got);
}

void tmem_host_maintain(tmem_host *h)
{
	uint64_t idle_ms = atomic_load_explicit(&h->maintain.idle_ms, memory_order_relaxed);

	if (atomic_exchange(&h->maintain.busy, true))
		return;
	yield_to_pressure(h);
	keep_target(h);
	if (idle_ms)
		(void)tmem_host_age(h, idle_ms);
	zc_adopt(h);
	atomic_store(&h->maintain.busy, false);
}

static void *run(void *arg)
{
	struct tmem_host *h = arg;
	struct zc_maintain *m = &h->maintain;

	os_mutex_lock(&m->lock);
	while (!m->stop) {
		if (os_cond_timedwait(&m->wake, &m->lock, PERIOD_NS))
			continue;
		os_mutex_unlock(&m->lock);
		tmem_host_maintain(h);
		os_mutex_lock(&m->lock);
	}
	os_mutex_unlock(&m->lock);
	return NULL;
}

int zc_maintain_start(struct tmem_host *h, const tmem_host_options *o)
{
	struct zc_maintain *m = &h->maintain;
	int rc = 0;

	os_mutex_init(&m->lock, OS_RANK_LEAF, "maintenance");
	os_cond_init(&m->wake);
	atomic_store(&m->idle_ms, o->idle_ms);
	atomic_store(&m->pressure_ppm, o->pressure_ppm ? o->pressure_ppm : ZC_PRESSURE_PPM_DEFAULT);
	if (o->maintain) {
		rc = os_thread_create(&m->thread, "tmem-maintain", run, h);
		m->started = rc == 0;
	}
	if (rc)
		zc_maintain_stop(h);
	return rc;
}

void zc_maintain_stop(struct tmem_host *h)
{
	struct zc_maintain *m = &h->maintain;

	if (m->started) {
		os_mutex_lock(&m->lock);
		m->stop = true;
		os_cond_broadcast(&m->wake);
		os_mutex_unlock(&m->lock);
		os_thread_join(m->thread);
	}
	os_cond_destroy(&m->wake);
	os_mutex_destroy(&m->lock);
}
