/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that say what they must hold: {magic, place, version, check}, and the
 * rest follows from place and version by a small generator. So a wrong page can
 * be named: zero, stale, torn, or another's.
 */
#ifndef TMEM_E2E_NAMED_PAGE_H
#define TMEM_E2E_NAMED_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE  4096u
#define WORDS (PAGE / 8)

/* Set: pages of an odd version are incompressible; the others shrink to about a third. */
extern bool noise;

uint64_t mix(uint64_t z); /* splitmix64's last step */
double now_s(void);

/* Version 0 is a page of zeros. */
void fill_page(uint64_t *p, uint64_t place, uint64_t version);
/* A page that holds anything else ends the process: a line "WRONG PAGE" on stderr, exit code 1. */
void check_page(const uint64_t *p, uint64_t place, uint64_t version, const char *where);

#endif
