/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages made for `tmem bench engine` when it is given none. A quarter is text
 * of /usr/include and /usr/share/doc; the rest looks like what interpreters,
 * databases and caches keep: hash tables, object headers with pointers, small
 * records of text, arrays of numbers. Compression near 2.5 with lz4, as real
 * program memory has it. Pages of a real program are better: estimate --save.
 */
#include "cli/bench_pages.h"

#include "os/file.h"
#include "os/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE OS_FRAME_SIZE

/* ---- text of this machine --------------------------------------------------------- */

/* nftw() hands no argument through. */
static struct {
	uint8_t *at;
	size_t left;
} text;

static int add_file(const char *path, const struct stat *st, int type, struct FTW *where)
{
	ssize_t n;
	int fd;

	if (type != FTW_F || !S_ISREG(st->st_mode) || st->st_size < 512)
		return 0;
	fd = os_file_open(path, O_RDONLY, 0);
	if (fd < 0)
		return 0;
	n = os_file_pread(fd, text.at, text.left < 65536 ? text.left : 65536, 0);
	os_file_close(fd);
	if (n > 0) {
		text.at += n;
		text.left -= (size_t)n;
	}
	return text.left == 0;
}

/* Bytes of text found, at most `room`. */
static size_t fill_text(uint8_t *to, size_t room)
{
	size_t half;

	text.at = to;
	text.left = half = room / 2;
	nftw("/usr/include", add_file, 16, FTW_PHYS);
	text.left += room - half;
	nftw("/usr/share/doc", add_file, 16, FTW_PHYS);
	return (size_t)(text.at - to);
}

/* ---- made-up program memory ---------------------------------------------------------- */

static const char *const words[] = {"order",  "customer", "status", "shipped", "price", "name",
				    "berlin", "street",	  "active", "pending", "total", "email"};
#define N_WORDS (sizeof(words) / sizeof(words[0]))

/* Small records as a cache or an interpreter keeps them: header, length, text. */
static void fill_records(uint8_t *page, uint64_t *seed)
{
	char record[160];
	size_t used = 0;

	while (used < PAGE) {
		uint64_t r = bench_random(seed);
		int n = snprintf(record, sizeof(record),
				 "%c%c{\"id\":%" PRIu64 ",\"%s\":\"%s\",\"%s\":%u,\"%s\":%u.%02u}",
				 (char)(r & 3), 0, r % 10000000, words[r >> 24 & 7],
				 words[(r >> 28) % N_WORDS], words[(r >> 32) % N_WORDS],
				 (unsigned)(r >> 36) % 1000, words[(r >> 46) % N_WORDS],
				 (unsigned)(r >> 50) % 500, (unsigned)(r >> 56) % 100);
		size_t len = ((size_t)n + 16) & ~(size_t)15;

		if (len > PAGE - used)
			len = PAGE - used;
		memcpy(page + used, record, len < (size_t)n ? len : (size_t)n);
		used += len;
	}
}

/* A hash table two thirds full: hash, pointer to key, pointer to value. */
static void fill_table(uint8_t *page, uint64_t *seed)
{
	uint64_t *word = (uint64_t *)(void *)page;
	size_t i;

	for (i = 0; i + 3 <= PAGE / 8; i += 3) {
		uint64_t r = bench_random(seed);

		if (r % 3 == 0)
			continue;
		word[i] = bench_random(seed);
		word[i + 1] = 0x00007f31a0000000 + (r >> 8 & 0x3fffff) * 16;
		word[i + 2] = 0x00007f31a0000000 + (r >> 34 & 0x3fffff) * 16;
	}
}

/* Objects of an interpreter: reference count, type, size, two pointers to others near by. */
static void fill_objects(uint8_t *page, uint64_t *seed)
{
	uint64_t *word = (uint64_t *)(void *)page, near = bench_random(seed) & 0xffffff;
	size_t i;

	for (i = 0; i + 6 <= PAGE / 8; i += 6) {
		uint64_t r = bench_random(seed);

		word[i] = 1 + (r & 1);
		word[i + 1] = 0x000055e4c2a11000 + (r >> 2 & 3) * 0x1a0;
		word[i + 2] = r >> 4 & 31;
		word[i + 3] = 0x00007f31a0000000 + (near + (r >> 9 & 0xfff)) * 16;
		word[i + 4] = 0x00007f31a0000000 + (near + (r >> 21 & 0xfff)) * 16;
		word[i + 5] = r >> 60 ? 0 : r >> 32 & 0xffffff;
	}
}

/* Numbers with few digits, as measured values are. */
static void fill_numbers(uint8_t *page, uint64_t *seed)
{
	double *d = (double *)(void *)page;
	size_t i;

	for (i = 0; i < PAGE / sizeof(*d); i++)
		d[i] = (double)(bench_random(seed) % 4000) / 8;
}

static void (*const fill[])(uint8_t *, uint64_t *) = {fill_records, fill_table,	  fill_objects,
						      fill_objects, fill_numbers, fill_records};

int bench_pages_make(struct pages *out)
{
	uint64_t seed = 1, count = BENCH_PAGES_BYTES / PAGE, got, i;
	int code;

	*out = (struct pages){.eligible = count};
	code = pages_reserve(out, count);
	if (code) {
		pages_free(out);
		return code;
	}
	got = fill_text(out->data, BENCH_PAGES_BYTES / 4) / PAGE;
	memset(out->data + got * PAGE, 0, (count - got) * PAGE);
	for (i = got; i < count; i++) /* runs of 32 pages of a kind: neighbours are alike */
		fill[i / 32 % (sizeof(fill) / sizeof(fill[0]))](out->data + i * PAGE, &seed);
	for (i = 0; i < count; i++)
		out->number[i] = i;
	out->count = count;
	snprintf(out->name, sizeof(out->name),
		 "made up: %u %% text of this machine, rest generated",
		 (unsigned)(got * 100 / count));
	return 0;
}

int bench_pages_load(const char *path, uint64_t max_bytes, struct pages *out, char *err,
		     size_t errlen)
{
	struct pages_want want = {.max_bytes = max_bytes};
	int code;

	if (path)
		return pages_from_files((char *const *)&path, 1, &want, out, err, errlen);
	code = bench_pages_make(out);
	if (code)
		snprintf(err, errlen, "cannot make pages: %s", strerror(-code));
	return code;
}

/* ---- pages by number ------------------------------------------------------------------ */

#define TEXT_BYTES (BENCH_PAGES_BYTES / 4)

struct bench_maker {
	uint8_t *text;
	size_t bytes;
};

struct bench_maker *bench_maker_open(void)
{
	struct bench_maker *m = os_zalloc(sizeof(*m));

	if (m)
		m->text = os_alloc(TEXT_BYTES);
	if (!m || !m->text) {
		os_free(m);
		return NULL;
	}
	m->bytes = fill_text(m->text, TEXT_BYTES);
	return m;
}

void bench_maker_close(struct bench_maker *m)
{
	os_free(m->text);
	os_free(m);
}

void bench_maker_page(const struct bench_maker *m, uint64_t number, uint8_t page[4096])
{
	uint64_t run = number / 32, seed = number * 0x9e3779b97f4a7c15u + 1;

	/* Of four runs of 32 pages one is text, from anywhere: neighbours are alike. */
	if (run % 4 == 0 && m->bytes > 40 * PAGE) {
		uint64_t r = run;
		size_t from = bench_random(&r) % (m->bytes - 33 * PAGE);

		memcpy(page, m->text + from + number % 32 * PAGE, PAGE);
	} else {
		memset(page, 0, PAGE);
		fill[run % (sizeof(fill) / sizeof(fill[0]))](page, &seed);
	}
	/* No two pages are alike, whatever they were made from. */
	memcpy(page + 64, &number, sizeof(number));
}
