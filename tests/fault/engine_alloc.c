/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation of the engine fails once, and then all from it on.
 *
 * Each scenario runs with n = 1, 2, 3...: the n-th call that may fail does, until
 * a run is reached in which there is no n-th one. After each run: no crash, the
 * host is sound, every acknowledged page reads back byte for byte and nothing
 * that was not acknowledged does, the host can be used again, and when it is
 * destroyed no block, mapping, thread, slot or descriptor is left.
 *
 *   engine_alloc                        all
 *   engine_alloc -l                     list the scenarios
 *   engine_alloc [-v] NAME [once|on [N]]    one of them; one way; one n
 */
#include "alloc_scenarios.h"

#include "os/log.h"

#include <inttypes.h>
#include <unistd.h>

char overflow_path[] = "/tmp/tmem-fault-XXXXXX";
char save_path[sizeof(overflow_path) + 8];
uint64_t lz4_baseline;

static const struct scenario *const tables[] = {alloc_pools, alloc_pages, alloc_short, alloc_files,
						alloc_threads};
#define TABLES (sizeof(tables) / sizeof(tables[0]))

/* The host must be of use again when memory is there again. */
static void use_again(struct world *w)
{
	bool refuses = w->may_refuse;

	if (!w->host || (!w->client && !w_client(w)))
		return;
	w->may_refuse = refuses;
	for (unsigned i = 0; i < W_POOLS; i++) {
		if (w->pool[i].id < 0)
			continue;
		fill(w, i, 0, 0, 3);
		w_put_cluster(w, i, 1, 16, 4, 0);
		w_get_all(w, i);
	}
}

/* One run; whether a call failed in it. */
static bool run_once(const struct scenario *s, bool from_then_on, uint64_t n)
{
	struct shim_alive before, after;
	static struct world w;
	char name[100];
	bool failed;

	snprintf(name, sizeof(name), "%s %s %" PRIu64, s->name, from_then_on ? "on" : "once", n);
	w_scenario = name;
	w_init(&w);
	shim_alive(&before);
	w.arm_at = s->whole ? 0 : n;
	w.arm_on = from_then_on;
	shim_arm(s->whole ? n : 0, from_then_on);
	s->run(&w);
	shim_disarm();
	w.arm_at = 0;
	failed = shim_failed() > 0;
	w_verify(&w);
	/* shim_failed() still counts the run above: what is refused now is a fault of its own. */
	shim_arm(0, false);
	use_again(&w);
	w_verify(&w);
	/* The end needs no memory. */
	shim_arm(1, true);
	w_end(&w);
	shim_disarm();
	shim_alive(&after);
	W_CHECK(after.blocks == before.blocks, "%" PRId64 " blocks leaked",
		after.blocks - before.blocks);
	W_CHECK(after.mapped_bytes == before.mapped_bytes, "%" PRId64 " mapped bytes leaked",
		after.mapped_bytes - before.mapped_bytes);
	W_CHECK(after.threads == before.threads, "threads left");
	W_CHECK(after.keys == before.keys, "thread slots left");
	W_CHECK(after.files == before.files, "descriptors left");
	return failed;
}

static uint64_t run_scenario(const struct scenario *s, int mode, uint64_t only)
{
	uint64_t runs = 0;

	for (int m = 0; m < 2; m++) {
		if (mode >= 0 && m != mode)
			continue;
		if (only) {
			(void)run_once(s, m, only);
			runs++;
			continue;
		}
		for (uint64_t n = 1; run_once(s, m, n); n++)
			runs++;
	}
	return runs;
}

static void summary(unsigned n, uint64_t runs)
{
	uint64_t reached, failed;

	shim_sites(&reached, &failed);
	printf("%u scenarios, %" PRIu64 " runs with failures; call sites reached %" PRIu64
	       ", failed %" PRIu64 "; failures",
	       n, runs, reached, failed);
	for (unsigned k = 0; k < SHIM_KINDS; k++)
		printf("%s %s %" PRIu64, k ? "," : ":", shim_kind_name(k), shim_failed_of(k));
	printf("\n");
}

static void drop_line(void *ctx, enum os_log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	(void)text;
}

/* All scenarios of that name (NULL: all); how many there are. */
static unsigned run_named(const char *name, int mode, uint64_t only, bool verbose, uint64_t *runs)
{
	unsigned done = 0;

	for (unsigned t = 0; t < TABLES; t++)
		for (const struct scenario *s = tables[t]; s->name; s++) {
			uint64_t n;

			if (name && strcmp(name, s->name) != 0)
				continue;
			n = run_scenario(s, mode, only);
			if (verbose)
				printf("%-20s %6" PRIu64 " runs\n", s->name, n);
			*runs += n;
			done++;
		}
	return done;
}

static void list(void)
{
	for (unsigned t = 0; t < TABLES; t++)
		for (const struct scenario *s = tables[t]; s->name; s++)
			puts(s->name);
}

int main(int argc, char **argv)
{
	bool verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
	char **args = argv + verbose + 1;
	int nargs = argc - verbose - 1, mode = -1, fd;
	uint64_t only = 0, runs = 0;
	unsigned done;

	if (nargs > 0 && strcmp(args[0], "-l") == 0) {
		list();
		return 0;
	}
	if (nargs > 1)
		mode = strcmp(args[1], "on") == 0;
	if (nargs > 2)
		only = strtoull(args[2], NULL, 10);
	fd = mkstemp(overflow_path);
	if (fd < 0) {
		perror(overflow_path);
		return 1;
	}
	close(fd);
	snprintf(save_path, sizeof(save_path), "%s.save", overflow_path);
	/* Refusals are what is wanted here; damage is reported by the return value. */
	if (!verbose)
		os_log_set_sink(drop_line, NULL);
	lz4_baseline = w_baseline(NULL);
	done = run_named(nargs > 0 ? args[0] : NULL, mode, only, verbose, &runs);
	unlink(overflow_path);
	unlink(save_path);
	if (!done) {
		fprintf(stderr, "no scenario %s; -l lists them\n", args[0]);
		return 2;
	}
	summary(done, runs);
	return 0;
}
