/* SPDX-License-Identifier: BSD-2-Clause */
#include "corpus.h"

#include <ctype.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define FILE_MIN 64
#define FILE_MAX (4u << 20) /* unpacked; the rest of a longer file is left out */

struct corpus {
	char **paths;
	size_t n, room;
	size_t next; /* file to open next */
	unsigned round;
	uint64_t given; /* documents of this round */
	char *raw;	/* the open file, as on disk */
	size_t raw_len;
	char *text; /* the same with its words changed, or raw */
	char *salted;
	size_t text_len, pos;
	const char *path;
};

/* nftw() has no argument for its callback. */
static struct corpus *walking;

static void fatal_memory(void)
{
	fprintf(stderr, "tmem-demo-fts: out of memory\n");
	exit(1);
}

static int add_path(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	struct corpus *c = walking;

	(void)ftw;
	if (type != FTW_F || !S_ISREG(st->st_mode) || st->st_size < FILE_MIN)
		return 0;
	if (c->n == c->room) {
		c->room = c->room ? c->room * 2 : 1024;
		c->paths = realloc(c->paths, c->room * sizeof(*c->paths));
		if (!c->paths)
			fatal_memory();
	}
	c->paths[c->n] = strdup(path);
	if (!c->paths[c->n++])
		fatal_memory();
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

struct corpus *corpus_open(char *const dirs[], int n)
{
	struct corpus *c = calloc(1, sizeof(*c));

	if (!c)
		fatal_memory();
	/* Words can grow by two letters each: room for the worst case. */
	c->raw = malloc(FILE_MAX);
	c->salted = malloc(FILE_MAX * 2);
	if (!c->raw || !c->salted)
		fatal_memory();
	walking = c;
	for (int i = 0; i < n; i++)
		if (nftw(dirs[i], add_path, 32, FTW_PHYS) != 0)
			fprintf(stderr, "tmem-demo-fts: %s: cannot be read\n", dirs[i]);
	walking = NULL;
	if (!c->n) {
		fprintf(stderr, "tmem-demo-fts: no files found\n");
		corpus_close(c);
		return NULL;
	}
	qsort(c->paths, c->n, sizeof(*c->paths), by_name);
	return c;
}

void corpus_close(struct corpus *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->paths[i]);
	free(c->paths);
	free(c->raw);
	free(c->salted);
	free(c);
}

/* Reads a file, unpacked if it is a gzip file. False when it is not text. */
static bool load(struct corpus *c, const char *path)
{
	gzFile f = gzopen(path, "rb");
	int got = 0;

	c->raw_len = 0;
	if (!f)
		return false;
	gzbuffer(f, 65536);
	while (c->raw_len < FILE_MAX &&
	       (got = gzread(f, c->raw + c->raw_len, (unsigned)(FILE_MAX - c->raw_len))) > 0)
		c->raw_len += (size_t)got;
	gzclose(f);
	if (got < 0 || c->raw_len < FILE_MIN)
		return false;
	return !memchr(c->raw, 0, c->raw_len < 4096 ? c->raw_len : 4096);
}

/* Gives a third of the words an ending that depends on the word and the round. */
static void salt(struct corpus *c)
{
	const char *p = c->raw, *end = c->raw + c->raw_len;
	char *o = c->salted;

	while (p < end) {
		const char *w = p;
		uint64_t h = 0xcbf29ce484222325u ^ c->round;

		while (p < end && isalpha((unsigned char)*p))
			h = (h ^ (unsigned char)*p++) * 0x100000001b3u;
		memcpy(o, w, (size_t)(p - w));
		o += p - w;
		h ^= h >> 29;
		if (p - w >= 4 && h % 3 == 0) {
			*o++ = (char)('a' + h / 3 % 26);
			*o++ = (char)('a' + c->round % 26);
		}
		while (p < end && !isalpha((unsigned char)*p))
			*o++ = *p++;
	}
	c->text = c->salted;
	c->text_len = (size_t)(o - c->salted);
}

/* Opens the next file that is text. False when a whole round had none. */
static bool next_file(struct corpus *c)
{
	for (;;) {
		if (c->next == c->n) {
			if (!c->given)
				return false;
			c->next = 0;
			c->given = 0;
			c->round++;
		}
		c->path = c->paths[c->next++];
		if (!load(c, c->path))
			continue;
		c->pos = 0;
		c->text = c->raw;
		c->text_len = c->raw_len;
		if (c->round)
			salt(c);
		return true;
	}
}

int corpus_next(struct corpus *c, struct corpus_doc *doc)
{
	size_t len;

	if (c->pos >= c->text_len && !next_file(c))
		return 0;
	len = c->text_len - c->pos;
	if (len > CORPUS_DOC_MAX) {
		const char *cut =
			memrchr(c->text + c->pos + CORPUS_DOC_MAX / 2, '\n', CORPUS_DOC_MAX / 2);

		len = cut ? (size_t)(cut + 1 - (c->text + c->pos)) : CORPUS_DOC_MAX;
	}
	*doc = (struct corpus_doc){c->path, c->text + c->pos, len, c->round};
	c->pos += len;
	c->given++;
	return 1;
}
