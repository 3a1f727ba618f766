/* SPDX-License-Identifier: BSD-2-Clause */
/* See trial.h. The pages go in as frontends give them: by number, neighbours together. */
#include "cli/trial.h"

#include "os/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <tmem/tmem.h>

#define PAGE TMEM_PAGE_SIZE

static const tmem_oid oid = {{1, 0, 0}};

struct store {
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool;
	uint8_t *buf; /* TMEM_CLUSTER_MAX pages */
	uint64_t ns;
};

/* Goes through the sampled clusters; stops when fn is not 0. */
static int each_cluster(const struct pages *p, const struct trial *t,
			int (*fn)(struct store *s, const struct pages *p, uint64_t i, unsigned n),
			struct store *s, uint64_t *pages)
{
	double fraction = t->fraction > 0 ? t->fraction : 1;
	uint64_t i, group = 0, groups = 0, done = 0;
	bool sampled = false;
	unsigned n;
	int code = 0;

	for (i = 0; i < p->count && !code; i += n) {
		n = pages_cluster(p, i, t->cluster);
		if (groups == 0 || p->number[i] / PAGES_GROUP != group) {
			group = p->number[i] / PAGES_GROUP;
			sampled = pages_sampled(groups++, fraction);
		}
		if (!sampled)
			continue;
		done += n;
		if (fn)
			code = fn(s, p, i, n);
		if (t->bar)
			progress_add(t->bar, n);
	}
	*pages = done;
	return code;
}

static int put(struct store *s, const struct pages *p, uint64_t i, unsigned n)
{
	uint64_t start = os_clock_ns();
	int code = n == 1 ? tmem_put(s->client, s->pool, &oid, p->number[i], p->data + i * PAGE)
			  : tmem_put_cluster(s->client, s->pool, &oid, p->number[i], n,
					     p->data + i * PAGE);

	s->ns += os_clock_ns() - start;
	return code;
}

/* All pages of a cluster, whatever the store made of it: each get brings what lives together. */
static int get(struct store *s, const struct pages *p, uint64_t i, unsigned n)
{
	uint32_t wanted = n == 32 ? ~0u : (1u << n) - 1;
	uint64_t start, first;
	uint32_t mask;
	unsigned k, at;
	int code;

	while (wanted) {
		at = (unsigned)__builtin_ctz(wanted);
		start = os_clock_ns();
		first = p->number[i + at];
		mask = 1;
		if (n == 1)
			code = tmem_get(s->client, s->pool, &oid, first, s->buf);
		else
			code = tmem_get_cluster(s->client, s->pool, &oid, first, 0, s->buf, &first,
						&mask);
		s->ns += os_clock_ns() - start;
		if (code)
			return code < 0 ? code : -EIO;
		for (k = 0; mask >> k; k++) {
			/* Which of ours it is; page numbers of a cluster are consecutive. */
			uint64_t mine = first + k - p->number[i];

			if (!(mask >> k & 1) || mine >= n)
				continue;
			if (memcmp(s->buf + k * PAGE, p->data + (i + mine) * PAGE, PAGE))
				return -EIO;
			wanted &= ~(1u << mine);
		}
		if (wanted >> at & 1)
			return -EIO; /* what was asked for did not come */
	}
	return 0;
}

uint64_t trial_pages(const struct pages *p, double fraction)
{
	struct trial t = {.cluster = TMEM_CLUSTER_MAX, .fraction = fraction};
	uint64_t pages;

	return each_cluster(p, &t, NULL, NULL, &pages) ? 0 : pages;
}

static int open_store(struct store *s, const struct trial *t, char *err, size_t errlen)
{
	tmem_host_options options = TMEM_HOST_OPTIONS;
	int code;

	options.codec = t->codec;
	options.store_raw = 1;
	code = tmem_host_create(&options, &s->host, err, errlen);
	if (code)
		return code;
	code = tmem_client_create(s->host, "trial", &s->client);
	if (!code) {
		s->pool = tmem_pool_create(s->client, TMEM_POOL_PERSIST, 0);
		code = s->pool < 0 ? s->pool : 0;
	}
	if (code)
		snprintf(err, errlen, "cannot make a store: %s", tmem_strerror(code));
	return code;
}

int trial_run(const struct pages *p, struct trial *t, char *err, size_t errlen)
{
	_Alignas(64) static uint8_t buf[TMEM_CLUSTER_MAX * PAGE];
	struct store s = {.buf = buf};
	tmem_stats st = {.size = sizeof(st)};
	uint64_t read_back;
	int code;

	memset(buf, 1, sizeof(buf)); /* touched before it is timed */
	code = open_store(&s, t, err, errlen);
	if (code)
		goto out;
	code = tmem_host_stats(s.host, &st);
	if (code)
		goto out;
	t->empty_bytes = st.store_bytes;
	code = each_cluster(p, t, put, &s, &t->pages);
	t->put_ns = t->pages ? (double)s.ns / (double)t->pages : 0;
	if (code) {
		snprintf(err, errlen, "%s: a put failed: %s", t->codec, tmem_strerror(code));
		goto out;
	}
	code = tmem_host_stats(s.host, &st);
	if (code)
		goto out;
	t->same_filled = st.same_filled_pages;
	t->compressed_bytes = st.compressed_bytes;
	t->store_bytes = st.store_bytes;
	t->raw_pages = st.puts_raw;
	s.ns = 0;
	code = each_cluster(p, t, get, &s, &read_back);
	t->get_ns = read_back ? (double)s.ns / (double)read_back : 0;
	if (code)
		snprintf(err, errlen, "%s: pages did not come back as they were put: %s", t->codec,
			 tmem_strerror(code));
out:
	tmem_client_destroy(s.client);
	tmem_host_destroy(s.host);
	return code;
}
