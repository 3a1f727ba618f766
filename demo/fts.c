/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The demonstration's program: an in-memory full-text index of the text of
 * some folders, and then a search engine's day in small.
 *
 * An ordinary program that knows nothing of tmem. It fills an SQLite FTS5
 * table in a ":memory:" database, document by document in batches, until the
 * database holds --size megabytes; asks --queries queries (counts, the best
 * documents by bm25, snippets), four fifths of them about a sixteenth of the
 * documents, as readers do; has FTS5 check the whole index against the text;
 * and reads the whole table once. Everything that comes back goes into one
 * digest: two runs over the same files print the same digest, or a byte of
 * memory was wrong.
 *
 * Prints "key value" lines on stdout. With --hold it then waits for the end
 * of its standard input with all its memory in place, to be looked at.
 */
#include "corpus.h"

#include <ctype.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define BATCH 256 /* documents of one transaction */

struct job {
	sqlite3 *db;
	uint64_t size_bytes, queries;
	int hold;
	uint64_t docs, text_bytes, db_bytes;
	unsigned rounds;
	uint64_t rng;
	XXH3_state_t *input, *results;
	uint64_t hits, rows;
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void progress(const char *what, uint64_t done, uint64_t of)
{
	static double last;
	double t;

	if (!isatty(STDERR_FILENO))
		return;
	t = now_s();
	if (done < of && t - last < 0.1)
		return;
	last = t;
	fprintf(stderr, "\r  %-10s %3u %% \033[K", what, of ? (unsigned)(done * 100 / of) : 100);
	if (done >= of)
		fprintf(stderr, "\r\033[K");
}

__attribute__((noreturn)) static void fail(struct job *j, const char *what)
{
	fprintf(stderr, "tmem-demo-fts: %s: %s\n", what, sqlite3_errmsg(j->db));
	exit(1);
}

static void exec(struct job *j, const char *sql)
{
	if (sqlite3_exec(j->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail(j, sql);
}

static sqlite3_stmt *prepare(struct job *j, const char *sql)
{
	sqlite3_stmt *st;

	if (sqlite3_prepare_v2(j->db, sql, -1, &st, NULL) != SQLITE_OK)
		fail(j, sql);
	return st;
}

/* splitmix64 */
static uint64_t rnd(struct job *j)
{
	uint64_t z = (j->rng += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static uint64_t database_bytes(struct job *j)
{
	sqlite3_stmt *st = prepare(
		j, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size");
	uint64_t bytes = 0;

	if (sqlite3_step(st) == SQLITE_ROW)
		bytes = (uint64_t)sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return bytes;
}

static void insert(struct job *j, sqlite3_stmt *st, const struct corpus_doc *d)
{
	sqlite3_bind_int64(st, 1, (sqlite3_int64)j->docs + 1);
	sqlite3_bind_text(st, 2, d->path, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 3, d->text, (int)d->len, SQLITE_STATIC);
	if (sqlite3_step(st) != SQLITE_DONE)
		fail(j, "insert");
	sqlite3_reset(st);
	XXH3_128bits_update(j->input, d->text, d->len);
	j->docs++;
	j->text_bytes += d->len;
	j->rounds = d->round + 1;
}

static void build_index(struct job *j, char *const dirs[], int n)
{
	struct corpus *c = corpus_open(dirs, n);
	struct corpus_doc d;
	sqlite3_stmt *st;

	if (!c)
		exit(1);
	exec(j, "CREATE VIRTUAL TABLE doc USING fts5(path UNINDEXED, body)");
	st = prepare(j, "INSERT INTO doc(rowid, path, body) VALUES(?, ?, ?)");
	while (j->db_bytes < j->size_bytes) {
		exec(j, "BEGIN");
		for (int i = 0; i < BATCH; i++) {
			if (!corpus_next(c, &d)) {
				fprintf(stderr,
					"tmem-demo-fts: there is no text in those folders\n");
				exit(1);
			}
			insert(j, st, &d);
		}
		exec(j, "COMMIT");
		j->db_bytes = database_bytes(j);
		progress("indexing", j->db_bytes, j->size_bytes);
	}
	sqlite3_finalize(st);
	corpus_close(c);
}

/* All columns of all rows into the digest. Rows. */
static uint64_t digest_rows(struct job *j, sqlite3_stmt *st)
{
	uint64_t rows = 0;
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(st); i++) {
			const void *p = sqlite3_column_blob(st, i);
			int len = sqlite3_column_bytes(st, i);

			XXH3_128bits_update(j->results, &len, sizeof(len));
			XXH3_128bits_update(j->results, p ? p : "", (size_t)len);
		}
		rows++;
	}
	if (rc != SQLITE_DONE)
		fail(j, "query");
	sqlite3_reset(st);
	return rows;
}

/* A word of at least three letters at or after a random place of the text. */
static int pick_word(struct job *j, const char *text, int len, char word[32])
{
	int at = (int)(rnd(j) % (uint64_t)len), n;

	while (at < len && isalnum((unsigned char)text[at]))
		at++;
	for (; at < len; at += n ? n : 1) {
		for (n = 0; at + n < len && isalpha((unsigned char)text[at + n]); n++)
			;
		if (n >= 3 && n < 31) {
			memcpy(word, text + at, (size_t)n);
			word[n] = 0;
			return 1;
		}
	}
	return 0;
}

/* Two words of a document that somebody may well look for. */
static int pick_question(struct job *j, sqlite3_stmt *fetch, char question[80], char word[32])
{
	uint64_t hot = j->docs / 16 + 1;
	uint64_t id = rnd(j) % 5 ? rnd(j) % hot * 16 % j->docs : rnd(j) % j->docs;
	char other[32];
	const char *text;
	int len, ok = 0;

	sqlite3_bind_int64(fetch, 1, (sqlite3_int64)id + 1);
	if (sqlite3_step(fetch) != SQLITE_ROW)
		fail(j, "fetch");
	text = (const char *)sqlite3_column_text(fetch, 0);
	len = sqlite3_column_bytes(fetch, 0);
	if (len > 0 && pick_word(j, text, len, word) && pick_word(j, text, len, other)) {
		snprintf(question, 80, "\"%s\" \"%s\"", word, other);
		ok = 1;
	}
	sqlite3_reset(fetch);
	return ok;
}

static void ask(struct job *j)
{
	sqlite3_stmt *fetch = prepare(j, "SELECT body FROM doc WHERE rowid = ?");
	sqlite3_stmt *best =
		prepare(j, "SELECT rowid, path, bm25(doc), snippet(doc, 1, '[', ']', '..', 12) "
			   "FROM doc WHERE doc MATCH ? ORDER BY rank LIMIT 10");
	sqlite3_stmt *count = prepare(j, "SELECT count(*) FROM doc WHERE doc MATCH ?");
	char question[80], word[32];

	for (uint64_t i = 0; i < j->queries; i++) {
		progress("querying", i, j->queries);
		if (!pick_question(j, fetch, question, word))
			continue;
		sqlite3_bind_text(best, 1, question, -1, SQLITE_STATIC);
		j->hits += digest_rows(j, best);
		snprintf(question, sizeof(question), "\"%s\"",
			 word); /* AND and NOT are words too */
		sqlite3_bind_text(count, 1, question, -1, SQLITE_STATIC);
		j->hits += digest_rows(j, count);
	}
	progress("querying", 1, 1);
	sqlite3_finalize(fetch);
	sqlite3_finalize(best);
	sqlite3_finalize(count);
}

static void check(struct job *j)
{
	sqlite3_stmt *all;

	progress("checking", 0, 1);
	exec(j, "INSERT INTO doc(doc) VALUES('integrity-check')");
	all = prepare(j, "SELECT rowid, path, body FROM doc");
	j->rows = digest_rows(j, all);
	sqlite3_finalize(all);
	progress("checking", 1, 1);
}

static void print_digest(const char *key, const XXH3_state_t *state)
{
	XXH128_hash_t h = XXH3_128bits_digest(state);

	printf("%s %016llx%016llx\n", key, (unsigned long long)h.high64,
	       (unsigned long long)h.low64);
}

static void run(struct job *j, char *const dirs[], int n)
{
	double t0 = now_s(), t1, t2, t3;

	build_index(j, dirs, n);
	t1 = now_s();
	ask(j);
	t2 = now_s();
	check(j);
	t3 = now_s();
	printf("documents %llu\ntext_bytes %llu\nrounds %u\ndatabase_bytes %llu\n",
	       (unsigned long long)j->docs, (unsigned long long)j->text_bytes, j->rounds,
	       (unsigned long long)database_bytes(j));
	printf("queries %llu\nhits %llu\nrows %llu\n", (unsigned long long)j->queries,
	       (unsigned long long)j->hits, (unsigned long long)j->rows);
	printf("index_s %.2f\nquery_s %.2f\ncheck_s %.2f\n", t1 - t0, t2 - t1, t3 - t2);
	print_digest("input", j->input);
	print_digest("digest", j->results);
	fflush(stdout);
}

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long v = strtoull(text, &end, 10);

	if (!isdigit((unsigned char)*text) || *end || v > 1000000) {
		fprintf(stderr, "tmem-demo-fts: '%s' is not a number up to 1000000\n", text);
		exit(2);
	}
	return v;
}

int main(int argc, char **argv)
{
	struct job j = {.size_bytes = 300u << 20, .queries = 2000, .rng = 20250101};
	char byte;
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--size") && i + 1 < argc)
			j.size_bytes = number(argv[++i]) << 20;
		else if (!strcmp(argv[i], "--queries") && i + 1 < argc)
			j.queries = number(argv[++i]);
		else if (!strcmp(argv[i], "--hold"))
			j.hold = 1;
		else
			break;
	}
	if (i >= argc || argv[i][0] == '-') {
		fprintf(stderr,
			"usage: tmem-demo-fts [--size MIB] [--queries N] [--hold] DIR...\n");
		return 2;
	}
	j.input = XXH3_createState();
	j.results = XXH3_createState();
	if (!j.input || !j.results || sqlite3_open(":memory:", &j.db) != SQLITE_OK)
		fail(&j, "start");
	XXH3_128bits_reset(j.input);
	XXH3_128bits_reset(j.results);
	run(&j, argv + i, argc - i);
	if (j.hold)
		while (read(STDIN_FILENO, &byte, 1) > 0)
			;
	sqlite3_close(j.db);
	XXH3_freeState(j.input);
	XXH3_freeState(j.results);
	return 0;
}
