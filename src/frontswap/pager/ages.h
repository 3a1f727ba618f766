/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much of each mapping of a process is idle: the kernel's own count.
 *
 * /proc/PID/clear_refs takes the accessed bits of all pages away; what smaps calls
 * Referenced some time later are the pages that were touched since. A *window* is
 * such a time. So per mapping, and not per page; but exact, as a normal user, and
 * the program meets no fault for it. Measured for 1 GiB of small pages (Linux
 * 6.18, a virtual machine): clear_refs 8 ms, during which mmap and first touches
 * of that process wait; smaps 6 ms; and up to 0.57 us for each page in use, when the
 * processor sets its bit again: 0.12 % of the time with a window of 120 s. With
 * huge pages a five-hundredth of that.
 *
 * Other sources, and why not: the idle bits of /sys/kernel/mm/page_idle are
 * exact per page, and DAMON's regions nearly so; both are for root alone, and in no
 * kernel of the distributions at hand built in (CONFIG_IDLE_PAGE_TRACKING,
 * CONFIG_DAMON_VADDR). PAGEMAP_SCAN and soft-dirty bits see writes only.
 * mincore(2) knows nothing of anonymous memory. Which pages of a mapping are the idle
 * ones is found by trying; see auto.c.
 *
 * The bits are the kernel's, too: its own reclaim takes what was idle for a
 * window for colder than it is. It errs in the direction in which we go.
 */
#ifndef TMEM_PAGER_AGES_H
#define TMEM_PAGER_AGES_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct age { /* a mapping that pages may leave */
	uint64_t start, end;
	uint64_t resident, referenced; /* pages; referenced <= resident */
	uint64_t left;		       /* auto.c: pages that left since */
};

struct ages {
	uint32_t n, size;
	uint64_t resident, referenced; /* pages of all of them */
	struct age at[];	       /* ascending */
};

/* Begin a window. 0 or -errno: -EACCES when the process does not let itself be looked at. */
int ages_begin(pid_t pid) __attribute__((warn_unused_result));
/* End it: *out is the caller's, for ages_free(). 0, -ENOMEM, or what open says. */
int ages_read(pid_t pid, struct ages **out) __attribute__((warn_unused_result));
/* The same from an smaps file. */
int ages_parse(FILE *f, struct ages **out) __attribute__((warn_unused_result));
void ages_free(struct ages *a);
/* The mapping that has addr, or NULL. */
struct age *ages_find(struct ages *a, uint64_t addr);

#endif
