/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Failures on demand.
 *
 * The linker sends the engine's calls of malloc and its kin here (--wrap). A
 * test arms the shim with a number n; the n-th call that may fail, fails: once,
 * or it and all that follow. The shim also counts what is alive, so that a leak
 * shows in the run that made it.
 *
 * Thread-safe. Costs a stack walk a call while armed.
 */
#ifndef TMEM_TESTS_FAULT_SHIM_H
#define TMEM_TESTS_FAULT_SHIM_H

#include <stdbool.h>
#include <stdint.h>

/* What may fail. */
enum shim_kind {
	SHIM_MALLOC,   /* malloc, calloc, realloc, posix_memalign, aligned_alloc: ENOMEM */
	SHIM_MMAP,     /* mmap: ENOMEM */
	SHIM_POPULATE, /* madvise(MADV_POPULATE_WRITE): ENOMEM */
	SHIM_THREAD,   /* pthread_create: EAGAIN */
	SHIM_TLS,      /* pthread_key_create: EAGAIN, pthread_setspecific: ENOMEM */
	SHIM_CHARGE,   /* frames_charge: the limit refuses */
	SHIM_FILE, /* open: EMFILE; write, ftruncate, fallocate: ENOSPC; syncs, rename, fstat: EIO
		    */
	SHIM_KINDS
};

/* Fail the n-th call from now on (from 1; 0: none, count only); `from_then_on`: all after it too.
 */
void shim_arm(uint64_t n, bool from_then_on);
void shim_disarm(void);

/*
 * What reads and writes of files do besides, on their own switch: the n-th
 * pread fails with EIO (once or from then on; n 0: none); every second call is
 * interrupted; calls move a few bytes only.
 */
enum shim_site { SHIM_PREAD, SHIM_PWRITE, SHIM_SETTLE, SHIM_PUNCH, SHIM_SITES };
struct shim_io {
	uint64_t fail_read_at;
	bool from_then_on, interrupt, few_bytes;
	/* The n-th call of this site fails with `error`; once or from then on. 0: none. */
	uint64_t fail_site_at;
	enum shim_site site;
	int error;
	/* The n-th pwrite writes half of its bytes and says all. */
	uint64_t torn_at;
};
void shim_io(const struct shim_io *io); /* NULL: all as usual */
uint64_t shim_reads_failed(void);	/* since then */
uint64_t shim_io_failed(void);		/* at a site, or torn, since then */

/* For wrappers: whether this call is to fail. */
bool shim_may_fail(enum shim_kind kind);

/* Since the last shim_arm(). */
uint64_t shim_calls(void);
uint64_t shim_failed(void);
/* Where and what the first failed call was, on stderr. */
void shim_describe(void);

/* What is alive: equal before and after means that nothing leaked. */
struct shim_alive {
	int64_t blocks, block_bytes, mapped_bytes, threads, keys, files;
};
void shim_alive(struct shim_alive *a);

/* Different call sites (five frames deep) that were reached, and that failed, ever. */
void shim_sites(uint64_t *reached, uint64_t *failed);
/* Calls that failed, ever, by kind. */
const char *shim_kind_name(unsigned kind);
uint64_t shim_failed_of(unsigned kind);

#endif
