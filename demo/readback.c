/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * tmem-demo-readback FILE [CODEC] [PAGES_TOGETHER]
 *
 * Puts every page of a file into a tmem store through libtmem, reads every
 * one back and compares it with the file. For where `tmem run` cannot be had:
 * the same engine, the same pages, without the pager. Also the shortest
 * complete use of the library beyond docs/examples.
 *
 * Prints "key value" lines; exit code 1 when a page did not come back as it was.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <tmem/tmem.h>

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The whole pages of a file, mapped; their number. */
static const char *map_pages(const char *path, uint64_t *pages)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *p = MAP_FAILED;

	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= TMEM_PAGE_SIZE) {
		*pages = (uint64_t)st.st_size / TMEM_PAGE_SIZE;
		p = mmap(NULL, *pages * TMEM_PAGE_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	}
	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static int put_all(tmem_client *cl, tmem_pool pool, const char *data, uint64_t pages,
		   unsigned together)
{
	tmem_oid oid = {{1, 0, 0}};
	int err = 0;

	for (uint64_t i = 0; i < pages && !err;) {
		/* A cluster lies in one group of 64 indexes. */
		uint64_t n = 64 - i % 64 < together ? 64 - i % 64 : together;

		n = pages - i < n ? pages - i : n;
		err = n == 1 ? tmem_put(cl, pool, &oid, i, data + i * TMEM_PAGE_SIZE)
			     : tmem_put_cluster(cl, pool, &oid, i, (unsigned)n,
						data + i * TMEM_PAGE_SIZE);
		i += n;
	}
	return err;
}

/* Pages that differ or are missing. */
static uint64_t compare_all(tmem_client *cl, tmem_pool pool, const char *data, uint64_t pages)
{
	tmem_oid oid = {{1, 0, 0}};
	char page[TMEM_PAGE_SIZE];
	uint64_t bad = 0;

	for (uint64_t i = 0; i < pages; i++) {
		memset(page, 0x5a, sizeof(page));
		if (tmem_get(cl, pool, &oid, i, page) != 0 ||
		    memcmp(page, data + i * TMEM_PAGE_SIZE, sizeof(page)) != 0)
			bad++;
	}
	return bad;
}

static void print(const tmem_stats *st, double put_s, double get_s, uint64_t bad)
{
	printf("pages %llu\nsame_filled_pages %llu\ncompressed_bytes %llu\nstore_bytes %llu\n",
	       (unsigned long long)st->pages, (unsigned long long)st->same_filled_pages,
	       (unsigned long long)st->compressed_bytes, (unsigned long long)st->store_bytes);
	printf("ratio %.2f\nput_us_per_page %.2f\nget_us_per_page %.2f\ndifferent_pages %llu\n",
	       (double)st->pages * TMEM_PAGE_SIZE / (double)(st->store_bytes ? st->store_bytes : 1),
	       put_s * 1e6 / (double)st->pages, get_s * 1e6 / (double)st->pages,
	       (unsigned long long)bad);
}

int main(int argc, char **argv)
{
	tmem_host_options opts = TMEM_HOST_OPTIONS;
	tmem_stats st = {.size = sizeof(st)};
	unsigned together = argc > 3 ? (unsigned)atoi(argv[3]) : 1;
	tmem_client *cl = NULL;
	tmem_host *host = NULL;
	uint64_t pages = 0, bad = 1;
	double t0, t1, t2;
	char text[200] = "";
	const char *data;
	tmem_pool pool;
	int err;

	if (argc < 2 || together < 1 || together > TMEM_CLUSTER_MAX) {
		fprintf(stderr, "usage: tmem-demo-readback FILE [CODEC] [PAGES_TOGETHER]\n");
		return 2;
	}
	data = map_pages(argv[1], &pages);
	if (!data) {
		fprintf(stderr, "tmem-demo-readback: %s: no pages in it\n", argv[1]);
		return 1;
	}
	opts.codec = argc > 2 ? argv[2] : NULL;
	opts.store_raw = 1;
	err = tmem_host_create(&opts, &host, text, sizeof(text));
	if (!err)
		err = tmem_client_create(host, "readback", &cl);
	pool = err ? err : tmem_pool_create(cl, TMEM_POOL_PERSIST, 0);
	if (pool < 0) {
		fprintf(stderr, "tmem-demo-readback: %s\n", *text ? text : tmem_strerror(pool));
		goto out;
	}
	t0 = now_s();
	err = put_all(cl, pool, data, pages, together);
	t1 = now_s();
	if (err) {
		fprintf(stderr, "tmem-demo-readback: put: %s\n", tmem_strerror(err));
		goto out;
	}
	bad = compare_all(cl, pool, data, pages);
	t2 = now_s();
	if (tmem_host_stats(host, &st) != 0)
		bad++;
	print(&st, t1 - t0, t2 - t1, bad);
out:
	tmem_client_destroy(cl);
	tmem_host_destroy(host);
	return bad != 0;
}
