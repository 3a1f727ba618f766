/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine against the bare codec, on the same pages, in turn.
 *
 *   pass: for each chunk  { bare compress | put }     one after the other, the
 *         for each chunk  { bare compress | replace } order changing each round
 *         for each chunk  { bare decompress | get }, what gets take out goes in again
 *         empty the pool
 *
 * The puts of the first loop make the store grow: every frame comes from the
 * system, which takes about a microsecond for one, zeroed. That price is
 * measured beside, so that it can be told from the store's own. Replacing is
 * what a store does that has its size.
 *
 * The bare call has every advantage: it compresses into one scratch page that
 * stays in the cache, and decompresses from buffers touched before. The
 * machine's speed drifts, so what counts is the median of the rounds' ratios,
 * not the ratio of the medians. After each round of gets every page is
 * compared with what was put, outside the times.
 *
 * A get from an ephemeral pool takes the page out: it pays for that, too, and
 * now and then for a frame that goes back to the system. Each chunk is put again
 * after its round, untimed, so that all gets meet a full store.
 *
 * Density is taken in the first pass: growth of the process's resident memory
 * from before the store was made until every page is in it.
 */
#include "cli/bench_engine.h"

#include "os/clock.h"
#include "os/mem.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#define PAGE ENGINE_PAGE

int engine_open(struct engine *e, const char *codec)
{
	tmem_host_options options = TMEM_HOST_OPTIONS;
	char err[256];
	int code;

	options.codec = codec;
	options.zpool = e->zpool;
	options.store_raw = e->keeps_raw;
	options.max_mean_zsize = PAGE; /* off: all pages are to be kept */
	code = tmem_host_create(&options, &e->host, err, sizeof(err));
	if (!code)
		code = tmem_client_create(e->host, "bench", &e->client);
	if (!code) {
		e->pool = tmem_pool_create(e->client, e->ephemeral ? 0 : TMEM_POOL_PERSIST, 0);
		code = e->pool < 0 ? e->pool : 0;
	}
	if (code)
		engine_close(e);
	return code;
}

void engine_close(struct engine *e)
{
	tmem_client_destroy(e->client);
	tmem_host_destroy(e->host);
	e->client = NULL;
	e->host = NULL;
}

/* ---- jobs of a round: each member its own count of pages ------------------------------ */

static size_t bare_compress(struct engine *e, struct engine_thread *t, uint64_t i)
{
	void *cctx = codec_set_cctx(&t->set, &e->spec);
	size_t n = e->spec.codec->compress(cctx, e->pages.data + i * PAGE, PAGE, t->scratch,
					   ENGINE_MAX_ZSIZE);

	if (n == 0) { /* too poor: kept as it is, as the engine does */
		memcpy(t->scratch, e->pages.data + i * PAGE, PAGE);
		n = PAGE;
	}
	return n;
}

static void job_bare_put(void *arg, unsigned member)
{
	struct engine *e = arg;
	struct engine_thread *t = &e->thread[member];
	void *cctx = codec_set_cctx(&t->set, &e->spec);
	uint64_t lo = e->lo + member * e->count, i;

	for (i = lo; i < lo + e->count; i++)
		e->spec.codec->compress(cctx, e->pages.data + i * PAGE, PAGE, t->scratch,
					ENGINE_MAX_ZSIZE);
}

static void job_lz4_default(void *arg, unsigned member)
{
	struct engine *e = arg;
	struct engine_thread *t = &e->thread[member];
	uint64_t lo = e->lo + member * e->count, i;

	for (i = lo; i < lo + e->count; i++)
		LZ4_compress_default((const char *)e->pages.data + i * PAGE, (char *)t->scratch,
				     PAGE, ENGINE_MAX_ZSIZE);
}

static void job_put(void *arg, unsigned member)
{
	struct engine *e = arg;
	struct engine_thread *t = &e->thread[member];
	uint64_t lo = e->lo + member * e->count, i, index;
	tmem_oid oid;
	int code;

	for (i = lo; i < lo + e->count; i++) {
		engine_handle(i, &oid, &index);
		code = tmem_put(e->client, e->pool, &oid, index, e->pages.data + i * PAGE);
		if (code && !t->code)
			t->code = code;
	}
}

static void job_bare_get(void *arg, unsigned member)
{
	struct engine *e = arg;
	struct engine_thread *t = &e->thread[member];
	void *dctx = codec_set_dctx(&t->set, e->spec.codec);
	uint64_t lo = e->lo + member * e->count, i;
	int code;

	for (i = lo; i < lo + e->count; i++) {
		const uint8_t *from = e->packed + e->packed_at[i];
		size_t n = e->packed_at[i + 1] - e->packed_at[i];

		if (n == PAGE) {
			memcpy(t->to + (i - lo) * PAGE, from, PAGE);
			continue;
		}
		code = e->spec.codec->decompress(dctx, from, n, t->to + (i - lo) * PAGE, PAGE);
		if (code && !t->code)
			t->code = code;
	}
}

static void job_get(void *arg, unsigned member)
{
	struct engine *e = arg;
	struct engine_thread *t = &e->thread[member];
	uint64_t lo = e->lo + member * e->count, i, index;
	tmem_oid oid;
	int code;

	for (i = lo; i < lo + e->count; i++) {
		engine_handle(i, &oid, &index);
		code = tmem_get(e->client, e->pool, &oid, index, t->to + (i - lo) * PAGE);
		if (code && !t->code)
			t->code = code < 0 ? code : -EIO; /* a miss here is a page lost */
	}
}

/* What the members brought back is what was put, and nothing failed. */
static int check_round(struct engine *e, unsigned active, bool compare)
{
	unsigned m;

	for (m = 0; m < active; m++) {
		struct engine_thread *t = &e->thread[m];

		if (t->code)
			return t->code;
		if (compare &&
		    memcmp(t->to, e->pages.data + (e->lo + m * e->count) * PAGE, e->count * PAGE))
			return -EBADMSG;
	}
	return 0;
}

/* ---- one thread: put and get over the bare calls ------------------------------------------ */

/*
 * CPU time of this thread, the kernel's work for it included: wall time would
 * count whoever else the machine runs meanwhile, and one thread waits for nobody.
 */
static uint64_t run_one(struct engine *e, team_job *job)
{
	uint64_t start = os_clock_thread_cpu_ns();

	job(e, 0);
	return os_clock_thread_cpu_ns() - start;
}

struct samples {
	double *raw, *engine, *ratio;
	unsigned n;
};

/* One round: the bare job and the engine's, in this order or the other. */
static int pair_round(struct engine *e, team_job *bare, team_job *engine, bool compare,
		      bool bare_first, struct samples *s)
{
	uint64_t bare_ns = 0, engine_ns = 0;
	int k, code = 0;

	for (k = 0; k < 2 && !code; k++) {
		if ((k == 0) == bare_first)
			bare_ns = run_one(e, bare);
		else
			engine_ns = run_one(e, engine);
		code = check_round(e, 1, compare);
	}
	s->raw[s->n] = (double)bare_ns / (double)e->count;
	s->engine[s->n] = (double)engine_ns / (double)e->count;
	s->ratio[s->n] = (double)engine_ns / (double)bare_ns;
	s->n++;
	return code;
}

static struct engine_pair pair_of(struct samples *s)
{
	return (struct engine_pair){.raw_ns = cli_median(s->raw, s->n),
				    .engine_ns = cli_median(s->engine, s->n),
				    .ratio = cli_median(s->ratio, s->n),
				    .rounds = s->n};
}

static int take_density(struct engine *e, uint64_t resident_before)
{
	tmem_stats st = {.size = sizeof(st)};
	uint64_t now = os_resident_bytes();
	int code = tmem_host_stats(e->host, &st);

	e->r.compressed_bytes = st.compressed_bytes;
	e->r.store_bytes = st.store_bytes;
	e->r.meta_bytes = st.meta_bytes;
	e->r.frame_bytes = st.frame_bytes;
	e->r.head_bytes = st.zpage_bytes - st.compressed_bytes;
	e->r.poor = st.puts_raw;
	e->r.growth_bytes = now > resident_before ? now - resident_before : 0;
	return !code && st.pages != e->pages.count ? -EIO : code;
}

/* Every page through the bare codec once, kept: what gets are compared with. Nothing is timed. */
static int pack(struct engine *e)
{
	uint64_t i, at = 0;

	for (i = 0; i < e->pages.count; i++) {
		size_t n = bare_compress(e, &e->thread[0], i);

		memcpy(e->packed + at, e->thread[0].scratch, n);
		e->packed_at[i] = at;
		at += n;
	}
	e->packed_at[i] = at;
	return codec_set_dctx(&e->thread[0].set, e->spec.codec) ? 0 : -ENOMEM;
}

/* What does not grow with the pages: the store, with the first page in it and this thread's state.
 */
static int take_fixed(struct engine *e)
{
	tmem_stats st = {.size = sizeof(st)};
	uint64_t count = e->count;
	int code;

	e->lo = 0;
	e->count = 1;
	job_put(e, 0);
	e->count = count;
	code = tmem_host_stats(e->host, &st);
	e->r.fixed_bytes = st.meta_bytes;
	return code ? code : e->thread[0].code;
}

/* The chunk that was got is in the store again. It was out if, and only if, the pool is ephemeral.
 */
static int refill(struct engine *e)
{
	int64_t all = (int64_t)e->pages.count, in = tmem_pool_pages(e->client, e->pool);

	if (in != (e->ephemeral ? all - (int64_t)e->count : all))
		return -EIO;
	if (e->ephemeral)
		job_put(e, 0);
	return e->thread[0].code;
}

/* The system's price of a frame, there and back, several at a time as the store asks for them. */
static int take_frame_price(struct engine *e)
{
	enum { FRAMES = 2048, CALL = 8, TRIES = 5 };
	double ns[TRIES], back[TRIES];
	int code = 0;

	for (unsigned i = 0; i < TRIES && !code; i++) {
		char *base = os_reserve(FRAMES * OS_FRAME_SIZE);
		uint64_t start = os_clock_thread_cpu_ns();

		code = base ? 0 : -ENOMEM;
		for (unsigned k = 0; k < FRAMES && !code; k += CALL)
			code = os_frames_populate(base + k * OS_FRAME_SIZE, CALL * OS_FRAME_SIZE);
		ns[i] = (double)(os_clock_thread_cpu_ns() - start) / FRAMES;
		start = os_clock_thread_cpu_ns();
		for (unsigned k = 0; k < FRAMES && !code; k += CALL)
			os_frames_return(base + k * OS_FRAME_SIZE, CALL * OS_FRAME_SIZE);
		back[i] = (double)(os_clock_thread_cpu_ns() - start) / FRAMES;
		if (base)
			os_unreserve(base, FRAMES * OS_FRAME_SIZE);
	}
	if (!code) {
		e->r.frame_ns = cli_median(ns, TRIES);
		e->r.frame_back_ns = cli_median(back, TRIES);
	}
	return code;
}

static int run_passes(struct engine *e, unsigned passes, struct samples *put,
		      struct samples *replace, struct samples *get, struct samples *other)
{
	uint64_t n = e->pages.count, before = os_resident_bytes(), chunk = e->count;
	unsigned pass;
	int code = engine_open(e, e->spec_text);

	if (!code)
		code = take_fixed(e);

	for (pass = 0; pass < passes && !code; pass++) {
		for (e->lo = 0; e->lo + chunk <= n && !code; e->lo += chunk) {
			code = pair_round(e, job_bare_put, job_put, false, put->n % 2, put);
			if (!strcmp(e->spec.codec->name, "lz4") && !code)
				other->raw[other->n++] =
					(double)run_one(e, job_lz4_default) / (double)chunk;
		}
		/* What is left of the last chunk goes in untimed. */
		e->count = n - e->lo;
		if (!code && e->count)
			job_put(e, 0);
		e->count = chunk;
		if (!code && pass == 0)
			code = take_density(e, before);
		for (e->lo = 0; e->lo + chunk <= n && !code; e->lo += chunk)
			code = pair_round(e, job_bare_put, job_put, false, replace->n % 2, replace);
		for (e->lo = 0; e->lo + chunk <= n && !code; e->lo += chunk) {
			code = pair_round(e, job_bare_get, job_get, true, get->n % 2, get);
			code = code ? code : refill(e);
		}
		if (!code && tmem_pool_flush(e->client, e->pool) != (int64_t)n)
			code = -EIO;
	}
	engine_close(e);
	return code;
}

int engine_measure_pages(struct engine *e)
{
	uint64_t n = e->pages.count;
	uint64_t chunk = n / 16 < ENGINE_CHUNK ? n / 16 : ENGINE_CHUNK;
	unsigned a_pass, passes, k;
	struct samples s[4] = {0};
	double *memory;
	int code;

	chunk = chunk ? chunk : 1;
	a_pass = (unsigned)(n / chunk);
	passes = (e->rounds + a_pass - 1) / a_pass;
	memory = os_zalloc(12 * sizeof(double) * a_pass * passes);
	if (!memory)
		return -ENOMEM;
	for (k = 0; k < 4; k++) {
		s[k].raw = memory + 3 * k * a_pass * passes;
		s[k].engine = s[k].raw + a_pass * passes;
		s[k].ratio = s[k].engine + a_pass * passes;
	}
	/* Touched now, so that the pages of these tables are not taken for the store's growth. */
	memset(memory, 1, 12 * sizeof(double) * a_pass * passes);
	e->count = chunk;
	code = pack(e);
	if (!code)
		code = run_passes(e, passes, &s[0], &s[1], &s[2], &s[3]);
	if (!code)
		code = take_frame_price(e);
	if (!code) {
		e->r.put = pair_of(&s[0]);
		e->r.replace = pair_of(&s[1]);
		e->r.get = pair_of(&s[2]);
		e->r.lz4_default_ns = s[3].n ? cli_median(s[3].raw, s[3].n) : 0;
	}
	os_free(memory);
	return code;
}

/* ---- several threads over one -----------------------------------------------------------------
 */

/* Pages a nanosecond on all members over that on one, for one job; both on fresh pages. */
static int scaling_round(struct engine *e, team_job *job, bool compare, double *out)
{
	uint64_t start = e->lo, one, all;
	int code;

	one = team_run(&e->team, 1, job, e);
	code = check_round(e, 1, compare);
	if (code)
		return code;
	e->lo += e->count;
	all = team_run(&e->team, e->threads, job, e);
	code = check_round(e, e->threads, compare);
	e->lo = start;
	*out = (double)e->threads * (double)one / (double)all;
	return code;
}

/*
 * Scaling by put, by get, and by the bare codec, which shows what the machine
 * itself has to give: two threads of one core are not two cores.
 */
int engine_measure_threads(struct engine *e)
{
	enum { ROUNDS = 21 };
	double put[ROUNDS], get[ROUNDS], both[ROUNDS], bare[ROUNDS];
	uint64_t need = e->threads + 1, n = e->pages.count;
	unsigned r;
	int code;

	e->count = n / need < ENGINE_CHUNK ? n / need : ENGINE_CHUNK;
	if (e->threads < 2 || e->count == 0)
		return 0;
	code = engine_open(e, e->spec_text);
	e->lo = 0;
	for (r = 0; r < ROUNDS && !code; r++) {
		if (e->lo + need * e->count > n) { /* start over: handles must be fresh ones */
			e->lo = 0;
			tmem_pool_flush(e->client, e->pool);
		}
		code = scaling_round(e, job_bare_put, false, &bare[r]);
		if (!code)
			code = scaling_round(e, job_put, false, &put[r]);
		if (!code)
			code = scaling_round(e, job_get, true, &get[r]);
		/* A put and a get one after the other; puts weigh more because they take longer. */
		both[r] = put[r] < get[r] ? put[r] : get[r];
		e->lo += need * e->count;
	}
	engine_close(e);
	if (!code) {
		e->r.put_scaling = cli_median(put, ROUNDS);
		e->r.get_scaling = cli_median(get, ROUNDS);
		e->r.raw_scaling = cli_median(bare, ROUNDS);
		e->r.scaling = cli_median(both, ROUNDS);
	}
	return code;
}
