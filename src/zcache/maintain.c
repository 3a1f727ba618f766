/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Maintenance: what a host does beside its operations, in steps that its owner
 * calls (tmem_host_maintain()) or a thread of its own does.
 *
 *   soft target      shrink down to it
 *   pressure         look at it, shrink, set the ceiling (pressure.c)
 *   idle pages       evict what was not touched for idle_ms
 *   clones           adopt what can be moved again (share.c)
 *   recompression    of what is idle, where a rate is set (recompress.c)
 *
 * One step at a time: a second caller goes away at once. Each step does a bounded
 * piece of each, so that it ends soon after the host wants to: recompression, which
 * has most to do, uses a tenth of a second at most, and the thread takes steps more often
 * while there is a rate, so that this bounds a step and not what a second brings.
 *
 * Why recompression is off unless asked for. It is not free: with zstd:3 over lz4 (`tmem
 * bench codecs`, memory of a Python program) a zpage takes 13 us of processor time once,
 * and a get of it three times as long from then on; in return its frames become 43 %
 * fewer. Whoever has idle processors and cold pages asks for it.
 *
 * All values are words that a step reads when it begins; whoever changes one
 * (tunables.c) needs no lock. With the pressure's target off, what the law said before
 * is taken back: nobody would ever say otherwise.
 *
 *   K1  target off, step ended  =>  ceiling_bytes = 0 and not pressed
 */
#include "os/clock.h"
#include "os/pressure.h"
#include "zcache/zcache.h"

#define STEP_FRAMES	 16384u /* given back for one reason in one step, at most */
#define PERIOD_NS	 1000000000ull
#define PERIOD_BUSY_NS	 100000000ull /* while there is a rate */
#define HOLD_POLL_NS	 200000ull
#define STEP_CPU_PERCENT 100u /* of a processor: recompress.c saves up a tenth of a second */

#define RECOMPRESS_IDLE_MS 120000u
#define RECOMPRESS_CODEC   "zstd:3"

/* What the law said does not hold any more. */
static void forget_pressure(struct tmem_host *h)
{
	struct zc_maintain *m = &h->maintain;

	if (!m->law.last_us)
		return;
	m->law = (struct zc_pressure){0};
	atomic_store_explicit(&h->pressed, false, memory_order_relaxed);
	atomic_store(&h->ceiling_bytes, 0);
	zc_marks_update(h);
}

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
	if (in.target_ppm == TMEM_PRESSURE_OFF)
		forget_pressure(h);
	tmem_assert(K1, in.target_ppm != TMEM_PRESSURE_OFF ||
				(!atomic_load(&h->ceiling_bytes) && !atomic_load(&h->pressed)));
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

/* Whatever comes of it, pages read as before; what was left goes on next time. */
static void recompress(struct tmem_host *h)
{
	struct zc_maintain *m = &h->maintain;
	struct codec_spec spec = zc_codec_unpack(atomic_load(&m->recompress_codec));
	tmem_recompress o = TMEM_RECOMPRESS;
	char codec[ZC_CODEC_TEXT];

	o.pages_per_s = atomic_load_explicit(&m->recompress_rate, memory_order_relaxed);
	if (!o.pages_per_s)
		return;
	zc_codec_text(&spec, codec, sizeof(codec));
	o.codec = codec;
	o.idle_ms = atomic_load_explicit(&m->recompress_idle_ms, memory_order_relaxed);
	o.cluster = atomic_load_explicit(&m->recompress_cluster, memory_order_relaxed);
	o.cpu_percent = STEP_CPU_PERCENT;
	(void)tmem_host_recompress(h, &o, NULL);
}

static bool take_turn(struct zc_maintain *m)
{
	return !atomic_exchange(&m->busy, true);
}

static void end_turn(struct zc_maintain *m)
{
	atomic_store(&m->busy, false);
}

void zc_maintain_hold(struct tmem_host *h)
{
	while (!take_turn(&h->maintain))
		os_sleep_ns(HOLD_POLL_NS);
}

void zc_maintain_release(struct tmem_host *h)
{
	end_turn(&h->maintain);
}

void tmem_host_maintain(tmem_host *h)
{
	uint64_t idle_ms = atomic_load_explicit(&h->maintain.idle_ms, memory_order_relaxed);

	if (!take_turn(&h->maintain))
		return;
	yield_to_pressure(h);
	keep_target(h);
	if (idle_ms)
		(void)tmem_host_age(h, idle_ms);
	zc_adopt(h);
	recompress(h);
	end_turn(&h->maintain);
}

static uint64_t period_ns(const struct zc_maintain *m)
{
	return atomic_load_explicit(&m->recompress_rate, memory_order_relaxed) ? PERIOD_BUSY_NS
									       : PERIOD_NS;
}

static void *run(void *arg)
{
	struct tmem_host *h = arg;
	struct zc_maintain *m = &h->maintain;

	os_mutex_lock(&m->lock);
	while (!m->stop) {
		if (os_cond_timedwait(&m->wake, &m->lock, period_ns(m)))
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
	struct codec_spec spec;
	char err[160];
	int rc = codec_parse(RECOMPRESS_CODEC, &spec, err, sizeof(err));

	tmem_must(rc == 0);
	os_mutex_init(&m->lock, OS_RANK_LEAF, "maintenance");
	os_cond_init(&m->wake);
	atomic_store(&m->idle_ms, o->idle_ms);
	atomic_store(&m->recompress_idle_ms, RECOMPRESS_IDLE_MS);
	atomic_store(&m->recompress_codec, zc_codec_pack(&spec));
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
