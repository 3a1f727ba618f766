/* SPDX-License-Identifier: BSD-2-Clause */
/* tmem bench engine: sets up, has the parts measure, prints. See bench_engine_pages.c. */
#include "cli/bench_engine.h"

#include "cli/bench_pages.h"
#include "os/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COMMAND	    "bench engine"
#define PAGE	    ENGINE_PAGE
#define PAGES_LEAST 64

/* ---- setting up -------------------------------------------------------------------------- */

/* Whether there is such an allocator, and whether it has room for pages that do not compress. */
static int check_zpool(struct engine *e, char *err, size_t errlen)
{
	tmem_host_options options = TMEM_HOST_OPTIONS;
	tmem_host *host;
	int code;

	options.zpool = e->zpool;
	code = tmem_host_create(&options, &host, err, errlen);
	if (code)
		return code;
	tmem_host_destroy(host);
	options.store_raw = 1;
	e->keeps_raw = tmem_host_create(&options, &host, NULL, 0) == 0;
	tmem_host_destroy(host);
	return 0;
}

/* Same-filled pages would flatter the engine, which never compresses them: they are measured apart.
 */
static void drop_same_filled(struct engine *e)
{
	struct pages *p = &e->pages;
	uint64_t i, n = 0, word;

	for (i = 0; i < p->count; i++) {
		if (codec_same_filled(p->data + i * PAGE, PAGE, &word)) {
			e->r.same_filled++;
			continue;
		}
		if (n != i)
			memmove(p->data + n * PAGE, p->data + i * PAGE, PAGE);
		p->number[n] = n;
		n++;
	}
	p->count = n;
}

/* Where the allocator has no room for what does not compress, such pages would be refused. */
static void drop_poor(struct engine *e)
{
	struct engine_thread *t = &e->thread[0];
	void *cctx = codec_set_cctx(&t->set, &e->spec);
	struct pages *p = &e->pages;
	uint64_t i, n = 0;

	for (i = 0; i < p->count; i++) {
		if (!e->spec.codec->compress(cctx, p->data + i * PAGE, PAGE, t->scratch,
					     ENGINE_MAX_ZSIZE))
			continue;
		if (n != i)
			memmove(p->data + n * PAGE, p->data + i * PAGE, PAGE);
		p->number[n++] = p->number[i];
	}
	e->r.poor_left_out = p->count - n;
	p->count = n;
}

static uint64_t frames_of(uint64_t bytes)
{
	return (bytes + PAGE - 1) / PAGE * PAGE;
}

static int set_up(struct engine *e)
{
	unsigned m;
	int code = team_start(&e->team, e->threads);

	if (code)
		return code;
	for (m = 0; m < e->threads; m++) {
		struct engine_thread *t = &e->thread[m];

		t->scratch = os_zalloc_aligned(2 * PAGE);
		t->to = os_reserve(ENGINE_CHUNK * PAGE);
		if (!t->scratch || !t->to || !codec_set_cctx(&t->set, &e->spec) ||
		    !codec_set_dctx(&t->set, e->spec.codec))
			return -ENOMEM;
		memset(t->to, 1, ENGINE_CHUNK * PAGE);
		memset(t->scratch, 1, 2 * PAGE);
	}
	if (!e->keeps_raw)
		drop_poor(e);
	if (e->pages.count < PAGES_LEAST)
		return -ENODATA;
	e->packed = os_reserve(e->pages.count * PAGE);
	e->packed_at = os_reserve(frames_of((e->pages.count + 1) * sizeof(uint64_t)));
	return e->packed && e->packed_at ? 0 : -ENOMEM;
}

static void tear_down(struct engine *e)
{
	unsigned m;

	if (e->team.members)
		team_stop(&e->team);
	for (m = 0; m < e->threads; m++) {
		os_free(e->thread[m].scratch);
		if (e->thread[m].to)
			os_unreserve(e->thread[m].to, ENGINE_CHUNK * PAGE);
		codec_set_clear(&e->thread[m].set);
	}
	if (e->packed)
		os_unreserve(e->packed, e->pages.count * PAGE);
	if (e->packed_at)
		os_unreserve(e->packed_at, frames_of((e->pages.count + 1) * sizeof(uint64_t)));
	pages_free(&e->pages);
}

/* ---- printing ------------------------------------------------------------------------------ */

static const char *kind(const struct engine *e)
{
	return e->ephemeral ? "ephemeral" : "persistent";
}

static double over(double a, double b)
{
	return b > 0 ? a / b : 0;
}

static double density(const struct engine *e)
{
	return over((double)e->r.growth_bytes, (double)e->r.compressed_bytes);
}

static double meta_a_page(const struct engine *e)
{
	return over((double)e->r.meta_bytes, (double)e->pages.count);
}

static double frames_a_page(const struct engine *e)
{
	return over((double)e->r.frame_bytes / PAGE, (double)e->pages.count);
}

/* Of a put into a growing store, what the system takes for the frames. */
static double put_frames_ns(const struct engine *e)
{
	return frames_a_page(e) * e->r.frame_ns;
}

/* Of a get that takes the page out, the same. */
static double get_frames_ns(const struct engine *e)
{
	return e->ephemeral ? frames_a_page(e) * e->r.frame_back_ns : 0;
}

/* Where each byte of the store goes. */
static void print_bytes(const struct engine *e)
{
	const struct engine_result *r = &e->r;
	double c = (double)r->compressed_bytes / 100, heads = (double)r->head_bytes;
	double moving = (double)(r->meta_bytes - r->fixed_bytes);

	printf("          of the compressed bytes: %.2f %% zpage headers (%.0f bytes each), %.2f "
	       "%% "
	       "rounding, state and slack of frames,\n"
	       "          %.2f %% index and descriptors (%.1f bytes a page), %.2f %% fixed (%.0f "
	       "KiB)\n",
	       heads / c, over(heads, (double)e->pages.count),
	       ((double)r->frame_bytes - (double)r->compressed_bytes - heads) / c, moving / c,
	       over(moving, (double)e->pages.count), (double)r->fixed_bytes / c,
	       (double)r->fixed_bytes / 1024);
}

static void print_churn(const struct engine_churn *c)
{
	printf("churn     frames over compressed %.3f (%.3f if never compacted); compaction takes "
	       "%.2f %% of a processor,\n"
	       "          %.0f us a call at most, %.0f us when there is nothing to gain\n",
	       c->frames_over_compressed, c->frames_without, 100 * c->cpu_share, c->longest_us,
	       c->idle_us);
}

static void print_table(const struct engine *e, bool exact)
{
	const struct engine_result *r = &e->r;
	char a[CLI_TEXT_MAX], b[CLI_TEXT_MAX], c[CLI_TEXT_MAX], d[CLI_TEXT_MAX];

	printf("pages     %" PRIu64 " (%s)\n", e->pages.count, e->pages.name);
	printf("          %" PRIu64 " same-filled ones left out, %" PRIu64
	       " too poor to compress%s\n",
	       r->same_filled, r->poor + r->poor_left_out,
	       r->poor_left_out ? " (left out, too)" : "");
	printf("store     %s, a pool that is %s\n", e->zpool, kind(e));
	printf("codec     %s, one thread; medians of %u rounds\n\n", e->spec_text, r->put.rounds);
	printf("%-22s %10s %10s %8s\n", "ns a page", "bare", "engine", "ratio");
	printf("%-22s %10.0f %10.0f %8.3f\n", "put", r->put.raw_ns, r->put.engine_ns, r->put.ratio);
	printf("%-22s %21.0f %8.3f  by the system, for frames: not the store's\n", "  of it",
	       put_frames_ns(e), over(put_frames_ns(e), r->put.raw_ns));
	printf("%-22s %10.0f %10.0f %8.3f\n", "replace", r->replace.raw_ns, r->replace.engine_ns,
	       r->replace.ratio);
	printf("%-22s %10.0f %10.0f %8.3f\n", "get", r->get.raw_ns, r->get.engine_ns, r->get.ratio);
	if (e->ephemeral)
		printf("%-22s %21.0f %8.3f  by the system, for frames that go back\n", "  of it",
		       get_frames_ns(e), over(get_frames_ns(e), r->get.raw_ns));
	printf("%-22s %10.0f %10.0f\n", "put, same-filled", r->same_check_ns, r->same_put_ns);
	printf("%-22s %10.0f %10.0f\n", "get, same-filled", r->same_fill_ns, r->same_get_ns);
	if (r->lz4_default_ns > 0)
		printf("(bare put by LZ4_compress_default: %.0f ns)\n", r->lz4_default_ns);
	printf("\noriginal  %s\ncompressed %s\nstore     %s, of it %.1f bytes a page of metadata\n"
	       "resident  %s more: %.4f of the compressed bytes\n",
	       cli_bytes(a, e->pages.count * PAGE, exact), cli_bytes(b, r->compressed_bytes, exact),
	       cli_bytes(c, r->store_bytes, exact), meta_a_page(e),
	       cli_bytes(d, r->growth_bytes, exact), density(e));
	print_bytes(e);
	if (e->keeps_raw)
		print_churn(&r->churn);
	if (e->threads > 1)
		printf("threads   %u over 1: put %.2f, get %.2f (the bare codec: %.2f)\n",
		       e->threads, r->put_scaling, r->get_scaling, r->raw_scaling);
	if (e->zram && r->zram_why[0])
		printf("zram      not measured: %s\n", r->zram_why);
	else if (e->zram)
		printf("zram      %s for the same pages, all in; the store takes %.3f of it\n",
		       cli_bytes(a, r->zram_bytes, exact),
		       over((double)r->growth_bytes, (double)r->zram_bytes));
	if (e->scale)
		printf("scale     4194304 pages over 4096, no codec: %.2f at random (%.0f over "
		       "%.0f ns), "
		       "%.2f in order\n",
		       r->scale_4m, r->scale_large_ns, r->scale_small_ns, r->scale_4m_sequential);
	printf("checked   every page read back and compared\n");
}

static void print_json_churn(json_t *o, const struct engine_churn *c)
{
	cli_json_u64(o, "churn_operations", c->operations);
	cli_json_u64(o, "churn_moved_zpages", c->moves);
	cli_json_u64(o, "churn_returned_bytes", c->returned_bytes);
	cli_json_u64(o, "churn_compactions", c->calls);
	cli_json_u64(o, "churn_empty_compactions", c->empty_calls);
	cli_json_real(o, "churn_frames_over_compressed", c->frames_over_compressed);
	cli_json_real(o, "churn_frames_over_compressed_uncompacted", c->frames_without);
	cli_json_real(o, "churn_compaction_cpu_share", c->cpu_share);
	cli_json_real(o, "churn_longest_us", c->longest_us);
	cli_json_real(o, "churn_idle_call_us", c->idle_us);
}

static int print_json(const struct engine *e)
{
	const struct engine_result *r = &e->r;
	json_t *o = cli_json(COMMAND);

	cli_json_text(o, "codec", e->spec_text);
	cli_json_text(o, "kind", kind(e));
	cli_json_text(o, "zpool", e->zpool);
	cli_json_text(o, "source", e->pages.name);
	cli_json_u64(o, "threads", e->threads);
	cli_json_u64(o, "rounds", r->put.rounds);
	cli_json_u64(o, "pages", e->pages.count);
	cli_json_u64(o, "same_filled_left_out", r->same_filled);
	cli_json_u64(o, "raw_pages", r->poor);
	cli_json_u64(o, "poor_left_out", r->poor_left_out);
	cli_json_real(o, "raw_compress_ns", r->put.raw_ns);
	cli_json_real(o, "raw_decompress_ns", r->get.raw_ns);
	if (r->lz4_default_ns > 0)
		cli_json_real(o, "lz4_compress_default_ns", r->lz4_default_ns);
	cli_json_real(o, "put_ns", r->put.engine_ns);
	cli_json_real(o, "get_ns", r->get.engine_ns);
	cli_json_real(o, "put_over_raw", r->put.ratio);
	cli_json_real(o, "put_frames_ns", put_frames_ns(e));
	cli_json_real(o, "frame_ns", r->frame_ns);
	cli_json_real(o, "get_frames_ns", get_frames_ns(e));
	cli_json_real(o, "frame_back_ns", r->frame_back_ns);
	cli_json_real(o, "replace_raw_ns", r->replace.raw_ns);
	cli_json_real(o, "replace_ns", r->replace.engine_ns);
	cli_json_real(o, "replace_over_raw", r->replace.ratio);
	cli_json_real(o, "get_over_raw", r->get.ratio);
	cli_json_real(o, "same_filled_put_ns", r->same_put_ns);
	cli_json_real(o, "same_filled_get_ns", r->same_get_ns);
	cli_json_real(o, "same_filled_check_ns", r->same_check_ns);
	cli_json_real(o, "same_filled_fill_ns", r->same_fill_ns);
	cli_json_u64(o, "original_bytes", e->pages.count * PAGE);
	cli_json_u64(o, "compressed_bytes", r->compressed_bytes);
	cli_json_u64(o, "store_bytes", r->store_bytes);
	cli_json_u64(o, "resident_growth_bytes", r->growth_bytes);
	cli_json_real(o, "density", density(e));
	cli_json_u64(o, "frame_bytes", r->frame_bytes);
	cli_json_u64(o, "header_bytes", r->head_bytes);
	cli_json_u64(o, "meta_bytes", r->meta_bytes);
	cli_json_u64(o, "fixed_bytes", r->fixed_bytes);
	cli_json_real(o, "density_without_fixed",
		      over((double)r->growth_bytes - (double)r->fixed_bytes,
			   (double)r->compressed_bytes));
	cli_json_real(o, "metadata_bytes_per_page", meta_a_page(e));
	if (e->keeps_raw)
		print_json_churn(o, &r->churn);
	if (e->threads > 1) {
		cli_json_real(o, "scaling", r->scaling);
		cli_json_real(o, "put_scaling", r->put_scaling);
		cli_json_real(o, "get_scaling", r->get_scaling);
		cli_json_real(o, "raw_scaling", r->raw_scaling);
	} else {
		json_object_set_new(o, "scaling", json_null());
	}
	if (e->zram && r->zram_why[0]) {
		cli_json_text(o, "zram_not_measured", r->zram_why);
	} else if (e->zram) {
		cli_json_u64(o, "zram_bytes", r->zram_bytes);
		cli_json_u64(o, "zram_compressed_bytes", r->zram_compressed);
		cli_json_real(o, "resident_over_zram",
			      over((double)r->growth_bytes, (double)r->zram_bytes));
	}
	if (e->scale) {
		cli_json_real(o, "scale_4m", r->scale_4m);
		cli_json_real(o, "scale_4m_sequential", r->scale_4m_sequential);
		cli_json_real(o, "scale_4096_ns", r->scale_small_ns);
		cli_json_real(o, "scale_4m_ns", r->scale_large_ns);
	}
	return cli_json_print(o);
}

/* ---- the command --------------------------------------------------------------------------- */

static int measure(struct engine *e)
{
	const struct {
		const char *name;
		int (*run)(struct engine *e);
		bool wanted;
	} parts[] = {
		{"put and get", engine_measure_pages, true},
		{"threads", engine_measure_threads, true},
		/* What has no room for a page as it is has none for clusters. */
		{"churn", engine_measure_churn, e->keeps_raw},
		{"same-filled", engine_measure_same_filled, true},
		{"zram", engine_measure_zram, e->zram},
		{"4 million pages", engine_measure_scale, e->scale},
	};
	size_t n = sizeof(parts) / sizeof(parts[0]), k;
	struct progress bar;
	int code = set_up(e);

	if (code == -ENODATA)
		return cli_fail(COMMAND,
				"'%s' has only %" PRIu64 " pages that %s shrinks enough for %s; "
				"%d is the least",
				e->pages.name, e->pages.count, e->spec_text, e->zpool, PAGES_LEAST);
	if (code)
		return cli_fail(COMMAND, "cannot start: %s", strerror(-code));
	progress_start(&bar, parts[0].name, n);
	for (k = 0; k < n && !code; k++) {
		progress_label(&bar, parts[k].name);
		code = parts[k].wanted ? parts[k].run(e) : 0;
		progress_add(&bar, 1);
	}
	progress_end(&bar);
	if (code == -EBADMSG)
		return cli_fail(COMMAND,
				"%s: a page came back with other bytes than it was put with",
				parts[k - 1].name);
	return code ? cli_fail(COMMAND, "%s: %s", parts[k - 1].name, tmem_strerror(code)) : CLI_OK;
}

static int load(struct engine *e, const char *path, uint64_t max_bytes)
{
	char err[512];

	if (bench_pages_load(path, max_bytes, &e->pages, err, sizeof(err)))
		return cli_fail(COMMAND, "%s", err);
	drop_same_filled(e);
	if (e->pages.count < PAGES_LEAST)
		return cli_fail(COMMAND,
				"'%s' has only %" PRIu64 " pages that are not same-filled; "
				"%d is the least",
				e->pages.name, e->pages.count, PAGES_LEAST);
	return CLI_OK;
}

int cmd_bench_engine(int argc, char **argv)
{
	static struct engine e; /* large */
	const char *path = NULL, *codec = "lz4", *kind = "persistent", *zpool = "zsmalloc";
	uint64_t max_bytes = 0;
	bool json = false, bytes = false, no_scale = false;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	const struct cli_option options[] = {
		{"pages", 'p', CLI_TEXT, &path, "FILE",
		 "pages to use (tmem estimate --save); default: made up", 0, 0},
		{"codec", 'c', CLI_TEXT, &codec, "NAME[:LEVEL]", "default: lz4", 0, 0},
		{"kind", 'k', CLI_TEXT, &kind, "KIND",
		 "of the pool: persistent (default) or ephemeral, where a get takes the page out",
		 0, 0},
		{"zpool", 'Z', CLI_TEXT, &zpool, "NAME", "allocator; default: zsmalloc", 0, 0},
		{"threads", 't', CLI_COUNT, &e.threads, "N", "for scaling; default: 2", 1,
		 TEAM_MAX},
		{"rounds", 'r', CLI_COUNT, &e.rounds, "N", "at least so many; default: 41", 1,
		 100000},
		{"max", 'm', CLI_SIZE, &max_bytes, "SIZE",
		 "use at most so much of FILE (default: 1G)", 0, 0},
		{"no-scale", 0, CLI_FLAG, &no_scale, NULL, "leave the 4 million pages out", 0, 0},
		{"zram", 'z', CLI_FLAG, &e.zram, NULL,
		 "the same pages in a zram device of its own, too (root)", 0, 0},
		{"json", 'J', CLI_FLAG, &json, NULL, "print JSON", 0, 0},
		{"bytes", 'b', CLI_FLAG, &bytes, NULL, "exact bytes in the table", 0, 0},
		{0},
	};
	const struct cli_syntax syntax = {COMMAND, "",
					  "Puts pages into a store and gets them back, in turn "
					  "with the bare codec's calls on the\n"
					  "same pages, and compares every page that comes back.",
					  options, false};
	char err[256];
	int code;

	e.threads = cpus > 1 ? 2 : 1;
	e.rounds = 41;
	code = cli_parse(&syntax, argc, argv, NULL);
	if (code >= 0)
		return code;
	if (codec_parse(codec, &e.spec, err, sizeof(err)))
		return cli_usage(COMMAND, "--codec: %s", err);
	e.ephemeral = strcmp(kind, "ephemeral") == 0;
	if (!e.ephemeral && strcmp(kind, "persistent") != 0)
		return cli_usage(COMMAND, "--kind: '%s' is neither persistent nor ephemeral", kind);
	e.spec_text = codec;
	e.zpool = zpool;
	if (check_zpool(&e, err, sizeof(err)))
		return cli_usage(COMMAND, "--zpool: %s", err);
	e.scale = !no_scale;
	code = load(&e, path, max_bytes);
	if (code == CLI_OK)
		code = measure(&e);
	if (code == CLI_OK && json) {
		code = print_json(&e);
	} else if (code == CLI_OK) {
		print_table(&e, bytes);
		code = cli_flush(COMMAND);
	}
	tear_down(&e);
	return code;
}
