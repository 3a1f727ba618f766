/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `tmem replay`: a trace, as events on numbered pages, against eviction policies.
 *
 *   file --load--> events in order of time --+--> engine   a real host with that policy
 *                                            +--> model    policies over page numbers
 *   both --> struct replay_result --> table, JSON, SVG
 *
 *   I1  event[i].page < npages
 *   I2  event[i].time_ns <= event[i + 1].time_ns
 *   I3  hits <= asks; asks = events of kinds ASK, GET, TAKE
 */
#ifndef TMEM_CLI_REPLAY_H
#define TMEM_CLI_REPLAY_H

#include "trace/format.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum replay_kind {
	REPLAY_ASK,  /* a page is wanted: found, or fetched from its source and put */
	REPLAY_GET,  /* a page is wanted, and stays */
	REPLAY_TAKE, /* a page is wanted, and leaves the store */
	REPLAY_PUT,
	REPLAY_DROP, /* what is stored of it is no longer true */
};

struct replay_event {
	uint64_t time_ns; /* from the first one on */
	uint32_t page;
	uint32_t kind; /* enum replay_kind */
};

struct replay_page {
	uint32_t object; /* number, dense from 0 */
	uint32_t next;	 /* of the same object, or UINT32_MAX */
	uint64_t index;
	uint16_t zsize; /* compressed; 0: same-filled */
	bool known;	/* zsize was in the trace */
};

struct replay_trace {
	struct replay_event *event;
	struct replay_page *page;
	uint64_t nevents, npages, nobjects;
	uint64_t asks, puts, drops;			   /* events by what they do */
	uint64_t ops[TRACE_OPCODES], pages[TRACE_OPCODES]; /* of the file, as recorded */
	uint64_t hits;					   /* asks that the recorded store had */
	uint64_t records, blocks, bytes, lost, duration_ns;
	uint64_t footprint;	/* bytes that all pages would take, about */
	uint64_t unknown_sizes; /* pages whose zsize is assumed */
	bool cut;
};

/* Of each page beside its compressed bytes: header, allocator, index, queue; about. */
#define REPLAY_OVERHEAD 40u
/* What pages take whose size the trace does not know. */
#define REPLAY_ZSIZE	1400u

static inline uint32_t replay_cost(const struct replay_page *p)
{
	return p->zsize + REPLAY_OVERHEAD;
}

/*
 * Read a whole trace into memory. maps: a mapping counts as one reading of all
 * its pages. 0; -EBADMSG damaged, -E2BIG, -ENOMEM, -ENODATA or the error of
 * reading, with a line in err; then *out is empty.
 */
int replay_load(const char *path, bool maps, struct replay_trace *out, char *err, size_t errlen)
	__attribute__((warn_unused_result));
void replay_free(struct replay_trace *t);
/* tmem trace --info. Returns the exit code. */
int replay_info(const char *command, const char *path, bool json);

/* ---- running --------------------------------------------------------------- */

#define REPLAY_SAMPLES 120

struct replay_sample {
	double part;	       /* of the events, 0..1 */
	uint64_t memory_bytes; /* of the store */
	double hit_ratio;      /* of the asks since the sample before; NAN: none */
};

struct replay_result {
	char policy[24];
	bool model;
	uint64_t size_bytes;
	uint64_t asks, hits, puts, refused, evicted_pages;
	uint64_t stored_bytes;	 /* compressed bytes written into the store */
	uint64_t fetched_bytes;	 /* page bytes that had to come from the source */
	uint64_t unpacked_bytes; /* page bytes decompressed, same-filled ones left out */
	uint64_t peak_bytes;
	double put_ns, get_ns; /* an operation; engine only */
	struct replay_sample sample[REPLAY_SAMPLES];
	unsigned samples;
};

/* The policies of the model. NULL when there is no such one. */
struct replay_model;
const struct replay_model *replay_model_find(const char *name);
const char *replay_model_names(void);
/*
 * Events against a model of `size` bytes. next_use is for "opt" only: from
 * replay_next_use(). `step` (NULL: none) is called with events done. 0 or -ENOMEM.
 */
int replay_model_run(const struct replay_model *m, const struct replay_trace *t,
		     const uint32_t *next_use, uint64_t size, struct replay_result *out,
		     void (*step)(uint64_t events)) __attribute__((warn_unused_result));
/* For each event, which event asks for the same stored page next; UINT32_MAX: none. NULL: memory.
 */
uint32_t *replay_next_use(const struct replay_trace *t);

/*
 * Events against a real host with that policy and limit. Every page that is
 * found is compared, byte for byte, with what was put. pages: `npages` pages of
 * 4096 bytes to take contents from; NULL: made to the recorded sizes. 0, or a
 * negative errno with a line in err: also when a page came back wrong.
 */
int replay_engine_run(const char *policy, const char *codec, const struct replay_trace *t,
		      const uint8_t *pages, uint64_t npages, uint64_t size,
		      struct replay_result *out, void (*step)(uint64_t events), char *err,
		      size_t errlen) __attribute__((warn_unused_result));

#endif
