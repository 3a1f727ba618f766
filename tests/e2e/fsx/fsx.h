/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A checker of file systems that show another folder, after the idea of Apple's fsx: operations at
 * random, by several threads, and after each of them what is read must be what may be read.
 *
 * Two kinds of files:
 *
 *   own      changed through the mount only, by one thread, which knows every byte (fsx_own.c)
 *   foreign  changed in the source by another process, and read through the mount; each block
 *            names itself, so what is read tells how old it is (fsx_foreign.c)
 */
#ifndef TMEM_TESTS_FSX_H
#define TMEM_TESTS_FSX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define THREADS_MAX 16u
#define OWN	    4u		 /* files a thread */
#define OWN_BYTES   (256u << 10) /* at most */
#define FOREIGN	    6u		 /* files */
#define BLOCK	    4096u
#define BLOCKS	    48u /* of a foreign file, at most */
#define HANDLES	    4u	/* on foreign files, a thread */
#define AGES	    16u /* versions of a block whose time is remembered */

/* Shared with the process that changes the source. Times: ns of a clock that both have. */
struct block_state {
	_Atomic uint64_t begun, done;	/* versions */
	_Atomic uint64_t done_at[AGES]; /* of version % AGES */
};
struct foreign_state {
	struct block_state block[BLOCKS];
	_Atomic uint64_t shape_begun, shape_done; /* changes of its length, or of what it names */
	_Atomic uint32_t blocks;
};
struct world {
	struct foreign_state foreign[FOREIGN];
	_Atomic uint64_t deaths; /* of the mount's process: odd while it is down */
	_Atomic bool stop, failed;
	_Atomic uint64_t changes; /* of the other process */
};

struct own_file {
	bool exists;
	uint32_t bytes;
	uint8_t *want; /* OWN_BYTES */
	int fd;	       /* -1: not open */
	bool append;
	char name[32];
};
struct foreign_handle {
	int fd; /* -1: not open */
	unsigned file;
	uint64_t done[BLOCKS]; /* what it must not be older than: versions, */
	uint64_t shape;	       /* before it was opened */
	uint32_t blocks;
};
struct worker {
	unsigned number;
	uint64_t rng, op;
	struct own_file own[OWN];
	struct foreign_handle handle[HANDLES];
	uint8_t *buf; /* OWN_BYTES */
	uint64_t count[32];
};

extern struct world *world;
extern const char *mount_dir, *source_dir;
extern uint64_t seed, ttl_ns; /* ttl: how old a version may be when a file is opened */
extern bool kills;

uint64_t rnd(struct worker *w, uint64_t n);
uint64_t now_ns(void);
uint64_t mix(uint64_t x);
/* Says what is wrong, and ends the test. */
_Noreturn void fail(const struct worker *w, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Whether an error is the mount's process having died; then everything is to be opened anew. */
bool is_death(struct worker *w, int err);
/* errno of a call that may fail only by a death. */
void must(struct worker *w, const char *what);
/* Now and then the kernel's pages of a file are dropped: what is under them is what is tested. */
void forget(struct worker *w, int fd);
ssize_t read_all(int fd, void *buf, size_t n, off_t offset);
ssize_t write_all(int fd, const void *buf, size_t n, off_t offset);
int path_open(const char *dir, const char *name, int flags);

/* fsx_own.c */
void own_begin(struct worker *w);
void own_operation(struct worker *w);
void own_end(struct worker *w);
void own_reopen(struct worker *w); /* after a death: what is in the source is what is there */

/* fsx_foreign.c */
void foreign_make(void); /* the files, before anybody runs */
void foreign_operation(struct worker *w);
void foreign_close(struct worker *w);
void foreign_change_all(void); /* the other process: until the world stops */

enum {
	C_READ,
	C_WRITE,
	C_TRUNCATE,
	C_MAP_READ,
	C_MAP_WRITE,
	C_PUNCH,
	C_COPY,
	C_RENAME,
	C_UNLINK,
	C_REOPEN,
	C_SOURCE,
	C_APPEND,
	C_FOREIGN_OPEN,
	C_FOREIGN_READ,
	C_FOREIGN_NEWER,
	C_FOREIGN_TORN,
	C_DEATHS,
	C_KINDS
};

#endif
