/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem bench run --suite: a set of real programs, each at several limits.
 *
 * A program of the suite is an executable file that is called in three ways:
 *
 *   FILE needs          prints the Debian packages it needs
 *   FILE prepare DIR    makes its input in an empty folder; not measured
 *   FILE run DIR        does its work; what it writes to standard output must be the same
 *                       each time; may write "p99_us N" to the file that
 *                       $TMEM_BENCH_FIGURES names
 *
 * The figure of all is the geometric mean over programs and limits of the median of tmem's
 * time over zram's. Its spread is that of the same mean taken of each round by itself.
 */
#include "cli/bench_run.h"
#include "os/file.h"
#include "os/mem.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef TMEM_SUITE_DIR
#define TMEM_SUITE_DIR "/usr/local/share/tmem/suite"
#endif
#define COMMAND	     "bench run"
#define PROGRAMS_MAX 64
#define LIMITS_MAX   16

struct mean { /* geometric */
	double log_sum;
	unsigned n;
};

struct suite {
	struct bench *b;
	char dir[512], work[64];
	char name[PROGRAMS_MAX][64];
	unsigned nnames;
	double at[LIMITS_MAX];
	unsigned nlimits;
	struct mean ratio, page_bytes, round[BENCH_ROUNDS_MAX];
	unsigned refused; /* cells in which zram did not get through, and tmem did */
	json_t *cells;	  /* NULL: a table is printed */
};

static void mean_add(struct mean *m, double value)
{
	if (isfinite(value) && value > 0) {
		m->log_sum += log(value);
		m->n++;
	}
}

static double mean_value(const struct mean *m)
{
	return m->n ? exp(m->log_sum / m->n) : NAN;
}

/* ---- the programs ------------------------------------------------------------------------------
 */

static int compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Whether `name` is in a list with commas; in any list that is not there. */
static bool listed(const char *names, const char *name)
{
	size_t len = strlen(name), n;

	for (const char *at = names; at && *at; at += n + (at[n] == ',')) {
		n = strcspn(at, ",");
		if (n == len && !strncmp(at, name, n))
			return true;
	}
	return !names;
}

static int find_programs(struct suite *s, const char *dir, const char *names)
{
	char self[400];
	struct dirent *e;
	ssize_t n;
	DIR *d;

	if (dir) {
		snprintf(s->dir, sizeof(s->dir), "%s", dir);
	} else {
		snprintf(s->dir, sizeof(s->dir), "%s", TMEM_SUITE_DIR);
		n = readlink("/proc/self/exe", self, sizeof(self) - 1);
		if (access(s->dir, X_OK) && n > 0) { /* not installed: beside the build tree */
			self[n] = 0;
			*strrchr(self, '/') = 0;
			snprintf(s->dir, sizeof(s->dir), "%s/../bench/suite", self);
		}
	}
	d = opendir(s->dir);
	if (!d)
		return cli_fail(COMMAND, "cannot read the suite's programs in %s: %s", s->dir,
				strerror(errno));
	while ((e = readdir(d)) && s->nnames < PROGRAMS_MAX) {
		char path[800];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", s->dir, e->d_name);
		if (e->d_name[0] == '.' || strlen(e->d_name) >= sizeof(s->name[0]) ||
		    access(path, X_OK) || stat(path, &st) || !S_ISREG(st.st_mode) ||
		    !listed(names, e->d_name))
			continue;
		snprintf(s->name[s->nnames++], sizeof(s->name[0]), "%s", e->d_name);
	}
	closedir(d);
	qsort(s->name, s->nnames, sizeof(s->name[0]), compare_names);
	if (!s->nnames)
		return cli_fail(COMMAND, "no such program in %s", s->dir);
	for (const char *at = names; at && *at; at += strcspn(at, ","), at += *at == ',') {
		char one[64];
		unsigned i;

		snprintf(one, sizeof(one), "%.*s", (int)strcspn(at, ","), at);
		for (i = 0; i < s->nnames && strcmp(s->name[i], one); i++)
			;
		if (i == s->nnames)
			return cli_fail(COMMAND, "no program '%s' in %s", one, s->dir);
	}
	return CLI_OK;
}

static int parse_limits(struct suite *s, const char *text)
{
	char one[32];

	for (const char *at = text; *at; at += strcspn(at, ","), at += *at == ',') {
		snprintf(one, sizeof(one), "%.*s", (int)strcspn(at, ","), at);
		if (s->nlimits == LIMITS_MAX ||
		    cli_parse_number(one, 1, true, &s->at[s->nlimits]) < 0)
			return cli_usage(COMMAND, "--at takes parts of 1 with commas, not '%s'",
					 text);
		s->nlimits++;
	}
	return CLI_OK;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* `FILE WHAT [work]` and its first line of output. Its exit code. */
static int call(const struct suite *s, const char *file, const char *what, char *line, size_t len)
{
	char command[1600];
	FILE *f;
	int status;

	/* The names are a folder's and our own: nothing in them is the shell's. */
	snprintf(command, sizeof(command), "'%s' %s '%s' 2>&1 </dev/null", file, what, s->work);
	f = popen(command, "r");
	if (!f)
		return -1;
	*line = 0;
	if (fgets(line, (int)len, f))
		line[strcspn(line, "\n")] = 0;
	while (fgetc(f) != EOF)
		;
	status = pclose(f);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- what is printed ---------------------------------------------------------------------------
 */

static void print_head(void)
{
	printf("%-14s %4s %9s | %7s %7s %7s %7s | %9s %13s | %6s %6s | %7s %7s | %8s %8s\n",
	       "program", "at", "total", "bare s", "tmem s", "zram s", "zswap s", "tmem/zram",
	       "rounds", "B/page", "zram's", "faults", "zram's", "p99 us", "zram's");
	fflush(stdout);
}

static const char *number(char *buf, size_t len, double v, int digits)
{
	if (isfinite(v))
		snprintf(buf, len, "%.*f", digits, v);
	else
		snprintf(buf, len, "-");
	return buf;
}

/* The least and the largest of the rounds' ratios. */
static void spread(const struct bench *b, double *least, double *most)
{
	const struct column *x = &b->column[TMEM], *y = &b->column[ZRAM];

	*least = INFINITY;
	*most = -INFINITY;
	for (unsigned i = 0; i < x->runs && i < y->runs; i++) {
		double r = x->run[i].box.wall_s / y->run[i].box.wall_s;

		*least = fmin(*least, r);
		*most = fmax(*most, r);
	}
}

static void print_cell(const struct suite *s, const char *name, double at)
{
	const struct bench *b = s->b;
	const struct column *tmem = &b->column[TMEM], *zram = &b->column[ZRAM];
	char t[12][32], range[40] = "-";
	double least, most;

	spread(b, &least, &most);
	if (isfinite(least))
		snprintf(range, sizeof(range), "%.2f to %.2f", least, most);
	printf("%-14s %3.0f%% %9s | %7s %7s %7s %7s | %9s %13s | %6s %6s | %7llu %7llu | %8s %8s\n",
	       name, at * 100, cli_bytes(t[0], b->limit_bytes, b->bytes),
	       number(t[1], 32, b->first.box.wall_s, 2), number(t[2], 32, bench_wall(tmem), 2),
	       number(t[3], 32, bench_wall(zram), 2),
	       number(t[4], 32, bench_wall(&b->column[ZSWAP]), 2),
	       number(t[5], 32, bench_ratio(b, TMEM, ZRAM), 2), range,
	       number(t[6], 32, bench_page_bytes(tmem), 0),
	       number(t[7], 32, bench_page_bytes(zram), 0),
	       (unsigned long long)BENCH_LARGEST(tmem, faults),
	       (unsigned long long)BENCH_LARGEST(zram, faults),
	       number(t[8], 32, bench_service(tmem), 0), number(t[9], 32, bench_service(zram), 0));
	for (int w = TMEM; w < WAYS; w++)
		if (b->column[w].why_not[0] && !b->leave_out[w])
			printf("    %s: %s\n", way_name[w], b->column[w].why_not);
	if (b->output_differs)
		printf("    what it wrote differs from run to run\n");
	if (BENCH_LARGEST(tmem, reported_peak) > b->limit_bytes)
		printf("    tmem's largest total was %.1f %% above the limit\n",
		       100.0 * (double)BENCH_LARGEST(tmem, reported_peak) / (double)b->limit_bytes -
			       100);
	for (int w = ZRAM; w < WAYS; w++)
		if (b->column[w].search_missed && b->column[w].runs)
			printf("    %s's total: %s\n", way_name[w],
			       cli_bytes(t[10], BENCH_LARGEST(&b->column[w], box.peak_total),
					 b->bytes));
	fflush(stdout);
}

static json_t *way_json(const struct column *c)
{
	json_t *o = json_object(), *all = json_array();

	for (unsigned i = 0; i < c->runs; i++)
		json_array_append_new(all, json_real(c->run[i].box.wall_s));
	cli_json_text(o, "not_measured", c->why_not[0] ? c->why_not : NULL);
	json_object_set_new(o, "wall_s_all", all);
	cli_json_real(o, "wall_s", bench_wall(c));
	cli_json_u64(o, "peak_total_bytes", BENCH_LARGEST(c, box.peak_total));
	cli_json_real(o, "page_bytes", bench_page_bytes(c));
	cli_json_real(o, "p99_us", bench_service(c));
	cli_json_u64(o, "faults", BENCH_LARGEST(c, faults));
	json_object_set_new(o, "search_missed", json_boolean(c->search_missed));
	return o;
}

static void add_cell_json(struct suite *s, const char *name, double at)
{
	json_t *o = json_object();

	cli_json_text(o, "program", name);
	cli_json_real(o, "at", at);
	cli_json_u64(o, "limit_bytes", s->b->limit_bytes);
	cli_json_real(o, "bare_s", s->b->first.box.wall_s);
	cli_json_u64(o, "bare_peak_bytes", s->b->first.box.peak_total);
	cli_json_real(o, "tmem_over_zram", bench_ratio(s->b, TMEM, ZRAM));
	cli_json_real(o, "tmem_over_zswap", bench_ratio(s->b, TMEM, ZSWAP));
	json_object_set_new(o, "output_differs", json_boolean(s->b->output_differs));
	for (int w = TMEM; w < WAYS; w++)
		json_object_set_new(o, way_name[w], way_json(&s->b->column[w]));
	json_array_append_new(s->cells, o);
}

static void skip(struct suite *s, const char *name, const char *why)
{
	json_t *o;

	if (!s->cells) {
		printf("%-14s left out: %s\n", name, why);
		fflush(stdout);
		return;
	}
	o = json_object();
	cli_json_text(o, "program", name);
	cli_json_text(o, "left_out", why);
	json_array_append_new(s->cells, o);
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static void count_cell(struct suite *s)
{
	const struct column *tmem = &s->b->column[TMEM], *zram = &s->b->column[ZRAM];

	mean_add(&s->ratio, bench_ratio(s->b, TMEM, ZRAM));
	mean_add(&s->page_bytes, bench_page_bytes(tmem) / bench_page_bytes(zram));
	s->refused += tmem->runs && !tmem->why_not[0] && zram->why_not[0] && zram->search_runs;
	if (!tmem->why_not[0] && !zram->why_not[0])
		for (unsigned i = 0; i < tmem->runs && i < zram->runs; i++)
			mean_add(&s->round[i], tmem->run[i].box.wall_s / zram->run[i].box.wall_s);
}

static int one_program(struct suite *s, const char *name, const char *file)
{
	char *argv[] = {(char *)file, (char *)"run", s->work, NULL}, why[700], line[400];
	struct bench *b = s->b;
	int code;

	b->argv = argv;
	b->limit_bytes = 1; /* set for each of them below */
	code = bench_first(b);
	if (code != CLI_OK)
		return code;
	if (b->first.box.exit_code) {
		call(s, file, "needs", line, sizeof(line));
		snprintf(why, sizeof(why), "exit code %d; it needs %s", b->first.box.exit_code,
			 line);
		skip(s, name, why);
		return CLI_OK;
	}
	for (unsigned i = 0; i < s->nlimits && code == CLI_OK; i++) {
		b->limit_bytes = (uint64_t)((double)b->first.box.peak_total * s->at[i]) & ~4095ull;
		b->output_differs = false;
		code = bench_measure(b);
		if (code != CLI_OK)
			break;
		count_cell(s);
		if (s->cells)
			add_cell_json(s, name, s->at[i]);
		else
			print_cell(s, name, s->at[i]);
	}
	return code;
}

/* A program in a box and a folder of its own. */
static int in_box(struct suite *s, const char *name)
{
	const char *tmp = getenv("TMPDIR");
	char file[800], line[400], why[500];
	int code;

	snprintf(file, sizeof(file), "%s/%s", s->dir, name);
	snprintf(s->work, sizeof(s->work), "%.40s/tmem-suite-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(s->work))
		return cli_fail(COMMAND, "cannot make a folder in %.40s: %s", tmp ? tmp : "/tmp",
				strerror(errno));
	code = call(s, file, "prepare", line, sizeof(line));
	if (code) {
		snprintf(why, sizeof(why), "its input cannot be made: %s", line);
		skip(s, name, why);
		code = CLI_OK;
	} else {
		code = bench_open(s->b);
		if (code == CLI_OK)
			code = one_program(s, name, file);
		code = bench_close(s->b, code);
	}
	nftw(s->work, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return code;
}

static void round_range(const struct suite *s, double *least, double *most)
{
	*least = INFINITY;
	*most = -INFINITY;
	for (unsigned i = 0; i < s->b->rounds; i++) {
		double v = mean_value(&s->round[i]);

		if (isfinite(v)) {
			*least = fmin(*least, v);
			*most = fmax(*most, v);
		}
	}
}

static int print_whole(struct suite *s)
{
	double least, most;
	json_t *o;

	round_range(s, &least, &most);
	if (s->cells) {
		o = cli_json(COMMAND " --suite");
		cli_json_u64(o, "rounds", s->b->rounds);
		json_object_set(o, "programs", s->cells);
		cli_json_real(o, "tmem_over_zram", mean_value(&s->ratio));
		cli_json_real(o, "least_of_rounds", least);
		cli_json_real(o, "most_of_rounds", most);
		cli_json_real(o, "page_bytes_over_zram", mean_value(&s->page_bytes));
		cli_json_u64(o, "only_tmem_ended", s->refused);
		json_decref(s->cells);
		return cli_json_print(o);
	}
	if (s->ratio.n)
		printf("\ntmem's time over zram's, geometric mean of %u: %.3f (rounds: %.3f to "
		       "%.3f)\n",
		       s->ratio.n, mean_value(&s->ratio), least, most);
	if (s->page_bytes.n)
		printf("bytes that hold a page that is out, tmem's over zram's, geometric mean of "
		       "%u: %.3f\n",
		       s->page_bytes.n, mean_value(&s->page_bytes));
	if (s->refused)
		printf("beside these, %u that ended under tmem, and not over zram\n", s->refused);
	return cli_flush(COMMAND);
}

int bench_suite(struct bench *b, const char *dir, const char *names, const char *fractions)
{
	static struct suite s;
	int code;

	s.b = b;
	b->leave_out[BARE] = true;
	b->leave_out[ZSWAP] = b->leave_out[ZRAM];
	code = parse_limits(&s, fractions);
	if (code == CLI_OK)
		code = find_programs(&s, dir, names);
	if (code != CLI_OK)
		return code;
	if (b->json)
		s.cells = json_array();
	else
		print_head();
	for (unsigned i = 0; i < s.nnames && code == CLI_OK; i++)
		code = in_box(&s, s.name[i]);
	return code == CLI_OK ? print_whole(&s) : code;
}
