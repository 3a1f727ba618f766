/* SPDX-License-Identifier: BSD-2-Clause */
/* Traces into events, policies over them: the model against a plain one, the store against the
 * model. */
#include "tmem_test.h"

#include "cli/bench_pages.h"
#include "cli/replay.h"
#include "cli/trace.h"

#include <unistd.h>

static char path[64];

static int make_path(void **state)
{
	snprintf(path, sizeof(path), "/tmp/tmem-replay-XXXXXX");
	close(mkstemp(path));
	return 0;
}

static int remove_path(void **state)
{
	unlink(path);
	return 0;
}

/* ---- loading ------------------------------------------------------------------ */

static struct trace_out out;

static void add(uint64_t time, enum trace_opcode op, int32_t pool, uint64_t object, uint64_t index,
		uint64_t n)
{
	struct trace_op o = {.time_ns = time, .op = op, .ok = true, .pool = pool};

	o.oid[0] = object;
	o.index = index;
	o.n = n;
	o.zsize = op == TRACE_PUT ? (uint32_t)(1000 * n) : 0;
	trace_out_add(&out, &o);
}

static void load(struct replay_trace *t)
{
	char err[200];

	assert_int_equal(trace_out_close(&out), 0);
	assert_int_equal(replay_load(path, false, t, err, sizeof(err)), 0);
}

/* Kinds and pages of all events, as text: "p0 p1 g0 d1". */
static const char *events(const struct replay_trace *t)
{
	static char text[400];
	size_t n = 0;

	for (uint64_t i = 0; i < t->nevents && n < sizeof(text) - 12; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%c%u", i ? " " : "",
				      "agtpd"[t->event[i].kind], t -> event[i].page);
	return text;
}

static void operations_become_events(void **state)
{
	struct replay_trace t;

	assert_int_equal(trace_out_open(&out, path), 0);
	add(10, TRACE_PUT, 1, 7, 0, 3); /* pages 0 1 2 */
	add(20, TRACE_GET, 1, 7, 1, 1);
	add(30, TRACE_GET_AND_DROP, 1, 7, 2, 1);
	add(40, TRACE_DROP, 1, 7, 1, UINT64_MAX - 1); /* of known pages 1 and 2 */
	add(50, TRACE_READ, 2, 7, 5, 2);	      /* another pool: pages 3 4 */
	add(60, TRACE_MAP, 2, 7, 0, 9);		      /* not counted */
	add(70, TRACE_DROP_OBJECT, 2, 7, 0, 0);
	add(80, TRACE_FLUSH_POOL, 1, 0, 0, 0);
	load(&t);
	assert_string_equal(events(&t), "p0 p1 p2 g1 t2 d2 d1 a3 a4 d4 d3 d2 d1 d0");
	assert_int_equal(t.asks, 4);
	assert_int_equal(t.puts, 3);
	assert_int_equal(t.page[1].zsize, 1000);
	assert_int_equal(t.unknown_sizes, 2);
	assert_int_equal(t.duration_ns, 70);
	replay_free(&t);
}

static void clones_read_what_their_source_has(void **state)
{
	struct replay_trace t;

	assert_int_equal(trace_out_open(&out, path), 0);
	add(1, TRACE_PUT, 1, 7, 0, 2); /* pages 0 1 */
	add(2, TRACE_POOL_CLONE, 1, 0, 2, 0);
	add(3, TRACE_GET_AND_DROP, 2, 7, 0, 1); /* the source keeps it */
	add(4, TRACE_PUT, 2, 7, 1, 1);		/* page 2: the clone's own */
	add(5, TRACE_GET, 2, 7, 1, 1);
	add(6, TRACE_POOL_CLONE, 2, 0, 3, 0);
	add(7, TRACE_GET, 3, 7, 0, 1); /* from two pools back */
	add(8, TRACE_POOL_END, 2, 0, 0, 0);
	load(&t);
	assert_string_equal(events(&t), "p0 p1 g0 p2 g2 g0 d2");
	replay_free(&t);
}

/* Times of several threads' blocks overlap. */
static void events_are_in_order_of_time(void **state)
{
	struct trace_op o = {.op = TRACE_READ, .ok = true, .n = 1};
	static struct trace_block b;
	uint8_t head[TRACE_HEAD_BYTES];
	struct replay_trace t;
	FILE *f = fopen(path, "w");
	char err[200];
	size_t n;

	trace_head(head);
	fwrite(head, 1, sizeof(head), f);
	for (unsigned thread = 0; thread < 3; thread++) {
		trace_block_reset(&b);
		for (unsigned i = 0; i < 50; i++) {
			o.time_ns = 1000 + i * 3 + (2 - thread);
			o.oid[0] = thread;
			o.index = i;
			assert_true(trace_block_add(&b, &o));
		}
		n = trace_block_close(&b, 0);
		fwrite(b.bytes, 1, n, f);
	}
	n = trace_block_end(&b, 150, 0);
	fwrite(b.bytes, 1, n, f);
	fclose(f);
	assert_int_equal(replay_load(path, false, &t, err, sizeof(err)), 0);
	assert_int_equal(t.nevents, 150);
	for (uint64_t i = 0; i < 150; i++)
		assert_int_equal(t.event[i].time_ns, i);
	replay_free(&t);
}

static void huge_operations_are_refused(void **state)
{
	struct replay_trace t;
	char err[200];

	assert_int_equal(trace_out_open(&out, path), 0);
	add(1, TRACE_READ, 1, 7, 0, 1ull << 40);
	assert_int_equal(trace_out_close(&out), 0);
	assert_int_equal(replay_load(path, false, &t, err, sizeof(err)), -EBADMSG);
	assert_null(t.event);
}

/* ---- the model ------------------------------------------------------------------ */

/* Asks for pages of one size, without a file. */
static void made_trace(struct replay_trace *t, uint64_t n, uint32_t pages, uint64_t seed)
{
	*t = (struct replay_trace){.nevents = n, .npages = pages, .asks = n};
	t->event = calloc(n, sizeof(*t->event));
	t->page = calloc(pages, sizeof(*t->page));
	for (uint32_t i = 0; i < pages; i++)
		t->page[i] = (struct replay_page){.index = i, .next = UINT32_MAX, .zsize = 960};
	for (uint64_t i = 0; i < n; i++) {
		uint64_t r = test_mix(seed + i);

		/* Half of the asks for an eighth of the pages. */
		t->event[i].page = (uint32_t)((r & 1 ? r >> 8 : (r >> 8) % (pages / 8)) % pages);
		t->event[i].kind = REPLAY_ASK;
	}
}

/* Hits of a cache of `room` pages that drops what `later` says is best dropped; by plain search. */
static uint64_t plain(const struct replay_trace *t, uint32_t room, char policy)
{
	uint64_t *mark = calloc(t->npages, sizeof(*mark)), hits = 0; /* 0: not in */
	uint32_t held = 0;

	for (uint64_t i = 0; i < t->nevents; i++) {
		uint32_t p = t->event[i].page, victim = 0;
		uint64_t best = 0;

		if (mark[p]) {
			hits++;
			if (policy == 'l')
				mark[p] = i + 1;
			continue;
		}
		mark[p] = i + 1;
		if (held++ < room)
			continue;
		held = room;
		for (uint32_t v = 0; v < t->npages; v++) {
			uint64_t score = t->nevents - mark[v] + 1;

			if (!mark[v])
				continue;
			if (policy == 'o')
				for (score = i + 1; score < t->nevents; score++)
					if (t->event[score].page == v)
						break;
			if (score > best && (policy == 'o' || v != p)) {
				best = score;
				victim = v;
			}
		}
		mark[victim] = 0;
	}
	free(mark);
	return hits;
}

static uint64_t model_hits(const struct replay_trace *t, const char *policy, uint64_t size)
{
	static struct replay_result r;
	uint32_t *next = replay_next_use(t);

	assert_int_equal(replay_model_run(replay_model_find(policy), t, next, size, &r, NULL), 0);
	assert_int_equal(r.asks, t->asks);
	assert_true(r.peak_bytes <= size);
	assert_int_equal(r.asks - r.hits, r.puts);
	free(next);
	return r.hits;
}

static void the_model_agrees_with_a_plain_one(void **state)
{
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct replay_trace t;

		made_trace(&t, 4000, 64, seed * 100000);
		for (uint32_t room = 4; room < 64; room += 11) {
			uint64_t size = room * 1000;

			assert_int_equal(model_hits(&t, "fifo", size), plain(&t, room, 'f'));
			assert_int_equal(model_hits(&t, "lru", size), plain(&t, room, 'l'));
			assert_int_equal(model_hits(&t, "opt", size), plain(&t, room, 'o'));
			/* No policy beats the one that knows the future. */
			assert_true(model_hits(&t, "s3fifo", size) <= model_hits(&t, "opt", size));
			assert_true(model_hits(&t, "s3fifo", size) > 0);
		}
		replay_free(&t);
	}
}

/* What is put or dropped in between ends the use of what was stored before. */
static void next_uses_end_with_puts_and_drops(void **state)
{
	static const uint32_t kind[] = {REPLAY_PUT,  REPLAY_GET, REPLAY_DROP, REPLAY_ASK,
					REPLAY_TAKE, REPLAY_PUT, REPLAY_PUT,  REPLAY_GET};
	static const uint32_t next[] = {1, UINT32_MAX, 3, 4, UINT32_MAX, UINT32_MAX, 7, UINT32_MAX};
	struct replay_trace t;
	uint32_t *got;

	made_trace(&t, 8, 8, 1);
	for (unsigned i = 0; i < 8; i++)
		t.event[i] = (struct replay_event){.page = 3, .kind = kind[i]};
	got = replay_next_use(&t);
	assert_memory_equal(got, next, sizeof(next));
	free(got);
	replay_free(&t);
}

/* A scan must not take the popular pages along: what s3fifo is for. */
static void s3fifo_withstands_a_scan(void **state)
{
	struct replay_trace t;
	uint64_t s3, lru;

	made_trace(&t, 40000, 2000, 5);
	for (uint64_t i = 0; i < t.nevents; i++)
		t.event[i].page =
			i / 100 % 2 ? (uint32_t)(200 + i % 1800) : (uint32_t)(test_mix(i) % 100);
	s3 = model_hits(&t, "s3fifo", 150 * 1000);
	lru = model_hits(&t, "lru", 150 * 1000);
	assert_true(s3 > lru);
	replay_free(&t);
}

/* ---- the store ------------------------------------------------------------------ */

static void the_store_holds_what_the_model_says(void **state)
{
	static const char *const policy[] = {"lru", "s3fifo"};
	struct replay_trace t;
	static struct replay_result r;
	char err[200];

	made_trace(&t, 30000, 4000, 9);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t size = 3u << 20, model = model_hits(&t, policy[i], size - (1u << 20));
		int rc = replay_engine_run(policy[i], NULL, &t, NULL, 0, size, &r, NULL, err,
					   sizeof(err));

		if (rc == -EINVAL && strstr(err, "unknown eviction policy")) {
			print_message("skipped: %s\n", err);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_int_equal(r.asks, 30000);
		assert_true(r.evicted_pages > 0);
		/* A third of the pages do not fit; between a store 1 MiB smaller and all of it. */
		assert_in_range(r.hits, model * 9 / 10, model_hits(&t, "opt", size));
	}
	/* Everything fits: only the first asks miss. */
	assert_int_equal(
		replay_engine_run("lru", NULL, &t, NULL, 0, 64u << 20, &r, NULL, err, sizeof(err)),
		0);
	assert_int_equal(r.evicted_pages, 0);
	assert_int_equal(r.hits, model_hits(&t, "opt", 64u << 20));
	assert_int_equal(
		replay_engine_run("mru", NULL, &t, NULL, 0, 64u << 20, &r, NULL, err, sizeof(err)),
		-EINVAL);
	replay_free(&t);
}

/* However often all of its pages were asked for, new ones find room. */
static void a_store_of_wanted_pages_takes_new_ones(void **state)
{
	static const char *const policy[] = {"lru", "s3fifo"};
	const uint32_t old = 12000, more = 4000;
	struct replay_trace t;
	static struct replay_result r;
	char err[200];

	made_trace(&t, 5 * old + more, old + more, 1);
	for (uint64_t i = 0; i < t.nevents; i++)
		t.event[i].page = (uint32_t)(i < 5 * old ? i % old : i - 4 * old);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(replay_engine_run(policy[i], NULL, &t, NULL, 0, 14u << 20, &r,
						   NULL, err, sizeof(err)),
				 0);
		assert_int_equal(r.refused, 0);
		assert_true(r.evicted_pages > more / 4);
		assert_int_equal(r.hits, 4 * old);
	}
	replay_free(&t);
}

static void all_kinds_of_events_reach_the_store(void **state)
{
	struct replay_trace t;
	static struct replay_result r;
	char err[200];

	made_trace(&t, 20000, 500, 3);
	for (uint64_t i = 0; i < t.nevents; i++)
		t.event[i].kind = test_mix(i * 3) % 5;
	for (uint32_t i = 0; i < 500; i++)
		t.page[i].zsize = (uint16_t)(test_mix(i) % 9 * 512); /* same-filled to raw */
	assert_int_equal(
		replay_engine_run("lru", NULL, &t, NULL, 0, 1u << 20, &r, NULL, err, sizeof(err)),
		0);
	assert_true(r.hits > 0 && r.hits < r.asks);
	replay_free(&t);
}

/* ---- made-up traces --------------------------------------------------------------- */

static void recipes_of_any_other_form_are_refused(void **state)
{
	static const char *const bad[] = {"",
					  "zipf",
					  "zipf:1000",
					  "zipf:1000:",
					  "zipf:1000:0",
					  "loop:0:10",
					  "zap:1000:1000",
					  "foo:1:1",
					  "zipf:10:-5",
					  "zipf:10:+5",
					  "zipf: 10:10",
					  "zipf:10: 10",
					  "zipf:10:10 ",
					  "zipf:10:10:10",
					  "zipf:67108865:1",
					  "zipf:0x10:10",
					  "zipfs:1000:100",
					  "zipf:1:4294967297",
					  " zipf:10:10",
					  "zipf:10:1e3",
					  "zipf:18446744073709551626:10",
					  "zipf:10:-18446744073709551606"};
	struct trace_recipe r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (trace_recipe_parse(bad[i], &r) != -EINVAL)
			fail_msg("'%s' is taken", bad[i]);
	assert_int_equal(trace_recipe_parse("scan:67108864:4294967296", &r), 0);
	assert_int_equal(r.kind, TRACE_SCAN);
	assert_int_equal(r.pages, 1u << 26);
	assert_int_equal(r.ops, 1ull << 32);
}

static void make_trace(const char *what)
{
	struct trace_recipe r;

	assert_int_equal(trace_recipe_parse(what, &r), 0);
	assert_int_equal(trace_out_open(&out, path), 0);
	assert_int_equal(trace_make(&out, &r), 0);
}

static void made_up_traces_are_what_they_say(void **state)
{
	struct replay_trace t;

	make_trace("loop:100:1000");
	load(&t);
	assert_int_equal(t.npages, 100);
	assert_int_equal(t.asks, 1000);
	assert_int_equal(t.unknown_sizes, 0);
	/* A loop that does not fit is where the oldest is the worst to drop. */
	assert_int_equal(model_hits(&t, "lru", t.footprint / 2), 0);
	assert_true(model_hits(&t, "opt", t.footprint / 2) > 300);
	replay_free(&t);
	make_trace("zipf:1000:20000");
	load(&t);
	assert_in_range(t.npages, 900, 1000);
	replay_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(operations_become_events, make_path, remove_path),
		cmocka_unit_test_setup_teardown(clones_read_what_their_source_has, make_path,
						remove_path),
		cmocka_unit_test_setup_teardown(events_are_in_order_of_time, make_path,
						remove_path),
		cmocka_unit_test_setup_teardown(huge_operations_are_refused, make_path,
						remove_path),
		cmocka_unit_test(the_model_agrees_with_a_plain_one),
		cmocka_unit_test(next_uses_end_with_puts_and_drops),
		cmocka_unit_test(s3fifo_withstands_a_scan),
		cmocka_unit_test(the_store_holds_what_the_model_says),
		cmocka_unit_test(a_store_of_wanted_pages_takes_new_ones),
		cmocka_unit_test(all_kinds_of_events_reach_the_store),
		cmocka_unit_test(recipes_of_any_other_form_are_refused),
		cmocka_unit_test_setup_teardown(made_up_traces_are_what_they_say, make_path,
						remove_path),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
