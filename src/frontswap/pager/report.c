/* SPDX-License-Identifier: BSD-2-Clause */
/* The numbers of a run: a histogram of fault times, and the JSON report. */
#include "frontswap/pager/run.h"
#include "frontswap/pager/sight.h"

#include "os/clock.h"
#include "os/file.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void report_fault(struct run *r, uint64_t ns)
{
	atomic_fetch_add_explicit(&r->n.fault_hist[hist_bucket(ns)], 1, memory_order_relaxed);
}

static double percentile(struct run *r, double part)
{
	uint64_t count[HIST_BUCKETS];

	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		count[b] = atomic_load(&r->n.fault_hist[b]);
	return hist_percentile_us(count, part);
}

#define INTEGER(j, name, value) json_object_set_new(j, name, json_integer((json_int_t)(value)))
#define REAL(j, name, value)	json_object_set_new(j, name, json_real(value))

/* Close it, unless it is stderr; errno is the first error's. 0 or -errno, and nothing stays. */
static int close_out(FILE *f, const char *path)
{
	bool bad = fflush(f) || ferror(f);
	int rc;

	if (f != stderr)
		bad |= fclose(f) != 0;
	rc = !bad ? 0 : errno ? -errno : -EIO;
	if (rc && f != stderr)
		os_file_discard(path);
	return rc;
}

/* A field a line; the series, which is the caller's no more, a column a line. 0 or -errno. */
static int write_out(const json_t *j, json_t *series, const char *path)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	size_t len = text ? strlen(text) : 0;
	const char *name, *comma = "";
	json_t *column;
	int rc = -ENOMEM;
	FILE *f;

	if (len <= 2)
		goto out;
	f = strcmp(path, "-") ? fopen(path, "we") : stderr;
	rc = f ? 0 : -errno;
	if (!f)
		goto out;
	errno = 0;
	fwrite(text, 1, len - 2, f); /* without its last line, "}" */
	fputs(series ? ",\n  \"series\": {" : "\n}\n", f);
	json_object_foreach(series, name, column)
	{
		fprintf(f, "%s\n    \"%s\": ", comma, name);
		json_dumpf(column, f, JSON_COMPACT | JSON_REAL_PRECISION(9));
		comma = ",";
	}
	if (series)
		fputs("\n  }\n}\n", f);
	rc = close_out(f, path);
out:
	free(text);
	json_decref(series);
	return rc;
}

/* Of --limit auto. Means are over the time in which the program ran. */
static void report_auto(const struct run *r, json_t *j)
{
	const struct auto_run *a = &r->automatic;
	double rate = auto_promotion_rate(r), bare = 0, total = 0;

	if (a->seconds > 0) {
		bare = a->bare_sum / a->seconds;
		total = a->total_sum / a->seconds;
	}
	REAL(j, "cold_s", atomic_load(&a->cold_ms) / 1e3);
	REAL(j, "promotions_target_percent", r->opts.promotions_ppm / 1e4);
	INTEGER(j, "promotions", atomic_load(&a->promotions));
	json_object_set_new(j, "promotions_percent", rate < 0 ? json_null() : json_real(rate));
	INTEGER(j, "breaches", a->law.breaches);
	INTEGER(j, "working_set_bytes", a->set_seconds > 0 ? a->set_sum / a->set_seconds : 0);
	INTEGER(j, "bare_bytes_mean", bare);
	INTEGER(j, "total_bytes_mean", total);
	INTEGER(j, "saved_bytes_mean", bare - total);
	INTEGER(j, "saved_bytes_max", a->saved_max);
}

int report_write(struct run *r, const char *path)
{
	json_t *j = json_object();
	uint64_t pages = atomic_load(&r->peak_stored_pages);
	uint64_t compressed = atomic_load(&r->peak_compressed);
	tmem_stats st = {.size = sizeof(st)};
	int rc;

	if (!j)
		return -ENOMEM;
	tmem_host_stats(r->host, &st);
	INTEGER(j, "version", 1);
	REAL(j, "wall_s", (double)(os_clock_ns() - r->start_ns) / 1e9);
	INTEGER(j, "limit_bytes", r->opts.limit_bytes);
	INTEGER(j, "peak_total_bytes", atomic_load(&r->peak_total));
	INTEGER(j, "peak_resident_bytes", atomic_load(&r->peak_resident));
	INTEGER(j, "store_bytes", atomic_load(&r->peak_store));
	INTEGER(j, "stored_pages", pages);
	INTEGER(j, "compressed_bytes", compressed);
	INTEGER(j, "held_bytes", atomic_load(&r->held_bytes));
	INTEGER(j, "same_filled_pages", atomic_load(&r->peak_same));
	REAL(j, "ratio", compressed ? (double)pages * 4096.0 / (double)compressed : 0);
	INTEGER(j, "evicted_pages", atomic_load(&r->n.evicted_pages));
	INTEGER(j, "unchanged_pages", atomic_load(&r->n.unchanged_pages));
	INTEGER(j, "faults", atomic_load(&r->n.faults));
	REAL(j, "fault_us_p50", percentile(r, 0.50));
	REAL(j, "fault_us_p99", percentile(r, 0.99));
	REAL(j, "over_limit_s", (double)atomic_load(&r->over_ns) / 1e9);
	json_object_set_new(j, "codec", json_string(r->opts.codec));
	INTEGER(j, "cluster_pages", r->opts.cluster);
	json_object_set_new(j, "evict",
			    json_string(r->opts.evict == RUN_EVICT_DISCARD ? "discard" : "move"));
	INTEGER(j, "faults_stored", atomic_load(&r->n.faults_stored));
	INTEGER(j, "faults_fresh", atomic_load(&r->n.faults_fresh));
	INTEGER(j, "faults_transit", atomic_load(&r->n.faults_transit));
	INTEGER(j, "pages_in", atomic_load(&r->n.pages_in));
	INTEGER(j, "pages_fresh", atomic_load(&r->n.pages_fresh));
	INTEGER(j, "refused_pages", atomic_load(&r->n.refused_pages));
	INTEGER(j, "busy_pages", atomic_load(&r->n.busy_pages));
	INTEGER(j, "rounds", atomic_load(&r->n.rounds));
	INTEGER(j, "rounds_disturbed", atomic_load(&r->n.rounds_disturbed));
	INTEGER(j, "second_chances", atomic_load(&r->n.second_chances));
	INTEGER(j, "refault_of_resident", atomic_load(&r->n.anomalies));
	INTEGER(j, "processes", atomic_load(&r->n.spaces));
	INTEGER(j, "unmanaged_processes", r->peak_strays);
	INTEGER(j, "unmanaged_peak_bytes", r->peak_stray_bytes);
	INTEGER(j, "forks", atomic_load(&r->n.forks));
	INTEGER(j, "checksum_failures", st.checksum_failures);
	INTEGER(j, "recompress_tried", st.recompress_tried);
	INTEGER(j, "recompressed_zpages", st.recompressed);
	INTEGER(j, "recompress_saved_bytes", st.recompress_saved_bytes);
	INTEGER(j, "overflow_pages", st.overflow_pages);
	INTEGER(j, "overflow_moved_pages", st.overflow_moved_pages);
	INTEGER(j, "overflow_returned_pages", st.overflow_returned_pages);
	INTEGER(j, "overflow_write_errors", st.overflow_write_errors);
	INTEGER(j, "overflow_read_errors", st.overflow_read_errors);
	if (r->sight && r->sight->thrash_at_ns) {
		REAL(j, "thrash_s", (double)r->sight->thrash_at_ns / 1e9);
		INTEGER(j, "enough_limit_bytes", r->sight->enough_bytes);
	}
	if (r->opts.automatic)
		report_auto(r, j);
	rc = write_out(j, sight_series(r), path);
	json_decref(j);
	return rc;
}
