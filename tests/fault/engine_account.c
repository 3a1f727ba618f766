/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The account is true: what a host says it holds covers what it really holds.
 *
 * Blocks are measured by the shim (what the C library gave, rounding included);
 * frames by the growth of the process's resident memory.
 */
#include "shim.h"
#include "world.h"

#include "os/mem.h"
#include "os/thread.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t stored_bytes(struct world *w, uint64_t *frames)
{
	tmem_stats st = {.size = sizeof(st)};

	W_CHECK(tmem_host_stats(w->host, &st) == 0, "stats");
	W_CHECK(st.store_bytes == st.frame_bytes + st.meta_bytes, "parts do not add up");
	*frames = st.frame_bytes;
	return st.store_bytes;
}

static void put_some(struct world *w, unsigned object)
{
	for (unsigned i = 0; i < W_PAGES; i++)
		w_put(w, 0, object, i, W_TEXT);
	if (object < 2) {
		for (unsigned i = 0; i < W_PAGES; i += 16)
			w_put_cluster(w, 0, object, i, 16, 0);
	}
}

static void *put_thread(void *arg)
{
	put_some(arg, 1);
	/* Before the thread's state goes. */
	return arg;
}

/* Blocks against the part of the account that is not frames. */
static void check_blocks(struct world *w, const struct shim_alive *before, const char *codec)
{
	struct shim_alive now;
	uint64_t frames, all = stored_bytes(w, &frames);
	int64_t held;

	shim_alive(&now);
	held = now.block_bytes - before->block_bytes;
	W_CHECK(held <= (int64_t)(all - frames),
		"%s: %" PRId64 " bytes of blocks, but all metadata is said to be %" PRIu64, codec,
		held, all - frames);
}

static void blocks(const char *codec)
{
	tmem_host_options o = TMEM_HOST_OPTIONS;
	struct shim_alive before, after;
	struct world w;
	os_thread t;

	w_scenario = codec;
	w_init(&w);
	o.codec = codec;
	shim_alive(&before);
	W_CHECK(w_start(&w, &o), "no host");
	check_blocks(&w, &before, codec);
	put_some(&w, 0);
	check_blocks(&w, &before, codec);
	W_CHECK(os_thread_create(&t, "fault", put_thread, &w) == 0, "no thread");
	os_thread_join(t);
	check_blocks(&w, &before, codec);
	w_codec(&w, "zstd:3");
	put_some(&w, 2);
	check_blocks(&w, &before, codec);
	w_codec(&w, codec);
	put_some(&w, 0);
	check_blocks(&w, &before, codec);
	w_end(&w);
	shim_alive(&after);
	W_CHECK(memcmp(&before, &after, sizeof(before)) == 0, "something was left");
}

/*
 * A hundred times the model's pages, so that frames are what counts. Not with
 * the sanitizers: their memory is not the store's.
 */
__attribute__((unused)) static void resident(void)
{
	static uint64_t bytes[TMEM_PAGE_SIZE / 8];
	tmem_oid oid = {{9, 9, 9}};
	uint64_t before, grown, frames, all, seed = 1;
	struct world w;

	w_scenario = "resident";
	w_init(&w);
	before = os_resident_bytes();
	if (!before)
		return;
	W_CHECK(w_start(&w, NULL), "no host");
	for (unsigned i = 0; i < 40000; i++) {
		for (unsigned k = 0; k < TMEM_PAGE_SIZE / 8; k++) {
			seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
			bytes[k] = k % (2 + i % 7) ? 0 : seed;
		}
		W_CHECK(tmem_put(w.client, w.pool[0].id, &oid, i, bytes) == 0, "put %u", i);
	}
	all = stored_bytes(&w, &frames);
	grown = os_resident_bytes() - before;
	printf("resident %" PRIu64 " KiB more, store says %" PRIu64 " KiB\n", grown >> 10,
	       all >> 10);
	W_CHECK(grown <= all + (1 << 20),
		"resident memory grew by %" PRIu64 ", the store says %" PRIu64, grown, all);
	w_end(&w);
}

int main(void)
{
	static const char *const codecs[] = {"lz4", "zstd:-7", "zstd", "zstd:9", "zstd:19"};

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	resident();
#endif
	for (unsigned i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++)
		blocks(codecs[i]);
	return 0;
}
