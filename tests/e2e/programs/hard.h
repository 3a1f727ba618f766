/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of e2e-hard share. */
#ifndef TMEM_E2E_HARD_H
#define TMEM_E2E_HARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096ul

/*
 * n pages of memory whose contents follow from (page number, salt): a third of each is text-like,
 * so that it compresses, and no two pages are alike.
 */
char *ballast_map(size_t n);
void ballast_fill(char *at, size_t first, size_t n, uint64_t salt);
/* The pages of [first, first + n) that are not what they should be; the first few are printed. */
size_t ballast_wrong(const char *at, size_t first, size_t n, uint64_t salt);
void page_fill(void *page, uint64_t number, uint64_t salt);
bool page_right(const void *page, uint64_t number, uint64_t salt);

/* A line that says what failed, and exit code 1. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
uint64_t next_random(uint64_t *state);

/* Each: print what was found, one line a fact, equal from run to run; fail() when it is wrong. */
void hard_threads(size_t mib);
void hard_crowd(size_t mib);
void hard_children(size_t mib);
void hard_living(size_t mib);
void hard_rawclone(size_t mib);
void hard_sparse(size_t mib);
void hard_uffd(size_t mib);
void hard_direct(size_t mib);
void hard_fixed(size_t mib);
void hard_noise(size_t mib);

#endif
