/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages to measure with: the private anonymous memory of a live process, or
 * the bytes of files.
 *
 *   source --(list groups)--> groups of 64 neighbours --(every k-th)--> pages
 *
 * A *group* is 64 page numbers from a multiple of 64 on, as one leaf of the
 * index holds. Sampling takes or leaves whole groups, so that what is measured
 * has the neighbours that clusters need and the leaves as full as they are.
 *
 *   I1  number[i] < number[i + 1]: pages are in the source's order, no number twice
 *   I2  count <= eligible: a sample never has more than there was
 */
#ifndef TMEM_CLI_PAGES_H
#define TMEM_CLI_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGES_GROUP	  64
#define PAGES_MAX_DEFAULT (1ull << 30) /* bytes read unless told otherwise */

/* Why memory of a process cannot be evicted by `tmem run` and is left out. */
enum pages_left_out {
	LEFT_FILE,	 /* in mappings of files */
	LEFT_SHARED,	 /* in shared mappings */
	LEFT_STACK,	 /* stacks, thread stacks included */
	LEFT_LOCKED,	 /* mlock'ed */
	LEFT_HUGETLB,	 /* huge TLB pages */
	LEFT_SPECIAL,	 /* [vdso], device and I/O mappings */
	LEFT_COPY,	 /* shared with a forked process, or the zero page */
	LEFT_SWAPPED,	 /* in swap already */
	LEFT_UNREADABLE, /* went away while it was read */
	LEFT_KINDS
};
/* "stacks", for people; "stacks" with underscores, for JSON. Static. */
const char *pages_left_name(enum pages_left_out kind);
const char *pages_left_key(enum pages_left_out kind);

struct pages {
	uint8_t *data;	  /* count pages, end to end; touched */
	uint64_t *number; /* of each page in its source: what says who is whose neighbour */
	uint64_t count;
	uint64_t room;		       /* pages that data has room for */
	uint64_t eligible;	       /* pages the source has; count of them are here */
	uint64_t left_out[LEFT_KINDS]; /* pages not eligible, by reason (unreadable ones were) */
	bool process;		       /* left_out means something */
	int pid;
	char name[64];		 /* of the program; or the file, or "N files" */
	unsigned stacks_unknown; /* threads whose stack could not be told from other memory */
};

struct pages_want {
	double percent;	    /* at most this part of what is there; 0: 100 */
	uint64_t max_bytes; /* and at most this many bytes; 0: PAGES_MAX_DEFAULT */
};

/*
 * Whether text names a process: digits only. A file of such a name is ./123.
 */
bool pages_is_pid(const char *text);

/*
 * Read a process's memory while it runs; it is not stopped. On failure an
 * error line is in err, *out is empty, and a negative errno returned: -ESRCH
 * no such process or it ended meanwhile, -EPERM not ours to read, -ENODATA it
 * has no such memory, -ENOMEM.
 */
int pages_from_process(int pid, const struct pages_want *want, struct pages *out, char *err,
		       size_t errlen) __attribute__((warn_unused_result));
/* Files' bytes, the last page of each filled up with zeros. Errors as above, or the file's. */
int pages_from_files(char *const *paths, unsigned n, const struct pages_want *want,
		     struct pages *out, char *err, size_t errlen)
	__attribute__((warn_unused_result));
/* Write all pages, end to end, to a file. 0 or a negative errno. */
int pages_save(const struct pages *p, const char *path) __attribute__((warn_unused_result));
void pages_free(struct pages *p);

/* ---- for the two collectors --------------------------------------------------- */

/* Room for up to `count` pages, touched. 0 or -ENOMEM. */
int pages_reserve(struct pages *p, uint64_t count) __attribute__((warn_unused_result));
/* The part of the eligible pages to take, by want and by the memory that is free. */
double pages_fraction(const struct pages *p, const struct pages_want *want);
/* Whether the i-th group is in an even sample of this fraction. */
static inline bool pages_sampled(uint64_t i, double fraction)
{
	return (uint64_t)((double)(i + 1) * fraction) > (uint64_t)((double)i * fraction);
}
/* Length of the cluster that starts at page i: neighbours within an aligned run of `size`. */
unsigned pages_cluster(const struct pages *p, uint64_t i, unsigned size);

#endif
