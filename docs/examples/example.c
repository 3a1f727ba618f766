/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libtmem in forty lines: a store of at most 16 MiB, some pages in, and out.
 *
 *   cc example.c $(pkg-config --cflags --libs tmem) && ./a.out
 */
#include <stdio.h>
#include <string.h>
#include <tmem/tmem.h>

int main(void)
{
	tmem_host_options options = TMEM_HOST_OPTIONS;
	tmem_stats stats = {.size = sizeof(stats)};
	tmem_oid file = {{1, 2, 3}}; /* whatever names your object: here, "a file" */
	char page[TMEM_PAGE_SIZE], back[TMEM_PAGE_SIZE], err[100];
	tmem_client *client;
	tmem_host *host;
	tmem_pool pool;
	unsigned bad = 0;

	options.limit_bytes = 16u << 20;
	if (tmem_host_create(&options, &host, err, sizeof(err)) ||
	    tmem_client_create(host, "example", &client) ||
	    (pool = tmem_pool_create(client, TMEM_POOL_PERSIST, 0)) < 0) {
		fprintf(stderr, "example: %s\n", err);
		return 1;
	}
	for (uint64_t i = 0; i < 1000; i++) {
		memset(page, 0, sizeof(page));
		snprintf(page, sizeof(page), "This is page %llu.", (unsigned long long)i);
		bad += tmem_put(client, pool, &file, i, page) != 0;
	}
	for (uint64_t i = 0; i < 1000; i++) {
		snprintf(page, sizeof(page), "This is page %llu.", (unsigned long long)i);
		bad += tmem_get(client, pool, &file, i, back) != 0 || strcmp(page, back) != 0;
	}
	bad += tmem_host_stats(host, &stats) != 0;
	printf("%llu pages in %llu bytes, %u wrong\n", (unsigned long long)stats.pages,
	       (unsigned long long)stats.store_bytes, bad);
	tmem_host_destroy(host); /* its clients and pools go with it */
	return bad != 0;
}
