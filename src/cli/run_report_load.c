/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A report of tmem run from its file. It may be anything: cut, edited, of another program. What is
 * not as it should be is named by its place, and nothing of it is used.
 */
#include "cli/cli.h"
#include "cli/run_report.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define VERSION 1

static const char *const column_name[RUN_COLUMNS] = {
	[COL_T] = "t_s",
	[COL_RESIDENT] = "resident_bytes",
	[COL_TOTAL] = "total_bytes",
	[COL_LIMIT] = "limit_bytes",
	[COL_STORE] = "store_bytes",
	[COL_COMPRESSED] = "compressed_bytes",
	[COL_STORED_PAGES] = "stored_pages",
	[COL_FAULTS_STORED] = "faults_stored",
	[COL_FAULTS_FRESH] = "faults_fresh",
	[COL_EVICTED] = "evicted_pages",
	[COL_PAGES_IN] = "pages_in",
	[COL_OVER] = "over_limit_s",
	[COL_WAIT] = "fault_wait_s",
	[COL_PROGRAM_CPU] = "program_cpu_s",
	[COL_OWN_CPU] = "tmem_cpu_s",
	[COL_P50] = "fault_us_p50",
	[COL_P99] = "fault_us_p99",
	[COL_BARE] = "bare_bytes",
	[COL_WORKING_SET] = "working_set_bytes",
};

/* What every report has, of every version. */
static const char *const must_have[] = {
	"wall_s",	"limit_bytes",	 "peak_total_bytes", "peak_resident_bytes",
	"store_bytes",	"stored_pages",	 "compressed_bytes", "same_filled_pages",
	"ratio",	"evicted_pages", "faults",	     "fault_us_p50",
	"fault_us_p99", "over_limit_s",
};

static int bad(const struct run_report *r, const char *where, const char *what)
{
	return cli_fail("report", "%s: %s: %s", r->path, where, what);
}

static int check_figures(const struct run_report *r)
{
	const json_t *version = json_object_get(r->json, "version");

	for (size_t i = 0; i < sizeof(must_have) / sizeof(must_have[0]); i++) {
		const json_t *v = json_object_get(r->json, must_have[i]);

		if (!v)
			return cli_fail("report", "%s: no field %s: not a report of tmem run",
					r->path, must_have[i]);
		if (!json_is_number(v))
			return bad(r, must_have[i], "not a number");
		if (json_number_value(v) < 0)
			return bad(r, must_have[i], "below 0");
	}
	if (!json_is_integer(version))
		return bad(r, "version", version ? "not a whole number" : "not there");
	if (json_integer_value(version) != VERSION)
		return cli_fail("report", "%s: version: %" PRId64 ", and this tmem knows %d",
				r->path, (int64_t)json_integer_value(version), VERSION);
	return CLI_OK;
}

static int load_column(struct run_report *r, const json_t *series, enum run_column c)
{
	bool gaps = c == COL_P50 || c == COL_P99;
	const json_t *a = json_object_get(series, column_name[c]);
	char where[80];

	snprintf(where, sizeof(where), "series.%s", column_name[c]);
	if (!a && c >= COL_BARE)
		return CLI_OK;
	if (!json_is_array(a))
		return bad(r, where, a ? "not an array" : "not there");
	if (json_array_size(a) != r->n)
		return cli_fail("report", "%s: %s: %zu values where t_s has %zu", r->path, where,
				json_array_size(a), r->n);
	r->column[c] = calloc(r->n, sizeof(double));
	if (!r->column[c])
		return cli_fail("report", "no memory");
	for (size_t i = 0; i < r->n; i++) {
		const json_t *v = json_array_get(a, i);

		snprintf(where, sizeof(where), "series.%s[%zu]", column_name[c], i);
		if (!json_is_number(v) && !(gaps && json_is_null(v)))
			return bad(r, where, "not a number");
		r->column[c][i] = json_is_null(v) ? NAN : json_number_value(v);
		if (r->column[c][i] < 0)
			return bad(r, where, "below 0");
		if (c == COL_T && r->column[c][i] <= (i ? r->column[c][i - 1] : 0))
			return bad(r, where, "not later than the one before");
	}
	return CLI_OK;
}

static int load_series(struct run_report *r)
{
	const json_t *series = json_object_get(r->json, "series"), *t;
	int rc = CLI_OK;

	if (!series)
		return CLI_OK;
	if (!json_is_object(series))
		return bad(r, "series", "not an object");
	t = json_object_get(series, column_name[COL_T]);
	if (!json_is_array(t))
		return bad(r, "series.t_s", t ? "not an array" : "not there");
	if (json_array_size(t) > RUN_REPORT_SAMPLES_MAX)
		return bad(r, "series.t_s", "too many samples");
	r->n = json_array_size(t);
	for (unsigned c = 0; c < RUN_COLUMNS && r->n && rc == CLI_OK; c++)
		rc = load_column(r, series, c);
	return rc;
}

int run_report_load(const char *path, struct run_report *r)
{
	json_error_t e;
	struct stat st;
	int rc;

	*r = (struct run_report){.path = path};
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return cli_fail("report", "%s: %s", path, strerror(EISDIR));
	if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
		return cli_fail("report", "%s: it is empty", path);
	r->json = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
	if (!r->json && e.line > 0)
		return cli_fail("report", "%s: line %d, column %d: %s", path, e.line, e.column,
				e.text);
	if (!r->json)
		return cli_fail("report", "%s", e.text); /* cannot be opened: it names the file */
	if (!json_is_object(r->json))
		return cli_fail("report", "%s: not an object: not a report of tmem run", path);
	rc = check_figures(r);
	return rc == CLI_OK ? load_series(r) : rc;
}

void run_report_free(struct run_report *r)
{
	for (unsigned c = 0; c < RUN_COLUMNS; c++)
		free(r->column[c]);
	json_decref(r->json);
	*r = (struct run_report){0};
}

double run_report_figure(const struct run_report *r, const char *key)
{
	const json_t *v = json_object_get(r->json, key);

	return json_is_number(v) ? json_number_value(v) : NAN;
}
