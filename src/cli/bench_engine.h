/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of `tmem bench engine` share: the pages, the store, what was measured. */
#ifndef TMEM_CLI_BENCH_ENGINE_H
#define TMEM_CLI_BENCH_ENGINE_H

#include "cli/cli.h"
#include "cli/pages.h"
#include "cli/team.h"
#include "codec/codec.h"

#include <tmem/tmem.h>

#define ENGINE_CHUNK	 2048 /* pages of a round at most */
#define ENGINE_PAGE	 TMEM_PAGE_SIZE
/* What the engine refuses to call compressed (tmem_host_options.max_zsize). */
#define ENGINE_MAX_ZSIZE 3584

/* A median and how many rounds it is of; ratios are medians of the rounds' own ratios. */
struct engine_pair {
	double raw_ns, engine_ns, ratio;
	unsigned rounds;
};

/* A store in which clusters come and go, compacted as its host does. See bench_engine_churn.c. */
struct engine_churn {
	uint64_t operations, moves, returned_bytes, calls, empty_calls;
	double frames_over_compressed; /* at the end */
	double frames_without;	       /* the same when nothing is compacted */
	double cpu_share;	       /* of compaction, of one processor */
	double longest_us, idle_us;    /* a call; a call when there is nothing to gain */
};

struct engine_result {
	struct engine_pair put, replace, get; /* put: at fresh handles, into a growing store */
	double lz4_default_ns; /* LZ4_compress_default beside the state that is kept; 0: not lz4 */
	double same_put_ns, same_get_ns, same_check_ns, same_fill_ns;
	double scaling, put_scaling, get_scaling, raw_scaling;
	double scale_4m, scale_4m_sequential;
	double scale_small_ns, scale_large_ns;
	uint64_t same_filled, poor, poor_left_out;
	uint64_t zram_bytes, zram_compressed;
	char zram_why[256]; /* "": zram was measured */
	uint64_t compressed_bytes, store_bytes, meta_bytes, growth_bytes;
	uint64_t frame_bytes, head_bytes; /* head: zpages' own headers */
	uint64_t fixed_bytes; /* of the store with one page in it, but for that page's frame */
	double frame_ns;      /* what the system takes to make one frame resident */
	double frame_back_ns; /* and to take it back */
	struct engine_churn churn;
};

struct engine_thread {
	struct codec_set set;
	uint8_t *scratch; /* one page and then some */
	uint8_t *to;	  /* ENGINE_CHUNK pages */
	int code;	  /* the first error */
};

struct engine {
	/* given */
	struct codec_spec spec;
	const char *spec_text;
	struct pages pages; /* those that are not same-filled, numbered from 0 */
	unsigned threads, rounds;
	bool scale, zram;
	const char *zpool; /* allocator */
	bool ephemeral;	   /* the pool: a get takes the page out */
	bool keeps_raw;	   /* the allocator has room for pages that do not compress */
	/* working */
	struct team team;
	struct engine_thread thread[TEAM_MAX];
	uint8_t *packed;     /* every page compressed by the bare codec */
	uint64_t *packed_at; /* count + 1 offsets */
	tmem_host *host;
	tmem_client *client;
	tmem_pool pool;
	/* the round under way */
	uint64_t lo;	/* first page */
	uint64_t count; /* of each member */
	struct engine_result r;
};

/* What each part measures is said at its definition. 0 or a negative errno. */
int engine_measure_pages(struct engine *e);
int engine_measure_threads(struct engine *e);
int engine_measure_churn(struct engine *e);
int engine_measure_same_filled(struct engine *e);
int engine_measure_scale(struct engine *e);
int engine_measure_zram(struct engine *e);

/* A new store in e->host, client and pool, of the allocator and kind that e says. */
int engine_open(struct engine *e, const char *codec);
void engine_close(struct engine *e);

/*
 * Where page i goes: oids differ in 256 ways, as frontends spread them over
 * the locks, and neighbours share a leaf.
 */
static inline void engine_handle(uint64_t i, tmem_oid *oid, uint64_t *index)
{
	*oid = (tmem_oid){{1, i >> 6 & 255, 0}};
	*index = (i >> 14 << 6) | (i & 63);
}

#endif
